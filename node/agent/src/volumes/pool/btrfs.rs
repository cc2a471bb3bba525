//! Volumes as btrfs subvolumes, in an existing directory or in a loop file that the pool keeps.
//!
//! Owner: the volume worker. Invariants: a volume appears and goes by one rename of its directory; what
//! takes more than one step (a roll-back) is announced in a file first and finished by recovery;
//! every method ends with syncfs(2), which commits btrfs's transaction (btrfs_sync_fs in the
//! kernel's fs/btrfs/super.c).
//! Next: `btrfs/layout.rs` for the directories, `btrfs/roll_back.rs`, `btrfs/receive.rs`,
//! `loop_file.rs`.

mod layout;
mod making;
mod open;
mod receive;
mod recover;
mod roll_back;
mod subvolume;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::fs::{StatVfsMountFlags, statfs, statvfs, syncfs};
use teu_protocol::{
    ids::{Tag, VolumeId},
    message::{SnapshotInfo, VolumeUsage},
};

use self::{
    layout::{Layout, NEXT, RECORD, ROLLING, TREE, entries, make_dir},
    subvolume::{Subvolumes, Taken},
};
use super::{
    Pool, PoolError, PoolFormat, PoolSpace, Receive, StoredVolume,
    command::{Stream, failed_io},
    loop_file::LoopFile,
    record_file,
};
use crate::sys::btrfs::{self, Subvolume};

/// A pool of btrfs subvolumes.
#[derive(Debug)]
pub struct BtrfsPool {
    layout: Layout,
    subvolumes: Subvolumes,
    file: Option<LoopFile>,
    /// Volumes that are being made now: recovery leaves them alone.
    making: Mutex<BTreeSet<VolumeId>>,
    /// Whoever exchanges a tree (a roll-back, an import's end, recovery) does it alone: recovery would
    /// take what another thread is in the middle of for what a killed agent left.
    rolling: Mutex<()>,
    /// Something that is gone could not be removed yet.
    unswept: AtomicBool,
    /// Two that mount or grow at the same time would do it twice.
    maintaining: Mutex<()>,
}

impl BtrfsPool {
    /// That the pool can be used at all.
    fn ready(&self) -> Result<(), PoolError> {
        if let Some(file) = &self.file
            && !file.is_mounted()
        {
            return Err(PoolError::Faulted(match file.length() {
                Err(error) => error.to_string(),
                Ok(_) => format!(
                    "the pool's file {} is not mounted at {}; the agent tries again every few \
                     seconds, its log says why that fails",
                    file.file.display(),
                    file.mount_dir.display()
                ),
            }));
        }
        require_btrfs(&self.layout.0)?;
        let found = statvfs(&self.layout.0).map_err(errno("look at the pool"))?;
        if found.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(PoolError::Faulted(format!(
                "{} is read-only, which btrfs becomes after an error; `dmesg` says which",
                self.layout.0.display()
            )));
        }
        Ok(())
    }

    /// That the volume is there, and the pool too.
    fn require(&self, id: VolumeId) -> Result<(), PoolError> {
        self.ready()?;
        match self.layout.tree(id).exists() {
            true => Ok(()),
            false => Err(PoolError::NoVolume(id)),
        }
    }

    /// That the snapshot is there.
    fn require_snapshot(&self, id: VolumeId, name: &Tag) -> Result<PathBuf, PoolError> {
        self.require(id)?;
        let path = self.layout.snapshot(id, name);
        match path.exists() {
            true => Ok(path),
            false => Err(PoolError::NoSnapshot(name.clone())),
        }
    }

    /// Durable from here on.
    fn sync(&self) -> Result<(), PoolError> {
        let dir = File::open(&self.layout.0).map_err(failed_io("open the pool".to_owned()))?;
        syncfs(&dir).map_err(errno("write the pool to disk"))
    }

    /// The snapshots as subvolumes, oldest first.
    fn snapshot_list(&self, id: VolumeId) -> Result<Vec<(Tag, Subvolume)>, PoolError> {
        let dir = self.layout.snapshots(id);
        let found = entries(&dir).map_err(failed_io(format!("list {}", dir.display())))?;
        let mut list = Vec::new();
        for path in found {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if let Ok(name) = Tag::try_from(name.into_owned()) {
                list.push((name, self.subvolumes.info(&path)?));
            }
        }
        list.sort_by_key(|(_, subvolume)| subvolume.id);
        Ok(list)
    }

    fn quota(&self, id: VolumeId) -> Result<Option<u64>, PoolError> {
        let tree = self.subvolumes.info(&self.layout.tree(id))?;
        let counts = self.subvolumes.taken(&self.layout.0)?;
        Ok(counts.of(&tree).and_then(|taken| taken.quota))
    }
}

impl Pool for BtrfsPool {
    fn format(&self) -> PoolFormat {
        PoolFormat::Btrfs
    }

    fn describe(&self) -> String {
        let Some(file) = &self.file else {
            return format!("btrfs in the directory {}", self.layout.0.display());
        };
        let size = file.length().map_or_else(
            |_| "missing".to_owned(),
            |length| format!("{:.1} GiB, grows", length as f64 / f64::from(1 << 30)),
        );
        format!("btrfs in {} ({size})", file.file.display())
    }

    fn space(&self) -> Result<PoolSpace, PoolError> {
        self.ready()?;
        let found = statvfs(&self.layout.0).map_err(errno("look at the pool"))?;
        let more = match &self.file {
            Some(file) => file.growable()?,
            None => 0,
        };
        Ok(PoolSpace {
            total: found.f_blocks * found.f_frsize + more,
            free: found.f_bavail * found.f_frsize + more,
        })
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(file) = &self.file {
            warnings.extend(file.warnings(&self.subvolumes.tools));
        }
        match self.space() {
            Err(error) => warnings.push(error.to_string()),
            Ok(space) if space.free < space.total / 20 => warnings.push(format!(
                "the pool is nearly full: {} MiB left of {} MiB; destroy snapshots or volumes",
                space.free >> 20,
                space.total >> 20
            )),
            Ok(_) => {}
        }
        if self.accounting("inconsistent").as_deref() == Some("1") {
            warnings.push(
                "btrfs is counting anew who uses how much; quotas are inexact until then"
                    .to_owned(),
            );
        }
        let args = ["device", "stats", "--check"].map(Path::new);
        let stats = self
            .subvolumes
            .tools
            .run("btrfs", &[args[0], args[1], args[2], &self.layout.0]);
        if self.ready().is_ok() && stats.is_err() {
            warnings
                .push("btrfs has counted errors of the disk; see `btrfs device stats`".to_owned());
        }
        warnings
    }

    fn maintain(&self) -> Result<(), PoolError> {
        let _one = held(&self.maintaining);
        if let Some(file) = &self.file {
            if !file.is_mounted() {
                file.mount(&self.subvolumes.tools)?;
                self.prepare()?;
            } else if file.is_read_only() {
                // Nothing that waits for room is tried in it before it takes writes again.
                file.revive(&self.subvolumes.tools)?;
                self.prepare()?;
            }
            let found = statvfs(&self.layout.0).map_err(errno("look at the pool"))?;
            file.grow(&self.subvolumes.tools, found.f_bavail * found.f_frsize)?;
        }
        self.ready()?;
        if self.accounting("inconsistent").as_deref() == Some("1") {
            self.subvolumes.rescan(&self.layout.0);
        }
        if self.unswept.load(Ordering::Relaxed) {
            self.sweep();
        }
        Ok(())
    }

    fn recover(&self) -> Result<(), PoolError> {
        self.ready()?;
        self.recover_all()
    }

    fn volumes(&self) -> Result<Vec<StoredVolume>, PoolError> {
        self.ready()?;
        let dirs =
            entries(&self.layout.volumes()).map_err(failed_io("list the volumes".to_owned()))?;
        // One whose tree somebody destroyed is still there: with its snapshots, to be looked at or destroyed.
        let volumes = dirs
            .iter()
            .filter(|dir| dir.join(TREE).exists() || dir.join(RECORD).exists())
            .filter_map(|dir| {
                Some(StoredVolume {
                    id: dir.file_name()?.to_str()?.parse().ok()?,
                    record: fs::read(dir.join(RECORD)).ok(),
                })
            });
        Ok(volumes.collect())
    }

    fn create(&self, id: VolumeId, record: &[u8], quota: Option<u64>) -> Result<(), PoolError> {
        self.ready()?;
        if self.layout.tree(id).exists() {
            return Ok(());
        }
        let making = self.begin(id)?;
        fail::fail_point!("volume-btrfs-create-dir");
        self.subvolumes.create(&making.dir.join(TREE))?;
        fail::fail_point!("volume-btrfs-create-tree");
        self.settle(&making, record, quota)
    }

    fn set_record(&self, id: VolumeId, record: &[u8]) -> Result<(), PoolError> {
        self.require(id)?;
        let written = record_file::replace(&self.layout.volume(id), RECORD, record, || {
            fail::fail_point!("volume-btrfs-record-written");
        });
        written.map_err(failed_io("replace the volume's record".to_owned()))?;
        fail::fail_point!("volume-btrfs-record-replaced");
        Ok(())
    }

    fn destroy(&self, id: VolumeId) -> Result<(), PoolError> {
        self.ready()?;
        let dir = self.layout.volume(id);
        if !dir.exists() {
            return Ok(());
        }
        fail::fail_point!("volume-btrfs-destroy-begin");
        // A subvolume's number is never used twice, so neither is this name.
        let number = self
            .subvolumes
            .info(&dir.join(TREE))
            .map_or(0, |tree| tree.id);
        let gone = self.layout.gone(id, number);
        fs::rename(&dir, &gone).map_err(failed_io("take the volume away".to_owned()))?;
        fail::fail_point!("volume-btrfs-destroy-gone");
        // It is gone for everybody; recovery removes it, which takes as long as it is large.
        self.sync()
    }

    fn tree(&self, id: VolumeId) -> Result<PathBuf, PoolError> {
        self.require(id)?;
        Ok(self.layout.tree(id))
    }

    fn snapshots(&self, id: VolumeId) -> Result<Vec<SnapshotInfo>, PoolError> {
        self.require(id)?;
        let counts = self.subvolumes.taken(&self.layout.0)?;
        let list = self
            .snapshot_list(id)?
            .into_iter()
            .map(|(name, subvolume)| {
                let taken = counts.of(&subvolume).unwrap_or_default();
                SnapshotInfo {
                    name,
                    created_ms: subvolume.created_ms,
                    referenced_bytes: taken.referenced,
                    exclusive_bytes: taken.exclusive,
                }
            });
        Ok(list.collect())
    }

    fn snapshot(&self, id: VolumeId, name: &Tag) -> Result<(), PoolError> {
        self.require(id)?;
        let path = self.layout.snapshot(id, name);
        if path.exists() {
            return Err(PoolError::SnapshotExists(name.clone()));
        }
        fail::fail_point!("volume-btrfs-snapshot-begin");
        self.subvolumes
            .snapshot(&self.layout.tree(id), &path, true)?;
        fail::fail_point!("volume-btrfs-snapshot-taken");
        self.sync()
    }

    fn destroy_snapshot(&self, id: VolumeId, name: &Tag) -> Result<(), PoolError> {
        let path = self.require_snapshot(id, name)?;
        fail::fail_point!("volume-btrfs-destroy-snapshot-begin");
        self.subvolumes.delete(&path)?;
        fail::fail_point!("volume-btrfs-destroy-snapshot-deleted");
        self.sync()
    }

    fn roll_back(&self, id: VolumeId, name: &Tag) -> Result<(), PoolError> {
        self.require_snapshot(id, name)?;
        let _alone = held(&self.rolling);
        self.announce_roll_back(id, name)?;
        fail::fail_point!("volume-btrfs-rollback-announced");
        self.finish_roll_back(id, name)
    }

    fn rollback_replaces_tree(&self) -> bool {
        true
    }

    fn clone_from(
        &self,
        (origin, name): (VolumeId, &Tag),
        id: VolumeId,
        record: &[u8],
        quota: Option<u64>,
    ) -> Result<(), PoolError> {
        self.ready()?;
        if self.layout.tree(id).exists() {
            return Ok(());
        }
        let snapshot = self.require_snapshot(origin, name)?;
        let making = self.begin(id)?;
        fail::fail_point!("volume-btrfs-clone-dir");
        self.subvolumes
            .snapshot(&snapshot, &making.dir.join(TREE), false)?;
        fail::fail_point!("volume-btrfs-clone-tree");
        self.settle(&making, record, quota)
    }

    /// `snapshots_bytes` is what snapshots have each for itself: bytes that only several snapshots
    /// share are in none of btrfs's counters, so it may be less than what all of them together hold.
    fn usage(&self, id: VolumeId) -> Result<VolumeUsage, PoolError> {
        self.require(id)?;
        self.sync()?;
        let counts = self.subvolumes.taken(&self.layout.0)?;
        let tree = counts
            .of(&self.subvolumes.info(&self.layout.tree(id))?)
            .unwrap_or_default();
        let snapshots = self.snapshot_list(id)?;
        let taken = |subvolume| counts.of(subvolume).unwrap_or(Taken::default()).exclusive;
        let free = self.space()?.free;
        let of_quota = tree
            .quota
            .map(|quota| quota.saturating_sub(tree.referenced));
        Ok(VolumeUsage {
            referenced_bytes: tree.referenced,
            exclusive_bytes: tree.exclusive,
            snapshots_bytes: snapshots
                .iter()
                .map(|(_, subvolume)| taken(subvolume))
                .sum(),
            quota_bytes: tree.quota,
            available_bytes: of_quota.map_or(free, |left| left.min(free)),
            snapshots: u32::try_from(snapshots.len()).unwrap_or(u32::MAX),
        })
    }

    fn set_quota(&self, id: VolumeId, quota: Option<u64>) -> Result<(), PoolError> {
        self.require(id)?;
        self.subvolumes.limit(&self.layout.tree(id), quota)?;
        self.sync()
    }

    fn send(
        &self,
        id: VolumeId,
        name: &Tag,
        base: Option<&Tag>,
        out: OwnedFd,
    ) -> Result<(), PoolError> {
        let snapshot = self.require_snapshot(id, name)?;
        let base = base
            .map(|base| self.require_snapshot(id, base))
            .transpose()?;
        let mut args = vec![Path::new("send"), Path::new("-q")];
        if let Some(base) = &base {
            args.extend([Path::new("-p"), base]);
        }
        args.push(&snapshot);
        self.subvolumes
            .tools
            .stream("btrfs", &args, Stream::To(out))?;
        Ok(())
    }

    fn receive(&self, receive: Receive<'_>, input: OwnedFd) -> Result<(), PoolError> {
        self.ready()?;
        self.receive_stream(receive, input)
    }

    fn maps_owners(&self) -> bool {
        true
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn require_btrfs(dir: &Path) -> Result<(), PoolError> {
    let found = statfs(dir).map_err(errno(&format!("look at {}", dir.display())))?;
    match found.f_type == btrfs::MAGIC {
        true => Ok(()),
        false => Err(PoolError::Faulted(format!(
            "{} is not on a btrfs",
            dir.display()
        ))),
    }
}

/// For `map_err`: what was attempted.
fn errno(action: &str) -> impl FnOnce(rustix::io::Errno) -> PoolError {
    let failed = failed_io::<io::Error>(action.to_owned());
    move |errno| failed(errno.into())
}
