//! Changes to a ZFS pool that take more than one transaction, and how recovery ends them.
//!
//! Owner: the ZFS pool. Invariants: a roll-back is announced in the property `teu:rolling` before the
//! first snapshot goes; a destroyed volume or snapshot first takes a hidden name; what is received
//! has a hidden name until it is whole. So each can be finished, or undone, by what it is called.

use std::{
    os::fd::OwnedFd,
    time::{SystemTime, UNIX_EPOCH},
};

use teu_protocol::ids::{Tag, VolumeId};

use super::{
    super::{PoolError, Receive},
    Kind, ZfsPool,
    command::is_missing,
    dataset::{at, gone_snapshot, snapshot_name},
    held,
    record::{self, Head},
    too_long,
};

/// Names the snapshot of a roll-back that is under way.
const ROLLING: &str = "teu:rolling";

/// A number that no earlier hidden name has.
pub(super) fn mark() -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_nanos()
}

impl ZfsPool {
    /// Destroys a snapshot, or hides it until its clones are gone.
    pub(super) fn destroy_or_hide(&self, dataset: &str, name: &Tag) -> Result<(), PoolError> {
        let snapshot = at(dataset, name);
        fail::fail_point!("volume-zfs-destroy-snapshot-begin");
        let clones = self.clones_of(&snapshot)?;
        if clones.is_empty() {
            match self.driver.destroy(&snapshot) {
                // Of somebody else, elsewhere in the pool.
                Err(PoolError::Tool { said, .. }) if said.contains("clone") => {}
                done => {
                    fail::fail_point!("volume-zfs-destroy-snapshot-destroyed");
                    return done;
                }
            }
        }
        let hidden = gone_snapshot(dataset, name, mark());
        match self.command.zfs(&["rename", &snapshot, &hidden]) {
            // zfs-fuse's command mounts the clones anew, and at times cannot at once; it is renamed.
            Err(PoolError::Busy(said))
                if self.command.is_fuse() && said.contains("cannot mount") => {}
            done => drop(done?),
        }
        fail::fail_point!("volume-zfs-destroy-snapshot-hidden");
        self.command.destroy_later(&hidden)?;
        for clone in &clones {
            // zfs-fuse cannot while a container has it mounted; the snapshot is gone all the same.
            if let Kind::Volume(id) = self.parent.kind(clone)
                && let Err(error) = self.mount(id)
            {
                tracing::warn!(%error, volume = %id.short(), "a clone is not mounted");
            }
        }
        Ok(())
    }

    /// Datasets below the parent that began as this snapshot.
    fn clones_of(&self, snapshot: &str) -> Result<Vec<String>, PoolError> {
        let all = self.datasets("origin")?.into_iter();
        Ok(all
            .filter(|(_, origin)| origin == snapshot)
            .map(|(name, _)| name)
            .collect())
    }

    pub(super) fn roll_back_to(&self, dataset: &str, name: &Tag) -> Result<(), PoolError> {
        let target = at(dataset, name);
        let all = self.snapshot_names(dataset)?;
        let later: Vec<String> = all
            .into_iter()
            .skip_while(|snapshot| *snapshot != target)
            .skip(1)
            .collect();
        let origins = self.datasets("origin")?;
        for snapshot in &later {
            let clone = origins.iter().find(|(_, origin)| origin == snapshot);
            if let Some((clone, _)) = clone {
                return Err(self.needed_by(snapshot, clone));
            }
        }
        self.command.set(dataset, ROLLING, name.as_str())?;
        fail::fail_point!("volume-zfs-rollback-announced");
        for snapshot in later.iter().rev() {
            match self.driver.destroy(snapshot) {
                Err(error) if !is_missing(&error) => {
                    // It is being sent, or cloned elsewhere: what is left stays.
                    self.command.unset(dataset, ROLLING)?;
                    return Err(error);
                }
                _ => fail::fail_point!("volume-zfs-rollback-discarded"),
            }
        }
        self.driver.roll_back(&target)?;
        fail::fail_point!("volume-zfs-rollback-done");
        self.command.unset(dataset, ROLLING)?;
        fail::fail_point!("volume-zfs-rollback-ended");
        Ok(())
    }

    fn needed_by(&self, snapshot: &str, clone: &str) -> PoolError {
        match (snapshot_name(snapshot), self.parent.kind(clone)) {
            (Some((snapshot, _)), Kind::Volume(clone)) => PoolError::HasClone { snapshot, clone },
            _ => PoolError::Busy(format!(
                "the later snapshot {snapshot} is needed by {clone}"
            )),
        }
    }

    /// Sets the parts under a generation that nobody reads, then the head that names it.
    pub(super) fn replace_record(&self, dataset: &str, record: &[u8]) -> Result<(), PoolError> {
        let old = self
            .command
            .get(dataset, record::RECORD)?
            .unwrap_or_default();
        let old = Head::read(&old);
        let generation = old.map_or('a', |old| old.next_generation());
        let properties = record::encode(record, generation).ok_or_else(too_long)?;
        for (name, value) in &properties {
            fail::fail_point!("volume-zfs-record-part");
            self.command.set(dataset, name, value)?;
        }
        fail::fail_point!("volume-zfs-record-replaced");
        for name in old.iter().flat_map(Head::rest) {
            self.command.unset(dataset, &name)?;
        }
        Ok(())
    }

    pub(super) fn read_record(
        &self,
        dataset: &str,
        value: &str,
    ) -> Result<Option<Vec<u8>>, PoolError> {
        let Some(head) = Head::read(value) else {
            return Ok(None);
        };
        let mut rest = Vec::new();
        for name in head.rest() {
            rest.push(self.command.get(dataset, &name)?.unwrap_or_default());
        }
        Ok(head.decode(&rest))
    }

    /// A new volume.
    pub(super) fn receive_whole(
        &self,
        receive: &Receive<'_>,
        input: OwnedFd,
    ) -> Result<(), PoolError> {
        let (dataset, making) = (
            self.parent.volume(receive.id),
            self.parent.making(receive.id),
        );
        if self.command.exists(&dataset)? {
            return Err(PoolError::BadStream(
                "the volume is there already, and the stream is a whole one".to_owned(),
            ));
        }
        if !held(&self.making).insert(receive.id) {
            return Err(PoolError::Busy("it is being received".to_owned()));
        }
        let _making = Making(self, receive.id);
        self.command.destroy_whole(&making)?;
        fail::fail_point!("volume-zfs-receive-begin");
        let done = self.receive_hidden(receive, &making, input).and_then(|()| {
            self.driver.rename(&making, &dataset)?;
            fail::fail_point!("volume-zfs-receive-named");
            Ok(())
        });
        if let Err(error) = done {
            if let Err(left) = self.command.destroy_whole(&making) {
                tracing::warn!(%left, "what is left of a stream goes at the next recovery");
            }
            return Err(error);
        }
        self.mount(receive.id)
    }

    fn receive_hidden(
        &self,
        receive: &Receive<'_>,
        making: &str,
        input: OwnedFd,
    ) -> Result<(), PoolError> {
        self.command
            .receive(&["-u"], &at(making, receive.name), input)?;
        fail::fail_point!("volume-zfs-receive-read");
        for (name, value) in self.properties(receive.id, receive.record, receive.quota)? {
            self.command.set(making, &name, &value)?;
            fail::fail_point!("volume-zfs-receive-set");
        }
        Ok(())
    }

    /// What changed in a volume: one transaction at the stream's end (dmu_recv_end in OpenZFS's
    /// module/zfs/dmu_recv.c swaps a hidden clone with the tree).
    pub(super) fn receive_changes(
        &self,
        receive: &Receive<'_>,
        base: &Tag,
        input: OwnedFd,
    ) -> Result<(), PoolError> {
        let dataset = self.require_snapshot(receive.id, base)?;
        let snapshot = at(&dataset, receive.name);
        if self.command.exists(&snapshot)? {
            return Err(PoolError::SnapshotExists(receive.name.clone()));
        }
        let newest = self.snapshot_names(&dataset)?.pop();
        if newest != Some(at(&dataset, base)) {
            return Err(PoolError::BadStream(format!(
                "`{base}` is not the volume's newest snapshot"
            )));
        }
        fail::fail_point!("volume-zfs-receive-changes-begin");
        self.command.receive(&["-F"], &snapshot, input)?;
        fail::fail_point!("volume-zfs-receive-changes-read");
        if self.command.is_fuse() {
            // Its mount goes on showing the tree as it was. Nobody else has it mounted: see the worker.
            self.unmount(receive.id)?;
        }
        self.mount(receive.id)
    }

    /// Removes what is gone, as far as no clone needs it. A clone that is gone itself may need another.
    pub(super) fn sweep(&self) -> Result<(), PoolError> {
        loop {
            let mut removed = false;
            for (dataset, _) in self.datasets("type")? {
                if self.parent.kind(&dataset) == Kind::Gone {
                    removed |= self.sweep_dataset(&dataset)?;
                }
            }
            if !removed {
                return Ok(());
            }
        }
    }

    /// Whether it is gone for good.
    fn sweep_dataset(&self, dataset: &str) -> Result<bool, PoolError> {
        for snapshot in self.snapshot_names(dataset)? {
            if let Err(error) = self.command.destroy_later(&snapshot) {
                tracing::info!(%error, snapshot, "not yet removed");
            }
            fail::fail_point!("volume-zfs-sweep-snapshot");
        }
        if !self.snapshot_names(dataset)?.is_empty() {
            return Ok(false);
        }
        match self.driver.destroy(dataset) {
            Ok(()) => Ok(true),
            Err(error) => {
                tracing::info!(%error, dataset, "not yet removed");
                Ok(false)
            }
        }
    }

    pub(super) fn recover_all(&self) -> Result<(), PoolError> {
        for (dataset, rolling) in self.datasets(ROLLING)? {
            match self.parent.kind(&dataset) {
                Kind::Volume(id) => self.recover_volume(id, &dataset, &rolling)?,
                Kind::Making(id) if !held(&self.making).contains(&id) => {
                    self.command.destroy_whole(&dataset)?
                }
                Kind::Making(_) | Kind::Gone | Kind::Foreign => {}
            }
        }
        self.sweep()
    }

    fn recover_volume(&self, id: VolumeId, dataset: &str, rolling: &str) -> Result<(), PoolError> {
        if let Ok(name) = rolling.parse::<Tag>() {
            tracing::info!(volume = %id.short(), %name, "finishing a roll-back");
            if self.command.exists(&at(dataset, &name))? {
                self.roll_back_to(dataset, &name)?;
            } else {
                self.command.unset(dataset, ROLLING)?;
            }
        }
        for snapshot in self.snapshot_names(dataset)? {
            if let Some((_, true)) = snapshot_name(&snapshot) {
                self.command.destroy_later(&snapshot)?;
            }
        }
        self.mount(id)
    }
}

/// Ends a volume's being made.
struct Making<'a>(&'a ZfsPool, VolumeId);

impl Drop for Making<'_> {
    fn drop(&mut self) {
        held(&self.0.making).remove(&self.1);
    }
}
