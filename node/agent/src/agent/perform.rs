//! Effects to tasks.
//!
//! Owner: the event loop. Invariants: nothing here waits; each effect that wants an answer has a task
//! that gives it; records are kept before anything else of the same input is performed. To add an effect: an arm in [`Agent::perform`].

mod control;
mod open;
mod volume;

use std::collections::BTreeSet;

use teu_node_core::{Effect, record::ContainerRecord};
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
        let mut changed = BTreeSet::new();
        for effect in &effects {
            if let Effect::Persist(record) = effect {
                changed.insert(record.container);
                self.records.changed((**record).clone());
            }
        }
        let kept = self.keep_records(&changed);
        for effect in effects {
            self.perform(unless_lost(effect, &kept));
        }
    }

    /// Writes the records that changed. Those that could not be written are tried with each event; the
    /// refusal is for those of this one.
    fn keep_records(&mut self, changed: &BTreeSet<ContainerId>) -> Result<(), Refusal> {
        let mut outcome = Ok(());
        for (record, durably) in self.records.take() {
            match self.keep_record(&record, durably) {
                Ok(()) => self.records.kept(&record),
                Err(error) => {
                    if changed.contains(&record.container) {
                        outcome = Err(not_kept(record.container, &error));
                    }
                    self.records.failed(record);
                }
            }
        }
        outcome
    }

    fn keep_record(&self, record: &ContainerRecord, durably: bool) -> Result<(), StateError> {
        let Some(slot) = self.slot_of(&record.container)? else {
            // It is not ready: what prepares it writes its record.
            return Ok(());
        };
        let dir = self.yard.data.container(record.container);
        let stored = StoredContainer {
            record: record.clone(),
            slot,
        };
        if durably {
            dir.keep_durably(&stored)
        } else {
            dir.keep(&stored)
        }
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
            Effect::RemoveLayers(digests) => self.yard.layers.discard(&digests),
            Effect::ReleaseReaders {
                container,
                attachment,
            } => self.release_readers(container, attachment),
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

/// Nobody is told that something was done if a restart would undo it.
fn unless_lost(effect: Effect, kept: &Result<(), Refusal>) -> Effect {
    match (effect, kept) {
        (Effect::Reply { id, result: Ok(_) }, Err(refusal)) => Effect::Reply {
            id,
            result: Err(refusal.clone()),
        },
        (effect, _) => effect,
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

#[cfg(test)]
mod tests {
    use teu_protocol::{ids::RequestId, message::NodeReplyBody};

    use super::*;

    #[test]
    fn nothing_is_answered_that_a_restart_would_undo() {
        let error = StateError::Io {
            action: "write",
            path: "record.mp".into(),
            source: std::io::ErrorKind::StorageFull.into(),
        };
        let lost = Err(not_kept(ContainerId::from_bytes([1; 16]), &error));
        let reply = |result| Effect::Reply {
            id: RequestId::from_bytes([2; 16]),
            result,
        };
        let done = reply(Ok(NodeReplyBody::Done));
        let Effect::Reply { result, .. } = unless_lost(done.clone(), &lost) else {
            panic!("still a reply");
        };
        let refusal = result.unwrap_err();
        assert!(
            refusal.retryable && refusal.message.contains("Free space"),
            "{refusal}"
        );
        assert_eq!(unless_lost(done.clone(), &Ok(())), done);
        let refused = reply(Err(Refusal::new(RefusalCode::NotFound, "no")));
        assert_eq!(unless_lost(refused.clone(), &lost), refused);
        assert_eq!(unless_lost(Effect::Report, &lost), Effect::Report);
    }
}
