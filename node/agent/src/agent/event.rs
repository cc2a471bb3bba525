//! All that can wake the event loop: a closed list.
//!
//! Owner: the loop; links, keepers' watchers and tasks send these. To add one: a variant here and an
//! arm in `perform`.

use bytes::Bytes;
use teu_node_core::Input;
use teu_protocol::{
    ids::{ContainerId, Digest, RequestId},
    message::{NodeRequest, NodeUsage, Refusal},
};
use tokio::sync::oneshot;

use crate::{containers::Sandbox, keeper::KeeperEvent, link::LinkUp};

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// READY came.
    LinkUp(Box<LinkUp>),
    /// The link ended.
    LinkDown {
        /// Why.
        reason: String,
    },
    /// The master orders.
    Order {
        /// What.
        request: Box<NodeRequest>,
        /// Its bulk parts.
        bulk: Vec<Bytes>,
    },
    /// A keeper tells.
    Keeper {
        /// Whose.
        container: ContainerId,
        /// What.
        event: KeeperEvent,
    },
    /// A container is ready, or nothing of it is left.
    Prepared {
        /// Which.
        container: ContainerId,
        /// Where it runs.
        result: Result<Sandbox, Refusal>,
    },
    /// A stream can begin.
    Opened {
        /// The order to answer.
        request: RequestId,
        /// The credit granted, how much of the client's input there is (if that is known), and the
        /// stream's task, which waits for the reply to leave.
        result: Result<(u64, Option<u64>, oneshot::Sender<()>), Refusal>,
    },
    /// For the core as it is.
    Core(Input),
    /// Somebody waits until all earlier events were taken, and what they gave rise to has left for the
    /// master (or there is no link).
    Reached(oneshot::Sender<()>),
    /// A layer was extracted.
    LayerReady(Digest),
    /// The machine was measured.
    Measured(NodeUsage),
    /// The agent is asked to end.
    Stop,
    /// A task that never ends has ended.
    Failed(teu_daemon::tasks::Ended),
}
