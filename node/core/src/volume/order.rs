//! The master's orders of volumes, and what became of them.
//!
//! Owner: [`crate::node`]. Invariant: each order is answered here, or waits in its volume's queue, or
//! is with the worker under a ticket. To add an order: `check`, `refuses` and `done`.

use teu_protocol::{
    ids::{ContainerId, RequestId, VolumeId},
    message::{
        NodeEvent, NodeReplyBody, Refusal, RefusalCode, VolumeOrder, VolumeRecord, VolumeState,
    },
};

use super::{
    MAX_QUEUED, Queued, Ticket, UnderWay, Volume, VolumeDone, VolumeWork, Volumes, Work, check,
    schedule,
};
use crate::{container::Out, effect::Effect, input::Now};

/// A container that has a volume.
#[derive(Debug, Clone)]
pub(crate) struct Holder {
    pub(crate) container: ContainerId,
    /// For people.
    pub(crate) name: String,
    /// It ended, and its mounts go any moment.
    pub(crate) lingers: bool,
    /// It is being started: its mounts are being made.
    pub(crate) starts: bool,
}

/// Who has a volume: the container table's answer.
pub(crate) type Holders<'a> = &'a dyn Fn(VolumeId) -> Vec<Holder>;

impl Volumes {
    /// An order that has not been seen before.
    pub(crate) fn order(
        &mut self,
        request: RequestId,
        order: VolumeOrder,
        holders: Holders<'_>,
        now: Now,
        out: &mut Out<'_>,
    ) {
        if let Err(refusal) = self.may(&order, holders) {
            return out.answer(request, Err(refusal));
        }
        let id = order.volume();
        if looks(&order) {
            let work = self.work(request, order, holders);
            return out.effects.push(work);
        }
        if let Some(record) = makes(&order)
            && !self.table.contains_key(&id)
        {
            let volume = Volume::new(record.clone(), VolumeState::Ready, true);
            self.table.insert(id, volume);
        }
        let Some(volume) = self.table.get_mut(&id) else {
            // To be destroyed and not known: the worker looks whether the pool has it all the same.
            let work = self.work(request, order, holders);
            return out.effects.push(work);
        };
        if volume.queue.len() >= MAX_QUEUED {
            let message = "too many changes of this volume are under way; try again in a moment";
            return out.refuse(request, RefusalCode::Unavailable, message);
        }
        volume.queue.push_back(Queued::Order(request, order));
        self.advance(id, holders, now, out.effects);
    }

    fn may(&self, order: &VolumeOrder, holders: Holders<'_>) -> Result<(), Refusal> {
        check::check(order)?;
        let id = order.volume();
        let refuse = |code, message: String| Err(Refusal::new(code, message));
        let short = id.short();
        if !self.readable {
            let message = "the node's pool of volumes cannot be used now; `teu doctor` says why";
            return refuse(RefusalCode::Faulted, message.to_owned());
        }
        self.may_transfer(order)?;
        let known = self.table.get(&id);
        let importing = self.has_ahead(id, |order| matches!(order, VolumeOrder::Import { .. }));
        if importing && !looks(order) {
            let message = format!("volume {short} is being imported; wait until that ends");
            return refuse(RefusalCode::Busy, message);
        }
        let dying = self.has_ahead(id, |order| matches!(order, VolumeOrder::Destroy(_)));
        if dying && !looks(order) && !matches!(order, VolumeOrder::Destroy(_)) {
            let message = format!("volume {short} is being destroyed");
            return refuse(RefusalCode::NotFound, message);
        }
        match order {
            VolumeOrder::Create(record)
            | VolumeOrder::Clone(record)
            | VolumeOrder::Import {
                record,
                into: false,
                ..
            } => {
                if known.is_some_and(|known| known.record.account != record.account) {
                    return refuse(
                        RefusalCode::BadRequest,
                        "the volume's id is taken".to_owned(),
                    );
                }
                if known.is_none() {
                    self.room_for(record)?;
                }
                if let (VolumeOrder::Import { .. }, Some(_)) = (order, known) {
                    let message = format!("there is a volume {short} already");
                    return refuse(RefusalCode::WrongState, message);
                }
                self.origin(order, record)
            }
            VolumeOrder::Destroy(_) => {
                if known.is_some_and(|known| !known.held().is_empty()) {
                    let message = format!("volume {short} is being exported; wait until that ends");
                    return refuse(RefusalCode::Busy, message);
                }
                unused(&short, holders(id))
            }
            VolumeOrder::DestroySnapshot { name, .. } => match known {
                None => no_volume(&short),
                Some(known) if known.held().contains(name) => {
                    let message =
                        format!("the snapshot `{name}` is being exported; wait until that ends");
                    refuse(RefusalCode::Busy, message)
                }
                Some(_) => Ok(()),
            },
            VolumeOrder::Import { record, .. } => match known {
                Some(known) if known.record.account == record.account => {
                    unused(&short, holders(id))
                }
                _ => no_volume(&short),
            },
            VolumeOrder::RollBack(_) => {
                if known.is_none() {
                    return no_volume(&short);
                }
                let Some(starts) = holders(id).into_iter().find(|one| one.starts) else {
                    return Ok(());
                };
                let mut refusal = Refusal::new(
                    RefusalCode::Busy,
                    format!(
                        "container {} is being started; try again in a moment",
                        starts.name
                    ),
                );
                refusal.retryable = true;
                Err(refusal)
            }
            VolumeOrder::Snapshots(_)
            | VolumeOrder::Snapshot { .. }
            | VolumeOrder::Usage(_)
            | VolumeOrder::SetQuota { .. }
            | VolumeOrder::SetSchedule { .. }
            | VolumeOrder::Export { .. } => match known {
                Some(known) if !(known.making && looks(order)) => Ok(()),
                _ => no_volume(&short),
            },
        }
    }

    /// What a clone begins as is the same account's.
    fn origin(&self, order: &VolumeOrder, record: &VolumeRecord) -> Result<(), Refusal> {
        let VolumeOrder::Clone(_) = order else {
            return Ok(());
        };
        let origin = record.origin.as_ref().map(|origin| origin.volume);
        let is_own = |id| {
            let known = self.table.get(&id);
            known.is_some_and(|known| known.record.account == record.account)
        };
        // Made before: then it does not matter what became of its origin.
        let made = self.table.get(&record.id).is_some_and(|one| !one.making);
        match origin {
            Some(id) if is_own(id) || made => Ok(()),
            Some(id) => no_volume(&id.short()),
            None => no_volume("(none)"),
        }
    }

    fn work(&mut self, request: RequestId, order: VolumeOrder, holders: Holders<'_>) -> Effect {
        let id = order.volume();
        let way = UnderWay::Order {
            request,
            order: order.clone(),
        };
        let ticket = self.ticket(id, way);
        self.effect(ticket, id, Work::Order { request, order }, holders)
    }

    fn effect(&self, ticket: Ticket, id: VolumeId, work: Work, holders: Holders<'_>) -> Effect {
        let known = self.table.get(&id);
        let users = holders(id).into_iter().filter(|one| !one.lingers);
        Effect::Volume(Box::new(VolumeWork {
            ticket,
            volume: id,
            record: known
                .filter(|one| !one.making)
                .map(|one| one.record.clone()),
            mounted_by: users.map(|one| one.container).collect(),
            held: known.map(Volume::held).unwrap_or_default(),
            work,
        }))
    }

    /// Begins what waits, as far as it may begin.
    pub(crate) fn advance(
        &mut self,
        id: VolumeId,
        holders: Holders<'_>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        loop {
            let Some(volume) = self.table.get_mut(&id) else {
                return;
            };
            if volume.changing.is_some() {
                return;
            }
            let waits_for_mounts = matches!(
                volume.queue.front(),
                Some(Queued::Order(
                    _,
                    VolumeOrder::Destroy(_) | VolumeOrder::Import { .. }
                ))
            );
            if waits_for_mounts && holders(id).iter().any(|one| one.lingers) {
                return;
            }
            match volume.queue.pop_front() {
                None => return,
                Some(Queued::Scheduled) => {
                    let (Some(schedule), Some(name)) =
                        (volume.record.spec.schedule, schedule::name(now.unix_ms))
                    else {
                        continue;
                    };
                    let ticket = self.ticket(id, UnderWay::Scheduled(name.clone()));
                    self.begins(id, ticket);
                    let keep = schedule.keep;
                    let work = Work::Scheduled { name, keep };
                    effects.push(self.effect(ticket, id, work, holders));
                }
                Some(Queued::Order(request, order)) => {
                    let way = UnderWay::Order {
                        request,
                        order: order.clone(),
                    };
                    let ticket = self.ticket(id, way);
                    if let VolumeOrder::Export { snapshot, base, .. } = &order {
                        // It runs beside what comes behind it.
                        if let Some(volume) = self.table.get_mut(&id) {
                            let held = (ticket, snapshot.clone(), base.clone());
                            volume.exports.push(held);
                        }
                    } else {
                        self.begins(id, ticket);
                    }
                    let work = Work::Order { request, order };
                    effects.push(self.effect(ticket, id, work, holders));
                }
            }
        }
    }

    fn begins(&mut self, id: VolumeId, ticket: Ticket) {
        if let Some(volume) = self.table.get_mut(&id) {
            volume.changing = Some(ticket);
        }
    }

    /// Work has ended.
    pub(crate) fn done(
        &mut self,
        ticket: Ticket,
        result: Result<VolumeDone, Refusal>,
        holders: Holders<'_>,
        now: Now,
        out: &mut Out<'_>,
    ) {
        let Some((id, way)) = self.tickets.remove(&ticket) else {
            return;
        };
        // A destruction of what was not known here is no change of what was made since.
        let mut changed = false;
        if let Some(volume) = self.table.get_mut(&id) {
            volume.exports.retain(|(export, ..)| *export != ticket);
            changed = volume.changing == Some(ticket);
            if changed {
                volume.changing = None;
            }
        }
        match way {
            UnderWay::Scheduled(name) => {
                if let Err(refusal) = result {
                    let short = id.short();
                    let message =
                        format!("the snapshot `{name}` of volume {short} was not made: {refusal}");
                    out.effects.push(Effect::Tell(NodeEvent::Warning(message)));
                }
            }
            UnderWay::Order { request, order } => {
                if changed {
                    self.order_done(id, &order, &result, now, out);
                }
                let is_stream = matches!(
                    order,
                    VolumeOrder::Export { .. } | VolumeOrder::Import { .. }
                );
                // A stream's order was answered when the stream was opened, or was not.
                if !is_stream {
                    out.answer(request, result.map(|done| done.reply));
                }
            }
        }
        self.advance(id, holders, now, out.effects);
    }

    fn order_done(
        &mut self,
        id: VolumeId,
        order: &VolumeOrder,
        result: &Result<VolumeDone, Refusal>,
        now: Now,
        out: &mut Out<'_>,
    ) {
        let made = makes(order).is_some();
        match result {
            Ok(_) if matches!(order, VolumeOrder::Destroy(_)) => self.vanish(id, out),
            Ok(done) => {
                let Some(volume) = self.table.get_mut(&id) else {
                    return;
                };
                let is_new = made && std::mem::take(&mut volume.making);
                if let Some(record) = &done.record {
                    let fresh = volume.record.spec.schedule != record.spec.schedule;
                    volume.record = record.clone();
                    if fresh || is_new {
                        volume.rewind(now);
                    }
                    volume.state = VolumeState::Ready;
                }
                if matches!(order, VolumeOrder::Import { .. }) {
                    volume.tell(out.effects);
                }
            }
            Err(_) => {
                let Some(volume) = self.table.get_mut(&id) else {
                    return;
                };
                if !(made && volume.making) {
                    return;
                }
                // Others may wait to make the same: they try for themselves. What waits before them
                // has nothing to be done to.
                let makes = |queued: &Queued| matches!(queued, Queued::Order(_, order) if makes(order).is_some());
                match volume.queue.iter().position(makes) {
                    Some(maker) => unmade(id, volume.queue.drain(..maker), out),
                    None => self.vanish(id, out),
                }
            }
        }
    }

    /// Nothing is left of it: neither is anything to wait for.
    fn vanish(&mut self, id: VolumeId, out: &mut Out<'_>) {
        if let Some(volume) = self.table.remove(&id) {
            unmade(id, volume.queue, out);
        }
    }
}

/// Answers orders to a volume that is not there.
fn unmade(id: VolumeId, queue: impl IntoIterator<Item = Queued>, out: &mut Out<'_>) {
    for queued in queue {
        match queued {
            Queued::Order(request, VolumeOrder::Destroy(_)) => {
                out.answer(request, Ok(NodeReplyBody::Done));
            }
            Queued::Order(request, _) => {
                let message = format!("the node has no volume {}", id.short());
                out.refuse(request, RefusalCode::NotFound, message);
            }
            Queued::Scheduled => {}
        }
    }
}

/// The record of what an order makes.
const fn makes(order: &VolumeOrder) -> Option<&VolumeRecord> {
    match order {
        VolumeOrder::Create(record)
        | VolumeOrder::Clone(record)
        | VolumeOrder::Import {
            record,
            into: false,
            ..
        } => Some(record),
        _ => None,
    }
}

/// Orders that change nothing wait for nothing.
pub(crate) const fn looks(order: &VolumeOrder) -> bool {
    matches!(order, VolumeOrder::Snapshots(_) | VolumeOrder::Usage(_))
}

fn no_volume(short: &str) -> Result<(), Refusal> {
    let message = format!("the node has no volume {short}");
    Err(Refusal::new(RefusalCode::NotFound, message))
}

fn unused(short: &str, holders: Vec<Holder>) -> Result<(), Refusal> {
    let users = holders.into_iter().filter(|one| !one.lingers);
    let names: Vec<String> = users.map(|one| one.name).collect();
    if names.is_empty() {
        return Ok(());
    }
    let message = format!(
        "volume {short} is in use by {}; stop or destroy them first",
        names.join(", ")
    );
    Err(Refusal::new(RefusalCode::Busy, message))
}
