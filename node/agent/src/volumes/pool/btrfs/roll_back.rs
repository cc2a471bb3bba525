//! Rolling a btrfs volume back: a new tree takes the old one's place in one rename.
//!
//! Owner: the btrfs pool. Invariants: the tree's path always shows the old tree or the new one, whole;
//! once `rolling` names the snapshot, the roll-back happens, if need be by recovery.
//! The old tree stays in `gone` until recovery, because containers still show it.

use std::fs;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use teu_protocol::ids::{Tag, VolumeId};

use super::{
    super::{PoolError, command::failed_io, record_file},
    BtrfsPool, NEXT, ROLLING, errno,
};

impl BtrfsPool {
    /// Makes it happen, whatever comes.
    pub(super) fn announce_roll_back(&self, id: VolumeId, name: &Tag) -> Result<(), PoolError> {
        let written = record_file::replace(
            &self.layout.volume(id),
            ROLLING,
            name.as_str().as_bytes(),
            || {},
        );
        written.map_err(failed_io("announce the roll-back".to_owned()))
    }

    /// Does it, from wherever an earlier attempt got to.
    pub(super) fn finish_roll_back(&self, id: VolumeId, name: &Tag) -> Result<(), PoolError> {
        let (dir, tree) = (self.layout.volume(id), self.layout.tree(id));
        let (snapshot, next) = (self.layout.snapshot(id, name), dir.join(NEXT));
        let target = self.subvolumes.info(&snapshot)?;
        let quota = self.quota(id)?;
        self.subvolumes.remove(&next)?;
        if let Err(error) = self.subvolumes.snapshot(&snapshot, &next, false) {
            // Nothing has changed (the pool is full): it does not happen after all.
            let _ = record_file::remove(&dir, ROLLING);
            return Err(error);
        }
        fail::fail_point!("volume-btrfs-rollback-next");
        if quota.is_some() {
            self.subvolumes.limit(&next, quota)?;
        }
        self.sync()?;
        fail::fail_point!("volume-btrfs-rollback-limited");
        renameat_with(CWD, &next, CWD, &tree, RenameFlags::EXCHANGE)
            .map_err(errno("exchange the trees"))?;
        fail::fail_point!("volume-btrfs-rollback-exchanged");
        let old = self.subvolumes.info(&next)?;
        let gone = fs::rename(&next, self.layout.gone_tree(id, old.id));
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
}
