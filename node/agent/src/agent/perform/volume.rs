//! Work on volumes, to the worker and the transfers.
//!
//! Owner: the event loop. Invariant: each ticket is ended once.

use teu_node_core::{Input, volume::VolumeWork};
use teu_protocol::message::{Refusal, RefusalCode};

use crate::agent::{Agent, Event};

impl Agent {
    pub(super) fn volume(&self, work: VolumeWork) {
        let refusal = Refusal::new(RefusalCode::Faulted, "the node has no pool of volumes");
        let ticket = work.ticket;
        let input = Input::VolumeDone {
            ticket,
            result: Err(refusal),
        };
        let events = self.yard.events.clone();
        tokio::spawn(async move { events.send(Event::Core(input)).await });
    }
}
