//! What is in the pool, and whether it changed by itself.
//!
//! Owner: the worker. Invariant: a list is told in its order with the ends of jobs, so the core never
//! takes a volume for lost that was made before.

use teu_node_core::{Input, volume::ListedVolume};
use teu_protocol::message::{SCHEDULED_PREFIX, VolumeRecord, decode};

use super::{Instant, Worker};
use crate::{
    agent::Event,
    link::chain,
    volumes::pool::{Pool, StoredVolume},
};

impl Worker {
    /// Tells what is there, if that is not what was told last.
    pub(super) fn look(&mut self) {
        self.looked = Instant::now();
        let before = self.told.take();
        let list = self.list();
        if before.as_ref() != Some(&list) {
            let _ = self.events.blocking_send(Event::Core(Input::Volumes(list)));
        }
    }

    /// What is there. `None`: the pool cannot be read.
    pub(super) fn list(&mut self) -> Option<Vec<ListedVolume>> {
        let list = self.read();
        self.told = Some(list.clone());
        list
    }

    fn read(&self) -> Option<Vec<ListedVolume>> {
        let pool = self.view.borrow().pool.clone()?;
        let stored = pool.space().and_then(|_| pool.volumes());
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => {
                self.ails(Some(chain(&error)));
                return None;
            }
        };
        let mut list: Vec<ListedVolume> = stored
            .into_iter()
            .map(|stored| listed(pool.as_ref(), stored))
            .collect();
        list.sort_by_key(|one| one.id);
        let unreadable = list.iter().filter(|one| one.record.is_none());
        let unreadable: Vec<_> = unreadable.map(|one| one.id).collect();
        if self.view.borrow().unreadable != unreadable {
            self.view.send_modify(|view| view.unreadable = unreadable);
        }
        Some(list)
    }
}

fn listed(pool: &dyn Pool, stored: StoredVolume) -> ListedVolume {
    let StoredVolume { id, record } = stored;
    let record: Option<VolumeRecord> = record
        .and_then(|bytes| decode(&bytes).ok())
        .filter(|record: &VolumeRecord| record.id == id);
    let has_schedule = record
        .as_ref()
        .is_some_and(|record| record.spec.schedule.is_some());
    let scheduled_ms = has_schedule
        .then(|| pool.snapshots(id).ok())
        .flatten()
        .and_then(|all| {
            let scheduled = all
                .iter()
                .filter(|one| one.name.as_str().starts_with(SCHEDULED_PREFIX));
            scheduled.map(|one| one.created_ms).max()
        });
    ListedVolume {
        id,
        record,
        is_well: pool.tree(id).is_ok(),
        scheduled_ms,
    }
}
