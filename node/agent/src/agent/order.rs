//! Events to inputs, and what the loop itself has to know of them.
//!
//! Owner: the event loop.

use teu_node_core::Input;
use teu_protocol::message::{NodeEvent, NodeReplyBody, NodeToMaster};

use super::{Agent, Event};
use crate::{containers::process_end, keeper::KeeperEvent};

impl Agent {
    /// Takes an event.
    pub(super) fn take(&mut self, event: Event) {
        match event {
            Event::Order { request, bulk } => self.input(Input::Order { request, bulk }),
            Event::Keeper { container, event } => self.keeper_told(container, &event),
            Event::Core(input) => self.core_told(input),
            Event::Reached(waiting) => {
                // No link: nothing is said, and nobody hears of a stream's end.
                if let Some(outbox) = &self.outbox {
                    let _ = outbox.then(waiting);
                }
            }
            Event::Prepared { container, result } => {
                let result = result.map(|sandbox| {
                    let ip = sandbox.net.ip;
                    if let Some(entry) = self.table.get_mut(&container) {
                        entry.sandbox = Some(sandbox);
                    }
                    ip
                });
                let failed = result.is_err();
                self.input(Input::Prepared { container, result });
                if failed {
                    self.table.remove(&container);
                    self.records.forget(container);
                }
            }
            Event::Opened { request, result } => {
                let result = result.map(|(window, input, start)| {
                    self.starts.insert(request, start);
                    NodeReplyBody::Opened { window, input }
                });
                self.input(Input::Answered { request, result });
                // Still there: nobody waits for the answer any more, so nothing begins.
                self.starts.remove(&request);
            }
            Event::LayerReady(digest) => {
                self.say(NodeToMaster::Event(Box::new(NodeEvent::LayerReady(digest))));
            }
            Event::Measured(usage) => self.measured(usage),
            Event::LinkDown { reason } => {
                tracing::warn!("the link to the master is lost: {reason}");
                self.link.send_replace(None);
                self.outbox = None;
                self.starts.clear();
                self.input(Input::LinkDown);
            }
            // These are the loop's own.
            Event::LinkUp(_) | Event::Stop | Event::Failed(_) => {}
        }
    }

    fn keeper_told(&mut self, container: teu_protocol::ids::ContainerId, event: &KeeperEvent) {
        let Some(entry) = self.table.get_mut(&container) else {
            return;
        };
        entry.keeper_told(event);
        if let KeeperEvent::Exited { process, exit, .. } = *event {
            let end = process_end(exit);
            self.input(if process == container.main_process() {
                Input::Exited { container, end }
            } else {
                Input::ProcessEnded {
                    container,
                    process,
                    end,
                }
            });
        }
    }

    fn core_told(&mut self, input: Input) {
        let (released, removed) = match &input {
            Input::Released { container } => (Some(*container), None),
            Input::Removed {
                container,
                result: Ok(()),
            } => (None, Some(*container)),
            _ => (None, None),
        };
        if let Some(entry) = released.and_then(|id| self.table.get_mut(&id)) {
            entry.sandbox = None;
        }
        self.input(input);
        if let Some(id) = removed {
            self.table.remove(&id);
            self.records.forget(id);
        }
    }
}
