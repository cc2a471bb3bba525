//! Streams into a btrfs pool.
//!
//! Owner: the btrfs pool. Invariants: a stream is read into `making` and becomes visible in one step
//! after its end was seen (`btrfs receive` fails on a stream without its end mark, and only a
//! whole one has a received UUID). One that builds on a snapshot must build on the one named.

use std::{fs, os::fd::OwnedFd, path::Path};

use super::{
    super::{
        PoolError, Receive,
        command::{Failed, Stream, failed_io},
    },
    BtrfsPool, ROLLING, TREE, entries, held, layout, make_dir,
};
use crate::sys::btrfs::Subvolume;

impl BtrfsPool {
    pub(super) fn receive_stream(
        &self,
        receive: Receive<'_>,
        input: OwnedFd,
    ) -> Result<(), PoolError> {
        let base = self.fitting_base(&receive)?;
        let making = self.begin(receive.id)?;
        fail::fail_point!("volume-btrfs-receive-begin");
        let arrived = self.read_stream(&making.dir, input)?;
        fail::fail_point!("volume-btrfs-receive-read");
        let failed = || failed_io(format!("place the snapshot `{}`", receive.name));
        match base {
            None => {
                // A read-only subvolume can be renamed, but not out of its directory.
                let snapshots = making.dir.join(layout::SNAPSHOTS);
                fs::rename(&snapshots, making.dir.join("empty")).map_err(failed())?;
                fs::remove_dir(making.dir.join("empty")).map_err(failed())?;
                let incoming = making.dir.join(INCOMING);
                let named = incoming.join(receive.name.as_str());
                fs::rename(&arrived, &named).map_err(failed())?;
                fs::rename(&incoming, &snapshots).map_err(failed())?;
                fail::fail_point!("volume-btrfs-receive-named");
                let snapshot = snapshots.join(receive.name.as_str());
                self.subvolumes
                    .snapshot(&snapshot, &making.dir.join(TREE), false)?;
                fail::fail_point!("volume-btrfs-receive-tree");
                self.settle(&making, receive.record, receive.quota)
            }
            Some(base) => {
                self.check_parent(&arrived, &base)?;
                let _alone = held(&self.rolling);
                let placed = self.place_changes(&receive, &arrived);
                placed.inspect_err(|_| self.displace(&receive))
            }
        }
    }

    fn place_changes(&self, receive: &Receive<'_>, arrived: &Path) -> Result<(), PoolError> {
        self.announce_roll_back(receive.id, receive.name)?;
        fail::fail_point!("volume-btrfs-receive-announced");
        // A read-only snapshot of it, so that it keeps its received UUID, which the next stream
        // names as its base (create_pending_snapshot in fs/btrfs/transaction.c).
        let place = self.layout.snapshot(receive.id, receive.name);
        if let Err(error) = self.subvolumes.snapshot(arrived, &place, true) {
            self.call_off(receive.id);
            return Err(error);
        }
        fail::fail_point!("volume-btrfs-receive-placed");
        self.finish_roll_back(receive.id, receive.name)
    }

    /// Removes the snapshot of a stream whose tree was not exchanged. If it was, recovery finishes.
    fn displace(&self, receive: &Receive<'_>) {
        if self.layout.volume(receive.id).join(ROLLING).exists() {
            return;
        }
        let place = self.layout.snapshot(receive.id, receive.name);
        if let Err(error) = self.subvolumes.remove(&place) {
            tracing::warn!(%error, volume = %receive.id.short(), "the snapshot of a failed import stays");
        }
    }

    /// The snapshot that the stream builds on, if it fits the volume.
    fn fitting_base(&self, receive: &Receive<'_>) -> Result<Option<Subvolume>, PoolError> {
        let there = self.layout.tree(receive.id).exists();
        let Some(base) = receive.base else {
            return match there {
                true => Err(PoolError::BadStream(
                    "the volume is there already, and the stream is a whole one".to_owned(),
                )),
                false => Ok(None),
            };
        };
        if !there {
            return Err(PoolError::NoVolume(receive.id));
        }
        let list = self.snapshot_list(receive.id)?;
        if list.iter().any(|(name, _)| name == receive.name) {
            return Err(PoolError::SnapshotExists(receive.name.clone()));
        }
        if !list.iter().any(|(name, _)| name == base) {
            return Err(PoolError::NoSnapshot(base.clone()));
        }
        match list.last() {
            Some((newest, subvolume)) if newest == base => Ok(Some(*subvolume)),
            _ => Err(PoolError::BadStream(format!(
                "`{base}` is not the volume's newest snapshot"
            ))),
        }
    }

    fn read_stream(&self, dir: &Path, input: OwnedFd) -> Result<std::path::PathBuf, PoolError> {
        let incoming = dir.join(INCOMING);
        make_dir(&incoming).map_err(failed_io("make room for the stream".to_owned()))?;
        let args = [
            Path::new("receive"),
            Path::new("-q"),
            Path::new("-e"),
            &incoming,
        ];
        let read = self
            .subvolumes
            .tools
            .stream("btrfs", &args, Stream::From(input));
        read.map_err(|failed| match failed {
            Failed::Said { said, .. } if !said.contains("No space left") => {
                PoolError::BadStream(said)
            }
            failed => failed.into(),
        })?;
        let arrived = entries(&incoming).map_err(failed_io("look at what arrived".to_owned()))?;
        let [arrived] = arrived.as_slice() else {
            return Err(PoolError::BadStream(format!(
                "it holds {} snapshots, not one",
                arrived.len()
            )));
        };
        let info = self.subvolumes.info(arrived)?;
        match info.read_only && info.received != [0; 16] {
            true => Ok(arrived.clone()),
            false => Err(PoolError::BadStream("it ends early".to_owned())),
        }
    }

    /// `btrfs receive` finds the base by its UUID anywhere in the file system; it has to be this one or
    /// a copy of what this one is a copy of.
    fn check_parent(&self, arrived: &Path, base: &Subvolume) -> Result<(), PoolError> {
        let parent = self.subvolumes.info(arrived)?.parent;
        let is_base = parent == base.uuid;
        let is_copy = || {
            let all = self.every_snapshot().unwrap_or_default();
            all.iter()
                .filter(|other| other.uuid == parent)
                .any(|other| {
                    other.uuid == base.received
                        || other.received != [0; 16] && other.received == base.received
                })
        };
        match is_base || is_copy() {
            true => Ok(()),
            false => Err(PoolError::BadStream(
                "it builds on another snapshot".to_owned(),
            )),
        }
    }

    fn every_snapshot(&self) -> Result<Vec<Subvolume>, PoolError> {
        let mut all = Vec::new();
        for volume in super::Pool::volumes(self)? {
            all.extend(
                self.snapshot_list(volume.id)?
                    .into_iter()
                    .map(|(_, subvolume)| subvolume),
            );
        }
        Ok(all)
    }
}

/// Where a stream is read to.
const INCOMING: &str = "incoming";
