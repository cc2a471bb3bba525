//! Where a ZFS pool's volumes are mounted on the host, and what was written there getting to disk.
//!
//! Owner: the ZFS pool. Invariant: a volume is mounted at the pool's directory and its id, and nowhere else
//! by us. Containers have mounts of their own (`volumes/mounts.rs`).

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rustix::fs::syncfs;
use teu_protocol::ids::VolumeId;

use super::{
    super::{PoolError, command::failed_io},
    ZfsPool,
    command::path_text,
    fuse,
};
use crate::sys::mount_table;

impl ZfsPool {
    pub(super) fn mount_point(&self, id: VolumeId) -> PathBuf {
        self.mount_dir.join(id.to_string())
    }

    /// Mounts a volume where it belongs, if it is not.
    pub(super) fn mount(&self, id: VolumeId) -> Result<(), PoolError> {
        let point = self.mount_point(id);
        if is_mounted(&point) {
            return Ok(());
        }
        let dataset = self.parent.volume(id);
        // The agent's directory may have moved since.
        let known = self.command.get(&dataset, "mountpoint")?;
        if known.as_deref() != point.to_str() {
            self.command
                .set(&dataset, "mountpoint", path_text(&point)?)?;
        }
        if self.command.is_fuse() {
            // What is mounted here in a copied mount namespace keeps its dataset from being mounted anew.
            clear(&point);
        }
        self.command.after_unmount(&["mount", &dataset])
    }

    pub(super) fn unmount(&self, id: VolumeId) -> Result<(), PoolError> {
        let point = self.mount_point(id);
        if is_mounted(&point) {
            let before = self.command.is_fuse().then(fuse::open_devices);
            self.command.zfs(&["unmount", path_text(&point)?])?;
            clear(&point);
            before.into_iter().for_each(fuse::wait_for_fewer_than);
        }
        clear(&point);
        Ok(())
    }

    /// Hands what is cached of a volume's files to ZFS, if it is mounted. The pool may just have been suspended.
    pub(super) fn flush(&self, id: VolumeId) -> Result<io::Result<()>, PoolError> {
        let point = self.mount_point(id);
        let patience = self.command.patience();
        patience.call("syncfs", move || match File::open(point) {
            Ok(dir) => syncfs(&dir).map_err(io::Error::from),
            Err(_) => Ok(()),
        })
    }

    /// Waits until what was written is on disk and counted.
    pub(super) fn sync(&self, id: VolumeId) -> Result<(), PoolError> {
        let flushed = self.flush(id)?;
        flushed.map_err(failed_io("write the volume to disk".to_owned()))?;
        if self.command.is_fuse() {
            // It has no `zpool sync`; but every change of a property waits for its transaction group.
            return self.command.set(&self.parent.volume(id), "teu:synced", "1");
        }
        self.command.zpool(&["sync", self.parent.pool()]).map(drop)
    }
}

/// Removes a mount point where nothing is mounted. The kernel then ends whatever is mounted at this place
/// in mount namespaces that are copies of ours (rmdir(2), since Linux 3.18), which no unmount of ours reaches.
fn clear(point: &Path) {
    let _ = fs::remove_dir(point);
}

pub(super) fn is_mounted(point: &Path) -> bool {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    mount_table::parse(&table)
        .iter()
        .any(|entry| entry.point == point)
}
