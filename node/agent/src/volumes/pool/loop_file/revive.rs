//! Mounting the file anew after its btrfs has turned itself read-only.
//!
//! Owner: [`LoopFile`]. A btrfs that an error has made read-only stays so for as long as anything has it
//! mounted, in any mount namespace. The agent's own mount, and the private copies that keepers
//! and other helpers of TEU have, are detached here. A container's mounts of its volumes are not:
//! its processes would write beside the volume. Invariant: nothing is detached but mounts of this file.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{StatVfsMountFlags, statvfs},
    mount::{UnmountFlags, unmount},
};

use super::{super::PoolError, LoopFile, Tools};
use crate::sys::{
    mount_ns,
    mount_table::{self, MountEntry},
};

const PROGRAM: &str = "teu-node";

/// A message names a few of those that hold the pool; nobody reads more.
const NAMED_MAX: usize = 8;

impl LoopFile {
    /// Whether the mounted btrfs refuses writes.
    pub(crate) fn is_read_only(&self) -> bool {
        statvfs(&self.mount_dir).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
    }

    /// Unmounts the file wherever TEU has it mounted, and mounts it again. The loop device stays.
    ///
    /// # Errors
    /// [`PoolError::Faulted`] if something else still has it mounted, or it cannot be mounted.
    pub(crate) fn revive(&self, tools: &Tools) -> Result<(), PoolError> {
        let failed = |source| PoolError::Io {
            action: format!("unmount {} everywhere", self.mount_dir.display()),
            source,
        };
        let Some(entry) = mounted_at(&self.mount_dir).map_err(failed)? else {
            return self.mount(tools);
        };
        if entry.read_only {
            // Somebody wants this mount so; it is no error's doing.
            return Ok(());
        }
        self.reserve()?;
        if self.unreserved()? > 0 && self.host_room()? < 0 {
            return Err(PoolError::Faulted(format!(
                "{} met a full host file system and is read-only; free room beside {}, and it is mounted again by itself",
                self.mount_dir.display(),
                self.file.display()
            )));
        }
        let superblock = entry.superblock;
        let holders = holders(superblock).map_err(failed)?;
        let foreign: Vec<String> = holders
            .iter()
            .filter(|(_, one)| !one.is_ours)
            .map(|(_, one)| format!("{} (pid {})", one.name, one.pid))
            .take(NAMED_MAX)
            .collect();
        if !foreign.is_empty() {
            return Err(PoolError::Faulted(format!(
                "{} is read-only after an error, and cannot be mounted again while containers have volumes of it mounted: end {}; the \
                 pool comes back by itself then",
                self.mount_dir.display(),
                foreign.join(", ")
            )));
        }
        for one in holders.values() {
            mount_ns::inside(one.pid, |inside| {
                detach(&inside.mounts()?, superblock);
                Ok(())
            })
            .map_err(failed)?;
        }
        let table = fs::read("/proc/thread-self/mountinfo").map_err(failed)?;
        detach(&mount_table::parse(&table), superblock);
        tracing::warn!(file = %self.file.display(), "mounting the file again after an error");
        self.mount(tools)?;
        match self.is_read_only() {
            false => Ok(()),
            true => Err(PoolError::Faulted(format!(
                "{} is read-only after an error; something still has a file of it open. `dmesg` tells the error",
                self.mount_dir.display()
            ))),
        }
    }
}

/// A process whose mount namespace shows the file system.
struct MountHolder {
    pid: i32,
    name: String,
    is_ours: bool,
}

/// What is mounted exactly at `dir`.
fn mounted_at(dir: &Path) -> io::Result<Option<MountEntry>> {
    let dir = fs::canonicalize(dir)?;
    let table = mount_table::parse(&fs::read("/proc/thread-self/mountinfo")?);
    Ok(table.into_iter().rev().find(|entry| entry.point == dir))
}

/// One process of each mount namespace, but this one's, that has it mounted. A namespace with a process of another
/// program in it is not ours.
fn holders(superblock: u64) -> io::Result<BTreeMap<u64, MountHolder>> {
    let own = fs::metadata("/proc/thread-self/ns/mnt")?.ino();
    let program = fs::metadata("/proc/self/exe").map(|exe| (exe.dev(), exe.ino()))?;
    let mut found: BTreeMap<u64, MountHolder> = BTreeMap::new();
    let mut looked: BTreeMap<u64, bool> = BTreeMap::new();
    for pid in fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
    {
        let process = PathBuf::from(format!("/proc/{pid}"));
        // A process that ends meanwhile holds nothing.
        let Ok(namespace) = fs::metadata(process.join("ns/mnt")).map(|ns| ns.ino()) else {
            continue;
        };
        let has = *looked.entry(namespace).or_insert_with(|| {
            let table = fs::read(process.join("mountinfo")).unwrap_or_default();
            mount_table::parse(&table)
                .iter()
                .any(|entry| entry.superblock == superblock)
        });
        if namespace == own || !has {
            continue;
        }
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        let name: String = name.chars().filter(|one| one.is_ascii_graphic()).collect();
        // A keeper of an earlier version has another program of the same name.
        let is_ours = name == PROGRAM
            || fs::metadata(process.join("exe")).is_ok_and(|exe| (exe.dev(), exe.ino()) == program);
        let holder = MountHolder { pid, name, is_ours };
        match found.get(&namespace) {
            Some(known) if !known.is_ours || is_ours => {}
            _ => {
                found.insert(namespace, holder);
            }
        }
    }
    Ok(found)
}

/// Detaches every mount of the file system from the calling thread's namespace, the youngest first.
fn detach(table: &[MountEntry], superblock: u64) {
    for entry in table
        .iter()
        .rev()
        .filter(|one| one.superblock == superblock)
    {
        if let Err(errno) = unmount(&entry.point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            tracing::debug!(point = %entry.point.display(), %errno, "gone with what it was mounted on");
        }
    }
}
