//! Volumes as ZFS datasets.

#[cfg(feature = "zfs-core")]
mod core;

use std::path::Path;

use super::*;
use teu_protocol::{
    ids::{Tag, VolumeId},
    message::{SnapshotInfo, VolumeUsage},
};

/// A pool.
#[derive(Debug)]
pub struct ZfsPool {}

impl ZfsPool {
    /// All volumes below one dataset, mounted below `mount_dir`. The dataset is made if missing.
    ///
    /// # Errors
    ///
    /// A tool is missing, or another agent has it. What else fails is tried again by `maintain`.
    pub fn open(_parent: &str, _mount_dir: &Path) -> Result<Self, PoolError> {
        soon()
    }
}

impl Pool for ZfsPool {
    fn format(&self) -> PoolFormat {
        PoolFormat::Zfs
    }
    fn describe(&self) -> String {
        String::new()
    }
    fn space(&self) -> Result<PoolSpace, PoolError> {
        soon()
    }
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
    fn maintain(&self) -> Result<(), PoolError> {
        soon()
    }
    fn recover(&self) -> Result<(), PoolError> {
        soon()
    }
    fn volumes(&self) -> Result<Vec<StoredVolume>, PoolError> {
        soon()
    }
    fn create(&self, _: VolumeId, _: &[u8], _: Option<u64>) -> Result<(), PoolError> {
        soon()
    }
    fn set_record(&self, _: VolumeId, _: &[u8]) -> Result<(), PoolError> {
        soon()
    }
    fn destroy(&self, _: VolumeId) -> Result<(), PoolError> {
        soon()
    }
    fn tree(&self, _: VolumeId) -> Result<PathBuf, PoolError> {
        soon()
    }
    fn snapshots(&self, _: VolumeId) -> Result<Vec<SnapshotInfo>, PoolError> {
        soon()
    }
    fn snapshot(&self, _: VolumeId, _: &Tag) -> Result<(), PoolError> {
        soon()
    }
    fn destroy_snapshot(&self, _: VolumeId, _: &Tag) -> Result<(), PoolError> {
        soon()
    }
    fn roll_back(&self, _: VolumeId, _: &Tag) -> Result<(), PoolError> {
        soon()
    }
    fn rollback_replaces_tree(&self) -> bool {
        false
    }
    fn clone_from(
        &self,
        _: (VolumeId, &Tag),
        _: VolumeId,
        _: &[u8],
        _: Option<u64>,
    ) -> Result<(), PoolError> {
        soon()
    }
    fn usage(&self, _: VolumeId) -> Result<VolumeUsage, PoolError> {
        soon()
    }
    fn set_quota(&self, _: VolumeId, _: Option<u64>) -> Result<(), PoolError> {
        soon()
    }
    fn send(&self, _: VolumeId, _: &Tag, _: Option<&Tag>, _: OwnedFd) -> Result<(), PoolError> {
        soon()
    }
    fn receive(&self, _: Receive<'_>, _: OwnedFd) -> Result<(), PoolError> {
        soon()
    }
    fn maps_owners(&self) -> bool {
        false
    }
}

fn soon<T>() -> Result<T, PoolError> {
    Err(PoolError::Faulted("this pool is being built".to_owned()))
}
