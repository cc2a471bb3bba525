//! Effects to tasks.
//!
//! Owner: the event loop. Invariants: nothing here waits; each effect that wants an answer has a task
//! that gives it; records are kept before anything else of the same input is performed. To add an effect: an arm in [`Agent::perform`].

mod control;
mod open;
mod volume;

use teu_node_core::Effect;
use teu_protocol::{
    ids::ContainerId,
    message::{NodeToMaster, Refusal, RefusalCode},
};

use super::Agent;
use crate::{
    containers::{prepare, release, remove, wake},
    link::chain,
    state::{StateError, StoredContainer},
};

impl Agent {
    /// Performs the effects of one input. If a record cannot be kept, what would have been answered is
    /// refused: nobody is told of what a restart would undo.
    pub(super) fn perform_all(&mut self, effects: Vec<Effect>) {
        for effect in &effects {
            if let Effect::Persist(record) = effect {
                self.records.changed((**record).clone());
            }
        }
        let kept = self.keep_records();
        for effect in effects {
            match (effect, &kept) {
                (Effect::Reply { id, result: Ok(_) }, Err(refusal)) => {
                    self.perform(Effect::Reply {
                        id,
                        result: Err(refusal.clone()),
                    })
                }
                (effect, _) => self.perform(effect),
            }
        }
    }

    /// Writes the records that changed. Those that could not be written are tried with each event.
    fn keep_records(&mut self) -> Result<(), Refusal> {
        let mut outcome = Ok(());
        for (record, durably) in self.records.take() {
            let Some(slot) = self.slot_of(&record.container) else {
                continue;
            };
            let dir = self.yard.data.container(record.container);
            let stored = StoredContainer { record, slot };
            let kept = if durably {
                dir.keep_durably(&stored)
            } else {
                dir.keep(&stored)
            };
            if let Err(error) = kept {
                outcome = Err(not_kept(stored.record.container, &error));
                self.records.failed(stored.record);
            } else {
                self.records.kept(&stored.record);
            }
        }
        outcome
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Reply { id, result } => {
                self.say(NodeToMaster::Reply { id, result });
                if let (Some(start), Some(outbox)) = (self.starts.remove(&id), &self.outbox) {
                    let _ = outbox.then(start);
                }
            }
            Effect::Tell(event) => self.say(NodeToMaster::Event(Box::new(event))),
            Effect::Report => self.report(),
            Effect::Prepare(plan) => self.prepare(*plan),
            Effect::Cancel(container) => {
                if let Some(entry) = self.table.get(&container) {
                    entry.unwanted.cancel();
                }
            }
            Effect::Wake(container) => {
                let sandbox = self
                    .table
                    .get(&container)
                    .and_then(|entry| entry.sandbox.clone());
                tokio::spawn(wake(self.yard.clone(), container, sandbox));
            }
            Effect::Release {
                container,
                revoke,
                ip,
            } => {
                let Some(entry) = self.table.get(&container) else {
                    return;
                };
                let work = release(
                    self.yard.clone(),
                    container,
                    entry.sandbox.clone(),
                    entry.cut.clone(),
                );
                self.after_revoking(revoke, ip, work);
            }
            Effect::Remove {
                container,
                revoke,
                ip,
            } => {
                let Some(entry) = self.table.get(&container) else {
                    return;
                };
                let work = remove(
                    self.yard.clone(),
                    container,
                    entry.sandbox.clone(),
                    entry.cut.clone(),
                );
                self.after_revoking(revoke, ip, work);
            }
            Effect::Ended {
                container,
                process,
                termination,
            } => {
                if let Some(entry) = self.table.get_mut(&container) {
                    entry.ended(process, termination);
                }
            }
            // Kept before any effect is performed.
            Effect::Persist(_) => {}
            Effect::Signal {
                request,
                container,
                process,
                signal,
            } => {
                self.signal(request, container, process, signal);
            }
            Effect::Exec(plan) => self.exec(*plan),
            Effect::ForgetProcess { container, process } => self.forget(container, process),
            Effect::Resize {
                request,
                container,
                process,
                size,
            } => {
                self.resize(request, container, process, size);
            }
            Effect::Attach(attach) => self.attach(attach),
            Effect::Tunnel {
                request,
                container,
                ip,
                port,
                stream,
                window,
            } => {
                self.tunnel(open::TunnelOrder {
                    request,
                    container,
                    ip,
                    port,
                    stream,
                    window,
                });
            }
            Effect::Allow {
                request,
                to,
                from,
                from_ip,
            } => {
                self.allowance(request, to, from, from_ip, true);
            }
            Effect::Disallow {
                request,
                to,
                from,
                from_ip,
            } => {
                self.allowance(request, to, from, from_ip, false);
            }
            Effect::Volume(work) => self.volume(*work),
            Effect::Examine { request } => self.examine(request),
        }
    }
}

/// A record cannot be written.
fn not_kept(container: ContainerId, error: &StateError) -> Refusal {
    let why = chain(error);
    tracing::error!(%container, "the container's record is not kept: {why}");
    let message = format!(
        "the node cannot keep the container's record, so what was asked may be undone by a restart: {why}. \
         Free space on the node, then ask again"
    );
    Refusal::new(RefusalCode::Unavailable, message)
}
