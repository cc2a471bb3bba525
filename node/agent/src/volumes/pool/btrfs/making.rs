//! A btrfs volume while it is being made.
//!
//! Owner: the btrfs pool. Invariant: it lies in `making`, where recovery leaves it alone as long as it is
//! being made, until one rename makes a volume of it; whatever is left else goes with [`Making`].

use std::{fs, path::PathBuf};

use teu_protocol::ids::VolumeId;

use super::{
    super::{PoolError, command::failed_io, record_file},
    BtrfsPool, held,
    layout::{self, RECORD, TREE, make_dir},
};

/// A volume that is being made; what is left of it goes when this does.
pub(super) struct Making<'a> {
    pool: &'a BtrfsPool,
    id: VolumeId,
    pub(super) dir: PathBuf,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.pool.subvolumes.remove(&self.dir) {
            tracing::warn!(%error, "what is left of an unfinished volume goes at the next recovery");
        }
        held(&self.pool.making).remove(&self.id);
    }
}

impl BtrfsPool {
    /// A new volume's directory, out of recovery's reach while it is being made.
    pub(super) fn begin(&self, id: VolumeId) -> Result<Making<'_>, PoolError> {
        let mut active = held(&self.making);
        if !active.insert(id) {
            return Err(PoolError::Busy("it is being made".to_owned()));
        }
        drop(active);
        let making = Making {
            pool: self,
            id,
            dir: self.layout.making(id),
        };
        self.subvolumes.remove(&making.dir)?;
        let made =
            make_dir(&making.dir).and_then(|()| make_dir(&making.dir.join(layout::SNAPSHOTS)));
        made.map_err(failed_io(format!("make {}", making.dir.display())))?;
        Ok(making)
    }

    /// Makes a volume of a directory that has its tree.
    pub(super) fn settle(
        &self,
        making: &Making<'_>,
        record: &[u8],
        quota: Option<u64>,
    ) -> Result<(), PoolError> {
        if quota.is_some() {
            self.subvolumes.limit(&making.dir.join(TREE), quota)?;
        }
        fail::fail_point!("volume-btrfs-settle-limited");
        let written = record_file::replace(&making.dir, RECORD, record, || {});
        written.map_err(failed_io("write the volume's record".to_owned()))?;
        self.sync()?;
        fail::fail_point!("volume-btrfs-settle-record");
        let renamed = fs::rename(&making.dir, self.layout.volume(making.id));
        renamed.map_err(failed_io("put the volume in its place".to_owned()))?;
        fail::fail_point!("volume-btrfs-settle-renamed");
        self.sync()
    }
}
