//! The seam to copy-on-write file systems: what TEU needs of one, and nothing more.
//!
//! Owner: the volume worker, which calls one method at a time (sends may run beside it).
//! Invariants, kept by the conformance suite (`tests/pools`) for every implementation:
//! * a method returns `Ok` after its effect is durable (it survives a power cut);
//! * a process killed inside a method leaves the effect whole or [`Pool::recover`] removes it;
//! * repeating a method that was done is `Ok` where it says so;
//! * nothing outside of the pool's own directory or parent dataset is touched.
//!
//! All methods block: call them off the event loop.
//!
//! Next: [`open`] for how one is chosen, `pool/btrfs.rs` and `pool/zfs.rs` for the two there are.

mod btrfs;
mod choice;
mod command;
pub mod failpoints;
mod loop_file;
mod patience;
mod record_file;
mod zfs;

pub use btrfs::BtrfsPool;
pub(crate) use choice::no_embedded_pool;
pub use choice::{Opened, ParsePoolChoiceError, PoolChoice, open};
pub(crate) use command::Tools;
pub(crate) use loop_file::LoopFile;
pub use loop_file::LoopLimits;
pub use zfs::ZfsPool;

use std::{fmt, os::fd::OwnedFd, path::PathBuf};

use teu_protocol::{
    ids::{Tag, VolumeId},
    message::{SnapshotInfo, VolumeUsage},
};

/// A pool of volumes.
pub trait Pool: Send + Sync + fmt::Debug {
    /// The stream format and backend: `btrfs` or `zfs`.
    fn format(&self) -> PoolFormat;

    /// For people, in `teu doctor`: what it is and where, and through what it is driven, such as
    /// `zfs dataset tank/teu, through libzfs_core` or `btrfs in /var/lib/teu/pool.btrfs (8 GiB, grows)`.
    fn describe(&self) -> String;

    /// Room, or what is wrong with it. Cheap: asked every second.
    fn space(&self) -> Result<PoolSpace, PoolError>;

    /// What a person should know that is not an error yet (nearly full, degraded, a loop file
    /// shorter than its file system). Asked by `teu doctor`; may take a second.
    fn warnings(&self) -> Vec<String>;

    /// Whatever makes the pool fit for its next use: growing a loop file, re-attaching it, mounting
    /// what should be mounted. Called at start and every few seconds.
    fn maintain(&self) -> Result<(), PoolError>;

    /// Finishes or undoes what a killed agent left half done, and removes what was destroyed or replaced.
    /// Called at start, before all else.
    fn recover(&self) -> Result<(), PoolError>;

    /// All volumes with their records. One whose record cannot be read has `None`.
    fn volumes(&self) -> Result<Vec<StoredVolume>, PoolError>;

    /// Makes an empty volume with its record, atomically. `Ok` if it is there already.
    fn create(&self, id: VolumeId, record: &[u8], quota: Option<u64>) -> Result<(), PoolError>;

    /// Replaces a volume's record, atomically.
    fn set_record(&self, id: VolumeId, record: &[u8]) -> Result<(), PoolError>;

    /// Destroys a volume and its snapshots. `Ok` if there is none. Clones of its snapshots stay whole.
    /// Its room may come back only when the caller, at a quiet time, calls [`Pool::recover`].
    fn destroy(&self, id: VolumeId) -> Result<(), PoolError>;

    /// Where the volume's tree is on the host now, mounted. Changes by [`Pool::roll_back`] if
    /// [`Pool::rollback_replaces_tree`].
    fn tree(&self, id: VolumeId) -> Result<PathBuf, PoolError>;

    /// Snapshots, oldest first.
    fn snapshots(&self, id: VolumeId) -> Result<Vec<SnapshotInfo>, PoolError>;

    /// Takes a snapshot. [`PoolError::SnapshotExists`] if there is one of that name.
    fn snapshot(&self, id: VolumeId, name: &Tag) -> Result<(), PoolError>;

    /// Destroys a snapshot; clones of it stay whole.
    fn destroy_snapshot(&self, id: VolumeId, name: &Tag) -> Result<(), PoolError>;

    /// Gives the tree back as it was at the snapshot, and destroys the snapshots that are younger
    /// (the caller has checked that this is wanted). The quota stays.
    fn roll_back(&self, id: VolumeId, name: &Tag) -> Result<(), PoolError>;

    /// Whether mounts of the tree made before a roll-back still show the old tree, and have to be
    /// replaced by mounts of [`Pool::tree`]. The old tree is removed once nothing shows it: the
    /// caller calls [`Pool::recover`] after it has replaced them.
    fn rollback_replaces_tree(&self) -> bool;

    /// A new volume that begins as a snapshot of another, atomically. `Ok` if it is there already.
    fn clone_from(
        &self,
        origin: (VolumeId, &Tag),
        id: VolumeId,
        record: &[u8],
        quota: Option<u64>,
    ) -> Result<(), PoolError>;

    /// What it takes, after writing out what is cached.
    fn usage(&self, id: VolumeId) -> Result<VolumeUsage, PoolError>;

    /// Bounds what the tree may refer to. [`PoolError::QuotaTooSmall`] if it holds more and the pool takes no
    /// such bound.
    fn set_quota(&self, id: VolumeId, quota: Option<u64>) -> Result<(), PoolError>;

    /// Writes a snapshot (or what changed since `base`) to `out` until its end. May run long, and
    /// beside other methods; the snapshots stay while it runs.
    fn send(
        &self,
        id: VolumeId,
        name: &Tag,
        base: Option<&Tag>,
        out: OwnedFd,
    ) -> Result<(), PoolError>;

    /// Reads what [`Pool::send`] of the same format wrote, whose bytes are trusted: the caller has
    /// authenticated each of them. At the end the volume has the snapshot `name` and its tree, durable; on
    /// error, or if killed, nothing of it is left. May run long, and beside other methods.
    fn receive(&self, receive: Receive<'_>, input: OwnedFd) -> Result<(), PoolError>;

    /// Whether mounts of its trees can map owners (`mount_setattr(2)`, MOUNT_ATTR_IDMAP). If not,
    /// files are owned on disk by the account's own range.
    fn maps_owners(&self) -> bool;
}

/// What a stream becomes.
#[derive(Debug, Clone, Copy)]
pub struct Receive<'a> {
    /// The volume.
    pub id: VolumeId,
    /// Its record: for a new one.
    pub record: &'a [u8],
    /// Its quota.
    pub quota: Option<u64>,
    /// The snapshot that the stream has.
    pub name: &'a Tag,
    /// The snapshot that it builds on: the volume is there and this is its newest one.
    pub base: Option<&'a Tag>,
}

/// Which stream format a pool reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolFormat {
    /// btrfs send streams.
    Btrfs,
    /// ZFS send streams.
    Zfs,
}

/// Room in a pool, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSpace {
    /// All of it (for a loop file that grows: as far as it may grow).
    pub total: u64,
    /// What can still be written.
    pub free: u64,
}

/// A volume as the pool has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVolume {
    /// The volume.
    pub id: VolumeId,
    /// Its record, if it can be read.
    pub record: Option<Vec<u8>>,
}

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// No such volume in the pool.
    #[error("the pool has no volume {}", .0.short())]
    NoVolume(VolumeId),
    /// No such snapshot of the volume.
    #[error("the volume has no snapshot `{0}`")]
    NoSnapshot(Tag),
    /// There is one of that name.
    #[error("the volume has a snapshot `{0}` already")]
    SnapshotExists(Tag),
    /// Snapshots that would have to go have clones, which need them in this pool.
    #[error("the snapshot `{snapshot}` is needed by its clone {}; destroy the clone first", .clone.short())]
    HasClone {
        /// Which.
        snapshot: Tag,
        /// A clone of it.
        clone: VolumeId,
    },
    /// Something on the host uses it; says what, as far as is known.
    #[error("it is in use: {0}")]
    Busy(String),
    /// ZFS bounds no volume below what it holds.
    #[error("the volume holds more than that already")]
    QuotaTooSmall,
    /// The pool is full.
    #[error("the pool has no room left")]
    Full,
    /// The pool or the volume is there but cannot be used: exported, suspended, read-only, damaged.
    #[error("{0}")]
    Faulted(String),
    /// The stream is not one of this pool's, or does not fit the volume.
    #[error("the stream cannot be taken: {0}")]
    BadStream(String),
    /// A tool that is not installed.
    #[error("the program `{program}` is missing; install {package}")]
    NoTool {
        /// Its name.
        program: &'static str,
        /// Debian's name of what has it.
        package: &'static str,
    },
    /// A tool failed in a way that has no name above.
    #[error("`{command}` failed: {said}")]
    Tool {
        /// The command line.
        command: String,
        /// What it wrote to its standard error, one line.
        said: String,
    },
    /// A call of the system failed.
    #[error("cannot {action}")]
    Io {
        /// What was attempted.
        action: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}
