//! How many exports and imports there may be at a time.
//!
//! Owner: [`super::Volumes`]. Each costs a thread, a process and a window of memory for as long as its client
//! likes, so those that wait in a queue count as well, and no account can take all places from the others.

use teu_protocol::{
    ids::{PublicKey, VolumeId},
    message::{Refusal, RefusalCode, VolumeOrder},
};

use super::{Queued, UnderWay, Volumes};

/// On one node.
pub const MAX_TRANSFERS: usize = 8;

/// Of one account.
pub const MAX_TRANSFERS_OF_ACCOUNT: usize = MAX_TRANSFERS / 2;

const fn is_transfer(order: &VolumeOrder) -> bool {
    matches!(
        order,
        VolumeOrder::Export { .. } | VolumeOrder::Import { .. }
    )
}

impl Volumes {
    /// That there is a place for the order, if it needs one.
    pub(super) fn may_transfer(&self, order: &VolumeOrder) -> Result<(), Refusal> {
        if !is_transfer(order) {
            return Ok(());
        }
        let refuse = |message| Err(Refusal::new(RefusalCode::Unavailable, message));
        if self.transfers().count() >= MAX_TRANSFERS {
            return refuse(format!(
                "{MAX_TRANSFERS} volumes are on their way already; try again later"
            ));
        }
        let account = match order {
            VolumeOrder::Import { record, .. } => Some(record.account),
            _ => self.account_of(order.volume()),
        };
        let own = self
            .transfers()
            .filter(|id| self.account_of(*id) == account);
        if own.count() >= MAX_TRANSFERS_OF_ACCOUNT {
            return refuse(format!(
                "{MAX_TRANSFERS_OF_ACCOUNT} volumes of this account are on their way already; try again later"
            ));
        }
        Ok(())
    }

    fn account_of(&self, id: VolumeId) -> Option<PublicKey> {
        self.table.get(&id).map(|volume| volume.record.account)
    }

    /// The volume of each that is under way or waits.
    fn transfers(&self) -> impl Iterator<Item = VolumeId> + '_ {
        let under_way = self.tickets.values().filter(|(_, way)| match way {
            UnderWay::Order { order, .. } => is_transfer(order),
            UnderWay::Scheduled(_) => false,
        });
        let waiting = self.table.iter().flat_map(|(id, volume)| {
            let waits = volume.queue.iter().filter(|queued| match queued {
                Queued::Order(_, order) => is_transfer(order),
                Queued::Scheduled => false,
            });
            waits.map(|_| *id)
        });
        under_way.map(|(id, _)| *id).chain(waiting)
    }
}
