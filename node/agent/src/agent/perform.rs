//! Effects to tasks.
//!
//! Owner: the event loop. Invariant: nothing here waits; each effect that wants an answer has a task
//! that gives it. To add an effect: an arm in [`Agent::perform`].

mod control;
mod open;
mod volume;

use teu_node_core::Effect;
use teu_protocol::message::NodeToMaster;

use super::Agent;
use crate::{
    containers::{prepare, release, remove, wake},
    link::chain,
    state::StoredContainer,
};

impl Agent {
    pub(super) fn perform(&mut self, effect: Effect) {
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
            Effect::Persist(record) => {
                let Some(slot) = self.slot_of(&record.container) else {
                    return;
                };
                let dir = self.yard.data.container(record.container);
                if let Err(error) = dir.keep(&StoredContainer {
                    record: *record,
                    slot,
                }) {
                    tracing::error!("a container's record is not kept: {}", chain(&error));
                }
            }
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
