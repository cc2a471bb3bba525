//! Volumes on one node: what is there, what is under way on each, and what may be done when.
//!
//! ```text
//! order ─▶ check ─▶ queue of its volume ─▶ Effect::Volume ─▶ Input::VolumeDone ─▶ reply, next one
//!                   (looks and exports do not wait for it to be empty behind them)
//! ```
//! Owner: [`crate::node`]. Invariants: at most one change of a volume is under way; a volume in use
//! is neither destroyed nor imported into, and one that is to be destroyed gets no new users; each
//! effect has a ticket of its own, which ends it. Next: `order` for the orders, `schedule`, `mount`.

mod bound;
mod check;
mod listed;
mod mount;
mod order;
mod schedule;
mod transfers;
mod work;

pub use bound::MAX_VOLUMES;
pub use listed::ListedVolume;
pub use transfers::{MAX_TRANSFERS, MAX_TRANSFERS_OF_ACCOUNT};
pub use work::{Ticket, VolumeDone, VolumeWork, Work};

pub(crate) use mount::check_mounts;
pub(crate) use order::{Holder, Holders, looks};

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use teu_protocol::{
    ids::{RequestId, Tag, VolumeId},
    message::{NodeEvent, NodeVolume, VolumeOrder, VolumeRecord, VolumeState},
};

use crate::effect::Effect;
use schedule::Clockwork;

/// Orders that wait for another one on the same volume.
const MAX_QUEUED: usize = 64;

/// Waits for its volume.
#[allow(clippy::large_enum_variant)] // Nearly all of them are orders.
#[derive(Debug)]
enum Queued {
    Order(RequestId, VolumeOrder),
    Scheduled,
}

/// What a ticket is for.
#[allow(clippy::large_enum_variant)] // Nearly all of them are orders.
#[derive(Debug)]
enum UnderWay {
    Order {
        request: RequestId,
        order: VolumeOrder,
    },
    Scheduled(Tag),
}

#[derive(Debug)]
struct Volume {
    record: VolumeRecord,
    state: VolumeState,
    /// Its making is under way, or waits: there is nothing to mount yet.
    making: bool,
    /// The change that is under way.
    changing: Option<Ticket>,
    queue: VecDeque<Queued>,
    /// Snapshots that exports read.
    exports: Vec<(Ticket, Tag, Option<Tag>)>,
    clockwork: Clockwork,
}

impl Volume {
    fn new(record: VolumeRecord, state: VolumeState, making: bool) -> Self {
        Self {
            record,
            state,
            making,
            changing: None,
            queue: VecDeque::new(),
            exports: Vec::new(),
            clockwork: Clockwork::default(),
        }
    }

    fn told(&self) -> NodeVolume {
        NodeVolume {
            record: self.record.clone(),
            state: self.state,
        }
    }

    fn tell(&self, effects: &mut Vec<Effect>) {
        effects.push(Effect::Tell(NodeEvent::Volume(Box::new(self.told()))));
    }

    /// Snapshots that exports read, or will before what comes behind them.
    fn held(&self) -> Vec<Tag> {
        let reads = self
            .exports
            .iter()
            .map(|(_, name, base)| (name, base.as_ref()));
        let waits = self.queue.iter().filter_map(|queued| match queued {
            Queued::Order(_, VolumeOrder::Export { snapshot, base, .. }) => {
                Some((snapshot, base.as_ref()))
            }
            _ => None,
        });
        reads
            .chain(waits)
            .flat_map(|(name, base)| [Some(name), base])
            .flatten()
            .cloned()
            .collect()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    table: BTreeMap<VolumeId, Volume>,
    tickets: BTreeMap<Ticket, (VolumeId, UnderWay)>,
    next_ticket: u64,
    /// The pool was read when last tried.
    readable: bool,
    /// Volumes in the pool that are not adopted: see `bound`.
    left_out: usize,
}

impl Volumes {
    /// For a report. `None`: the pool cannot be read, so nothing can be said.
    pub(crate) fn told(&self) -> Option<Vec<NodeVolume>> {
        let there = |one: &&Volume| !one.making && one.state != VolumeState::Missing;
        self.readable.then(|| {
            let there = self.table.values().filter(there);
            there.map(Volume::told).collect()
        })
    }

    /// Those that are missing or out of order.
    pub(crate) fn unwell(&self) -> impl Iterator<Item = (VolumeId, VolumeState)> + '_ {
        self.table
            .iter()
            .filter(|(_, one)| !one.making && one.state != VolumeState::Ready)
            .map(|(id, one)| (*id, one.state))
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.table
            .values()
            .filter_map(|one| one.clockwork.due())
            .min()
    }

    fn ticket(&mut self, volume: VolumeId, way: UnderWay) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.tickets.insert(ticket, (volume, way));
        ticket
    }
}
