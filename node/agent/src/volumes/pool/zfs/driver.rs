//! The seam between the ZFS pool and what carries out its changes: the `zfs` command, or a library.
//!
//! Owner: the ZFS pool. Invariant: each method is one transaction of ZFS: it is done, and on disk,
//! or nothing is. (Every one is a synctask: dsl_sync_task in OpenZFS's module/zfs/dsl_synctask.c
//! returns after txg_wait_synced; zfs-fuse's older dsl_sync_task_group_wait as well.)
//! Next: `command.rs`, which does all of it; `core.rs` for libzfs_core.

use std::fmt;

use super::super::PoolError;

/// A property as the `zfs` command is told it: `("refquota", "1048576")`.
pub(super) type Property<'a> = (&'a str, &'a str);

/// Changes to datasets and snapshots, one transaction each.
pub(super) trait Driver: Send + Sync + fmt::Debug {
    /// For people: `the zfs command`.
    fn describe(&self) -> String;

    /// Makes a dataset with its properties, not mounted.
    fn create(&self, dataset: &str, properties: &[Property<'_>]) -> Result<(), PoolError>;

    /// Makes a dataset of a snapshot (`a/b@c`), not mounted.
    fn clone_snapshot(
        &self,
        snapshot: &str,
        dataset: &str,
        properties: &[Property<'_>],
    ) -> Result<(), PoolError>;

    /// Takes a snapshot (`a/b@c`).
    fn snapshot(&self, snapshot: &str) -> Result<(), PoolError>;

    /// Rolls back to the youngest snapshot; mounts stay and show the old tree.
    fn roll_back(&self, snapshot: &str) -> Result<(), PoolError>;

    /// Destroys a dataset that is not mounted and has nothing below it, or a snapshot without clones.
    fn destroy(&self, name: &str) -> Result<(), PoolError>;

    /// Renames a dataset that is not mounted, or a snapshot.
    fn rename(&self, from: &str, to: &str) -> Result<(), PoolError>;
}
