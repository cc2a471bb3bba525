//! Volumes as btrfs subvolumes.

use std::path::Path;

use teu_protocol::{ids::{Tag, VolumeId}, message::{SnapshotInfo, VolumeUsage}};
use super::*;

/// A pool.
#[derive(Debug)]
pub struct BtrfsPool {}

impl BtrfsPool {
    /// An existing directory on a btrfs.
    ///
    /// # Errors
    ///
    /// It is not on a btrfs, a tool is missing, or another agent has it.
    pub fn open_dir(_dir: &Path) -> Result<Self, PoolError> { soon() }

    /// A btrfs in a sparse file, which is made if missing, attached, and mounted at `mount_dir`.
    ///
    /// # Errors
    ///
    /// A tool is missing, or another agent has it. What else fails is tried again by `maintain`.
    pub fn open_loop(_file: &Path, _mount_dir: &Path, _limits: LoopLimits) -> Result<Self, PoolError> { soon() }
}

impl Pool for BtrfsPool {
    fn format(&self) -> PoolFormat { PoolFormat::Btrfs }
    fn describe(&self) -> String { String::new() }
    fn space(&self) -> Result<PoolSpace, PoolError> { soon() }
    fn warnings(&self) -> Vec<String> { Vec::new() }
    fn maintain(&self) -> Result<(), PoolError> { soon() }
    fn recover(&self) -> Result<(), PoolError> { soon() }
    fn volumes(&self) -> Result<Vec<StoredVolume>, PoolError> { soon() }
    fn create(&self, _: VolumeId, _: &[u8], _: Option<u64>) -> Result<(), PoolError> { soon() }
    fn set_record(&self, _: VolumeId, _: &[u8]) -> Result<(), PoolError> { soon() }
    fn destroy(&self, _: VolumeId) -> Result<(), PoolError> { soon() }
    fn tree(&self, _: VolumeId) -> Result<PathBuf, PoolError> { soon() }
    fn snapshots(&self, _: VolumeId) -> Result<Vec<SnapshotInfo>, PoolError> { soon() }
    fn snapshot(&self, _: VolumeId, _: &Tag) -> Result<(), PoolError> { soon() }
    fn destroy_snapshot(&self, _: VolumeId, _: &Tag) -> Result<(), PoolError> { soon() }
    fn roll_back(&self, _: VolumeId, _: &Tag) -> Result<(), PoolError> { soon() }
    fn rollback_replaces_tree(&self) -> bool { true }
    fn clone_from(&self, _: (VolumeId, &Tag), _: VolumeId, _: &[u8], _: Option<u64>) -> Result<(), PoolError> { soon() }
    fn usage(&self, _: VolumeId) -> Result<VolumeUsage, PoolError> { soon() }
    fn set_quota(&self, _: VolumeId, _: Option<u64>) -> Result<(), PoolError> { soon() }
    fn send(&self, _: VolumeId, _: &Tag, _: Option<&Tag>, _: OwnedFd) -> Result<(), PoolError> { soon() }
    fn receive(&self, _: Receive<'_>, _: OwnedFd) -> Result<(), PoolError> { soon() }
    fn maps_owners(&self) -> bool { true }
}

fn soon<T>() -> Result<T, PoolError> { Err(PoolError::Faulted("this pool is being built".to_owned())) }
