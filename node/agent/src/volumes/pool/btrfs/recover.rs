//! What a killed agent left half done, in a btrfs pool.
//!
//! Owner: the btrfs pool. Invariant: afterwards `making` and `gone` are empty but for what is
//! being made now, and each volume is as before or after the change that was cut off. It may be
//! called while streams are received: what they are at is left alone.

use std::{fs, path::Path, sync::atomic::Ordering};

use teu_protocol::ids::{Tag, VolumeId};

use super::{
    super::{PoolError, command::failed_io, record_file},
    BtrfsPool, NEXT, ROLLING, entries, held,
};

impl BtrfsPool {
    pub(super) fn recover_all(&self) -> Result<(), PoolError> {
        let dirs =
            entries(&self.layout.volumes()).map_err(failed_io("list the volumes".to_owned()))?;
        let alone = held(&self.rolling);
        for dir in dirs {
            if let Some(id) = id_of(&dir) {
                self.recover_volume(id, &dir)?;
            }
        }
        drop(alone);
        let unfinished = entries(&self.layout.making_dir());
        for dir in unfinished.map_err(failed_io("list what is being made".to_owned()))? {
            // Held until it is removed: its making cannot begin meanwhile.
            let active = held(&self.making);
            if id_of(&dir).is_none_or(|id| !active.contains(&id)) {
                self.subvolumes.remove(&dir)?;
            }
        }
        self.sweep();
        self.sync()
    }

    fn recover_volume(&self, id: VolumeId, dir: &Path) -> Result<(), PoolError> {
        let failed = |what: &str| failed_io(format!("{what} of volume {}", id.short()));
        self.subvolumes.remove(&dir.join(record_file::UNFINISHED))?;
        let announced = fs::read_to_string(dir.join(ROLLING)).ok();
        let target = announced.and_then(|name| Tag::try_from(name).ok());
        if let Some(name) = target.filter(|name| self.layout.snapshot(id, name).exists()) {
            tracing::info!(volume = %id.short(), %name, "finishing a roll-back");
            self.finish_roll_back(id, &name)?;
        }
        record_file::remove(dir, ROLLING).map_err(failed("end the roll-back"))?;
        self.subvolumes.remove(&dir.join(NEXT))
    }

    /// Removes what is gone already, as far as nothing holds it (a send) and there is room to write down
    /// that it is gone. What is left is tried again by `maintain`.
    pub(super) fn sweep(&self) {
        let gone = entries(&self.layout.gone_dir()).unwrap_or_default();
        self.unswept.store(false, Ordering::Relaxed);
        let any = !gone.is_empty();
        for path in gone {
            if let Err(error) = self.subvolumes.remove(&path) {
                tracing::info!(%error, path = %path.display(), "not yet removed");
                self.unswept.store(true, Ordering::Relaxed);
            }
            fail::fail_point!("volume-btrfs-swept");
        }
        if any {
            self.subvolumes.reclaim(&self.layout.0);
        }
    }
}

fn id_of(dir: &Path) -> Option<VolumeId> {
    dir.file_name()?.to_str()?.parse().ok()
}
