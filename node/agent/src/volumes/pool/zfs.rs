//! Volumes as ZFS datasets below one parent.
//!
//! Owner: the volume worker. Invariants: a volume is a dataset named by its id, and appears and goes
//! by one transaction of ZFS; what takes more than one is announced in a property and finished by
//! recovery; nothing outside of the parent is changed. The datasets' `canmount` is `noauto`: the
//! agent mounts them, below its own directory.
//! Next: `zfs/driver.rs` for the transactions, `zfs/dataset.rs` for names, `zfs/changes.rs` for what takes
//! several steps, `zfs/mounts.rs` for where trees are seen.

mod changes;
mod command;
#[cfg(feature = "zfs-core")]
mod core;
mod dataset;
mod driver;
mod fuse;
mod mounts;
mod record;

use std::{
    collections::BTreeSet,
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use teu_protocol::{
    ids::{Tag, VolumeId},
    message::{SnapshotInfo, VolumeUsage},
};

use self::{
    command::{ZfsCommand, path_text},
    dataset::{Kind, Parent, at, snapshot_name},
    driver::Driver,
    mounts::is_mounted,
};
use super::{
    Pool, PoolError, PoolFormat, PoolSpace, Receive, StoredVolume,
    command::{Tools, failed_io},
};

/// A pool of ZFS datasets.
#[derive(Debug)]
pub struct ZfsPool {
    parent: Parent,
    mount_dir: PathBuf,
    command: ZfsCommand,
    driver: Box<dyn Driver>,
    /// Volumes that are being received now: recovery leaves them alone.
    making: Mutex<BTreeSet<VolumeId>>,
}

impl ZfsPool {
    /// All volumes below one dataset, mounted below `mount_dir`. The dataset is made if missing.
    ///
    /// # Errors
    ///
    /// A tool is missing, or another agent has it. What else fails (the pool is not imported) makes a
    /// pool that says so, and is tried again by `maintain`.
    pub fn open(parent: &str, mount_dir: &Path) -> Result<Self, PoolError> {
        let made = fs::create_dir_all(mount_dir);
        made.map_err(failed_io(format!("make {}", mount_dir.display())))?;
        let found = fs::canonicalize(mount_dir);
        let mount_dir = found.map_err(failed_io(format!("open {}", mount_dir.display())))?;
        path_text(&mount_dir)?;
        let command = ZfsCommand::new(Tools::lock(&mount_dir.join("zfs.lock"))?);
        let driver: Box<dyn Driver> = Box::new(command.clone());
        #[cfg(feature = "zfs-core")]
        let driver = core::before(driver, command.patience());
        let pool = Self {
            parent: Parent(parent.to_owned()),
            mount_dir,
            driver,
            command,
            making: Mutex::default(),
        };
        match pool.maintain() {
            Ok(()) => {}
            Err(error @ PoolError::NoTool { .. }) => return Err(error),
            Err(error) => tracing::warn!(%error, "the pool cannot be used now"),
        }
        Ok(pool)
    }

    /// The state of the ZFS pool, such as `ONLINE`.
    fn health(&self) -> Result<String, PoolError> {
        let health = self
            .command
            .zpool(&["list", "-H", "-o", "health", self.parent.pool()]);
        Ok(health?.trim().to_owned())
    }

    /// That the pool can be used at all: asked first, for a change to a suspended pool would hang.
    fn ready(&self) -> Result<(), PoolError> {
        let health = self.health()?;
        match health.as_str() {
            "ONLINE" | "DEGRADED" => Ok(()),
            _ => Err(PoolError::Faulted(format!(
                "the ZFS pool {} is {health}; see `zpool status`",
                self.parent.pool()
            ))),
        }
    }

    /// The volume's dataset, which is there.
    fn require(&self, id: VolumeId) -> Result<String, PoolError> {
        self.ready()?;
        let dataset = self.parent.volume(id);
        match self.command.exists(&dataset)? {
            true => Ok(dataset),
            false => Err(PoolError::NoVolume(id)),
        }
    }

    /// The volume's dataset, which has the snapshot.
    fn require_snapshot(&self, id: VolumeId, name: &Tag) -> Result<String, PoolError> {
        let dataset = self.require(id)?;
        match self.command.exists(&at(&dataset, name))? {
            true => Ok(dataset),
            false => Err(PoolError::NoSnapshot(name.clone())),
        }
    }

    /// The properties of a new volume's dataset.
    fn properties(
        &self,
        id: VolumeId,
        record: &[u8],
        quota: Option<u64>,
    ) -> Result<Vec<(String, String)>, PoolError> {
        let mut properties = record::encode(record, 'a').ok_or_else(too_long)?;
        let mount_point = path_text(&self.mount_point(id))?.to_owned();
        properties.push(("canmount".to_owned(), "noauto".to_owned()));
        properties.push(("mountpoint".to_owned(), mount_point));
        properties.push(("refquota".to_owned(), quota_text(quota)));
        Ok(properties)
    }

    /// All datasets below the parent, with one property.
    fn datasets(&self, property: &str) -> Result<Vec<(String, String)>, PoolError> {
        let columns = format!("name,{property}");
        let args = [
            "list",
            "-H",
            "-r",
            "-t",
            "filesystem",
            "-o",
            &columns,
            &self.parent.0,
        ];
        let lines = self.command.list(&args)?.into_iter();
        let pairs = lines.filter_map(|line| <[String; 2]>::try_from(line).ok());
        Ok(pairs.map(|[name, value]| (name, value)).collect())
    }

    /// All snapshots of a dataset, oldest first (`zfs list` sorts them by the transaction that made
    /// them), those that are gone included.
    fn snapshot_names(&self, dataset: &str) -> Result<Vec<String>, PoolError> {
        let args = ["list", "-H", "-r", "-t", "snapshot", "-o", "name", dataset];
        let lines = self.command.list(&args)?.into_iter().flatten();
        let own = format!("{dataset}@");
        Ok(lines.filter(|name| name.starts_with(&own)).collect())
    }

    fn numbers(&self, name: &str, properties: &str) -> Result<Vec<Option<u64>>, PoolError> {
        let shown = self
            .command
            .zfs(&["get", "-Hp", "-o", "value", properties, name])?;
        Ok(shown.lines().map(|line| line.trim().parse().ok()).collect())
    }
}

impl Pool for ZfsPool {
    fn format(&self) -> PoolFormat {
        PoolFormat::Zfs
    }

    fn describe(&self) -> String {
        format!(
            "zfs dataset {}, through {}",
            self.parent.0,
            self.driver.describe()
        )
    }

    fn space(&self) -> Result<PoolSpace, PoolError> {
        self.ready()?;
        match self.numbers(&self.parent.0, "used,available")?.as_slice() {
            [Some(used), Some(available)] => Ok(PoolSpace {
                total: used + available,
                free: *available,
            }),
            _ => Err(PoolError::Faulted(format!(
                "`zfs get` does not tell the room in {}",
                self.parent.0
            ))),
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        match self.health() {
            Err(error) => warnings.push(error.to_string()),
            Ok(health) if health != "ONLINE" => warnings.push(format!(
                "the ZFS pool {} is {health}; see `zpool status`",
                self.parent.pool()
            )),
            Ok(_) => match self.space() {
                Err(error) => warnings.push(error.to_string()),
                Ok(space) if space.free < space.total / 20 => warnings.push(format!(
                    "the pool is nearly full: {} MiB left of {} MiB; destroy snapshots or volumes",
                    space.free >> 20,
                    space.total >> 20
                )),
                Ok(_) => {}
            },
        }
        warnings
    }

    fn maintain(&self) -> Result<(), PoolError> {
        self.ready()?;
        if !self.command.exists(&self.parent.0)? {
            let args = [
                "create",
                "-p",
                "-o",
                "canmount=off",
                "-o",
                "mountpoint=none",
                &self.parent.0,
            ];
            self.command.zfs(&args)?;
        }
        let (mut failed, mut some_gone) = (None, false);
        for (dataset, _) in self.datasets("type")? {
            match self.parent.kind(&dataset) {
                Kind::Volume(id) => failed = self.mount(id).err().or(failed),
                Kind::Gone => some_gone = true,
                Kind::Making(_) | Kind::Foreign => {}
            }
        }
        if some_gone {
            self.sweep()?;
        }
        failed.map_or(Ok(()), Err)
    }

    fn recover(&self) -> Result<(), PoolError> {
        self.ready()?;
        self.recover_all()
    }

    fn volumes(&self) -> Result<Vec<StoredVolume>, PoolError> {
        self.ready()?;
        let mut volumes = Vec::new();
        for (dataset, value) in self.datasets(record::RECORD)? {
            if let Kind::Volume(id) = self.parent.kind(&dataset) {
                let record = self.read_record(&dataset, &value)?;
                volumes.push(StoredVolume { id, record });
            }
        }
        Ok(volumes)
    }

    fn create(&self, id: VolumeId, record: &[u8], quota: Option<u64>) -> Result<(), PoolError> {
        self.ready()?;
        let dataset = self.parent.volume(id);
        if !self.command.exists(&dataset)? {
            fail::fail_point!("volume-zfs-create-begin");
            let properties = self.properties(id, record, quota)?;
            self.driver.create(&dataset, &borrowed(&properties))?;
            fail::fail_point!("volume-zfs-create-made");
        }
        self.mount(id)?;
        fail::fail_point!("volume-zfs-create-mounted");
        Ok(())
    }

    fn set_record(&self, id: VolumeId, record: &[u8]) -> Result<(), PoolError> {
        let dataset = self.require(id)?;
        self.replace_record(&dataset, record)
    }

    fn destroy(&self, id: VolumeId) -> Result<(), PoolError> {
        self.ready()?;
        let dataset = self.parent.volume(id);
        if !self.command.exists(&dataset)? {
            return Ok(());
        }
        fail::fail_point!("volume-zfs-destroy-begin");
        self.unmount(id)?;
        fail::fail_point!("volume-zfs-destroy-unmounted");
        let gone = self.parent.gone(id, changes::mark());
        match self.driver.rename(&dataset, &gone) {
            // No room for a name: in more than one step then, which frees room.
            Err(PoolError::Full) => self.command.destroy_whole(&dataset)?,
            done => done?,
        }
        fail::fail_point!("volume-zfs-destroy-gone");
        self.sweep()?;
        fail::fail_point!("volume-zfs-destroy-removed");
        Ok(())
    }

    fn tree(&self, id: VolumeId) -> Result<PathBuf, PoolError> {
        let point = self.mount_point(id);
        if !is_mounted(&point) {
            self.require(id)?;
            self.mount(id)?;
        }
        Ok(point)
    }

    fn snapshots(&self, id: VolumeId) -> Result<Vec<SnapshotInfo>, PoolError> {
        let dataset = self.require(id)?;
        let mut list = Vec::new();
        for snapshot in self.snapshot_names(&dataset)? {
            let Some((name, false)) = snapshot_name(&snapshot) else {
                continue;
            };
            let numbers = self.numbers(&snapshot, "creation,referenced,used")?;
            let number = |n: usize| numbers.get(n).copied().flatten().unwrap_or(0);
            list.push(SnapshotInfo {
                name,
                created_ms: number(0) * 1000,
                referenced_bytes: number(1),
                exclusive_bytes: number(2),
            });
        }
        Ok(list)
    }

    fn snapshot(&self, id: VolumeId, name: &Tag) -> Result<(), PoolError> {
        let dataset = self.require(id)?;
        let snapshot = at(&dataset, name);
        if self.command.exists(&snapshot)? {
            return Err(PoolError::SnapshotExists(name.clone()));
        }
        // What is mapped into memory is not yet ZFS's. If its writer has no room for it, that is not ours to tell.
        let _ = self.flush(id)?;
        fail::fail_point!("volume-zfs-snapshot-begin");
        self.driver.snapshot(&snapshot)?;
        fail::fail_point!("volume-zfs-snapshot-taken");
        Ok(())
    }

    fn destroy_snapshot(&self, id: VolumeId, name: &Tag) -> Result<(), PoolError> {
        let dataset = self.require_snapshot(id, name)?;
        self.destroy_or_hide(&dataset, name)
    }

    fn roll_back(&self, id: VolumeId, name: &Tag) -> Result<(), PoolError> {
        let dataset = self.require_snapshot(id, name)?;
        self.roll_back_to(&dataset, name)
    }

    fn rollback_replaces_tree(&self) -> bool {
        false
    }

    fn clone_from(
        &self,
        (origin, name): (VolumeId, &Tag),
        id: VolumeId,
        record: &[u8],
        quota: Option<u64>,
    ) -> Result<(), PoolError> {
        self.ready()?;
        let dataset = self.parent.volume(id);
        if !self.command.exists(&dataset)? {
            let origin = at(&self.require_snapshot(origin, name)?, name);
            fail::fail_point!("volume-zfs-clone-begin");
            let properties = self.properties(id, record, quota)?;
            self.driver
                .clone_snapshot(&origin, &dataset, &borrowed(&properties))?;
            fail::fail_point!("volume-zfs-clone-made");
        }
        self.mount(id)?;
        fail::fail_point!("volume-zfs-clone-mounted");
        Ok(())
    }

    /// With zfs-fuse, which has no property `written`, `exclusive_bytes` also counts what
    /// snapshots share with the tree.
    fn usage(&self, id: VolumeId) -> Result<VolumeUsage, PoolError> {
        let dataset = self.require(id)?;
        self.sync(id)?;
        let own = if self.command.is_fuse() {
            "usedbydataset"
        } else {
            "written"
        };
        let numbers = self.numbers(
            &dataset,
            &format!("referenced,{own},usedbysnapshots,refquota,available"),
        )?;
        let number = |n: usize| numbers.get(n).copied().flatten();
        let names = self.snapshot_names(&dataset)?;
        let count = names
            .iter()
            .filter(|name| matches!(snapshot_name(name), Some((_, false))));
        Ok(VolumeUsage {
            referenced_bytes: number(0).unwrap_or(0),
            exclusive_bytes: number(1).unwrap_or(0),
            snapshots_bytes: number(2).unwrap_or(0),
            quota_bytes: number(3).filter(|quota| *quota > 0),
            available_bytes: number(4).unwrap_or(0),
            snapshots: u32::try_from(count.count()).unwrap_or(u32::MAX),
        })
    }

    fn set_quota(&self, id: VolumeId, quota: Option<u64>) -> Result<(), PoolError> {
        let dataset = self.require(id)?;
        self.command.set(&dataset, "refquota", &quota_text(quota))
    }

    fn send(
        &self,
        id: VolumeId,
        name: &Tag,
        base: Option<&Tag>,
        out: OwnedFd,
    ) -> Result<(), PoolError> {
        let dataset = self.require_snapshot(id, name)?;
        if let Some(base) = base {
            self.require_snapshot(id, base)?;
        }
        let base = base.map(|base| at(&dataset, base));
        self.command.send(&at(&dataset, name), base.as_deref(), out)
    }

    fn receive(&self, receive: Receive<'_>, input: OwnedFd) -> Result<(), PoolError> {
        self.ready()?;
        match receive.base {
            None => self.receive_whole(&receive, input),
            Some(base) => self.receive_changes(&receive, base, input),
        }
    }

    fn maps_owners(&self) -> bool {
        // OpenZFS's notes on 2.2.0: "Linux: idmapped mounts in a user namespace".
        self.command
            .version()
            .is_some_and(|version| version >= (2, 2))
    }
}

fn quota_text(quota: Option<u64>) -> String {
    quota.map_or_else(|| "none".to_owned(), |quota| quota.to_string())
}

fn borrowed(properties: &[(String, String)]) -> Vec<driver::Property<'_>> {
    properties
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

fn too_long() -> PoolError {
    PoolError::Io {
        action: "store the volume's record".to_owned(),
        source: std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            "it is longer than 48000 bytes",
        ),
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
