//! What every connection's task needs of the server.
//!
//! Owner: the server, shared read-only. Invariant: nothing mutable lives here but counters.

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admission::Admission, broker::BrokerHandle, clock::Clock, connection::spares::ReadBuffers,
    gate::Gate, inflow::Inflow, outbox::Budget,
};

#[derive(Debug)]
pub(crate) struct House {
    pub(crate) gate: Gate,
    pub(crate) admission: Arc<Admission>,
    pub(crate) broker: BrokerHandle,
    pub(crate) budget: Budget,
    pub(crate) inflow: Arc<Inflow>,
    pub(crate) read_buffers: ReadBuffers,
    pub(crate) clock: Clock,
    pub(crate) tasks: TaskTracker,
    /// No new connections; the broker says goodbye.
    pub(crate) stop: CancellationToken,
    /// Everything ends now.
    pub(crate) abort: CancellationToken,
}
