//! Rolling a btrfs volume back: a new tree takes the old one's place in one rename.
//!
//! Owner: the btrfs pool. Invariants: the tree's path always shows the old tree or the new one, whole;
//! while `rolling` names a snapshot, the roll-back happens, if need be by recovery: so it is not left there
//! by one that failed before the trees were exchanged. `BtrfsPool::rolling` is held all the time.
//! The old tree stays in `gone` until recovery, because containers still show it and removing it takes long.

use std::fs;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use teu_protocol::ids::{Tag, VolumeId};

use super::{
    super::{PoolError, command::failed_io, record_file},
    BtrfsPool, NEXT, ROLLING, errno,
};
use crate::sys::btrfs::Subvolume;

impl BtrfsPool {
    /// Makes it happen, whatever comes.
    pub(super) fn announce_roll_back(&self, id: VolumeId, name: &Tag) -> Result<(), PoolError> {
        let written = record_file::replace(
            &self.layout.volume(id),
            ROLLING,
            name.as_str().as_bytes(),
            || {},
        );
        written.map_err(|error| {
            self.call_off(id);
            failed_io("announce the roll-back".to_owned())(error)
        })
    }

    /// Nothing has changed (the pool is full, say): it does not happen after all, also not later.
    pub(super) fn call_off(&self, id: VolumeId) {
        let dir = self.layout.volume(id);
        let forgotten = record_file::remove(&dir, ROLLING)
            .map_err(failed_io("forget a roll-back that failed".to_owned()));
        if let Err(error) = forgotten.and_then(|()| self.subvolumes.remove(&dir.join(NEXT))) {
            tracing::warn!(%error, volume = %id.short(), "recovery goes on with a roll-back that failed");
        }
    }

    /// Does it, from wherever an earlier attempt got to. If it fails before the trees were exchanged, it
    /// is called off; behind that, recovery goes on.
    pub(super) fn finish_roll_back(&self, id: VolumeId, name: &Tag) -> Result<(), PoolError> {
        let (dir, tree) = (self.layout.volume(id), self.layout.tree(id));
        let next = dir.join(NEXT);
        let target = self.prepare_next(id, name).and_then(|target| {
            renameat_with(CWD, &next, CWD, &tree, RenameFlags::EXCHANGE)
                .map_err(errno("exchange the trees"))?;
            Ok(target)
        });
        let target = target.inspect_err(|_| self.call_off(id))?;
        fail::fail_point!("volume-btrfs-rollback-exchanged");
        let old = self.subvolumes.info(&next)?;
        if old.read_only {
            self.subvolumes.unlock(&next)?;
        }
        let gone = fs::rename(&next, self.layout.gone(id, old.id));
        gone.map_err(failed_io("take the old tree away".to_owned()))?;
        fail::fail_point!("volume-btrfs-rollback-gone");
        for (later, subvolume) in self.snapshot_list(id)? {
            if subvolume.id > target.id {
                self.subvolumes.delete(&self.layout.snapshot(id, &later))?;
                fail::fail_point!("volume-btrfs-rollback-discarded");
            }
        }
        self.sync()?;
        record_file::remove(&dir, ROLLING).map_err(failed_io("end the roll-back".to_owned()))?;
        fail::fail_point!("volume-btrfs-rollback-ended");
        Ok(())
    }

    /// Makes the tree that takes the place of the present one, durably. Returns what it is made from.
    fn prepare_next(&self, id: VolumeId, name: &Tag) -> Result<Subvolume, PoolError> {
        let (snapshot, next) = (
            self.layout.snapshot(id, name),
            self.layout.volume(id).join(NEXT),
        );
        let target = self.subvolumes.info(&snapshot)?;
        let quota = self.quota(id)?;
        self.subvolumes.remove(&next)?;
        self.subvolumes.snapshot(&snapshot, &next, false)?;
        fail::fail_point!("volume-btrfs-rollback-next");
        if quota.is_some() {
            self.subvolumes.limit(&next, quota)?;
        }
        self.sync()?;
        fail::fail_point!("volume-btrfs-rollback-limited");
        Ok(target)
    }
}
