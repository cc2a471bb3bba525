//! An authenticated connection, as the rest of the daemon sees it.
//!
//! Owner: the connection's tasks; the core loop and routes hold handles. Invariant: `key` was proven
//! by the handshake, everything else about a peer is what the core granted.
//! Next: [`crate::connection`] runs it.

use std::sync::{Arc, Mutex, PoisonError};

use teu_master_core::ConnectionId;
use teu_protocol::{
    ids::PublicKey,
    message::{MasterToClient, MasterToNode, Refusal, RefusalCode, Role, StreamFrame},
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    bounds::{CLIENT_OUTBOX_BYTES, NODE_HIGH_WATER_BYTES, NODE_OUTBOX_BYTES},
    outbox::{Budget, Outbox, Pushed},
    stream::StreamTable,
};

/// What the core made of a peer that authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is being talked to: READY or `Closing` waits in the outbox.
    Accepted,
    /// Its key, role or session is none that may connect.
    Rejected,
}

/// One connected peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: ConnectionId,
    pub(crate) key: PublicKey,
    pub(crate) role: Role,
    pub(crate) outbox: Outbox,
    pub(crate) streams: StreamTable,
    /// Ends the connection's tasks.
    pub(crate) gone: CancellationToken,
    verdict: Mutex<Option<oneshot::Sender<Verdict>>>,
}

impl Peer {
    /// A peer that waits for the core's verdict.
    pub(crate) fn new(
        id: ConnectionId,
        key: PublicKey,
        role: Role,
        budget: Budget,
        gone: CancellationToken,
    ) -> (Arc<Self>, oneshot::Receiver<Verdict>) {
        let (verdict, decided) = oneshot::channel();
        let outbox = match role {
            Role::Client => Outbox::new(CLIENT_OUTBOX_BYTES, CLIENT_OUTBOX_BYTES, true, budget),
            Role::Node => Outbox::new(NODE_OUTBOX_BYTES, NODE_HIGH_WATER_BYTES, false, budget),
        };
        let streams = StreamTable::default();
        let verdict = Mutex::new(Some(verdict));
        (
            Arc::new(Self {
                id,
                key,
                role,
                outbox,
                streams,
                gone,
                verdict,
            }),
            decided,
        )
    }

    /// Tells the connection's task what the core decided; only the first decision counts.
    pub(crate) fn decide(&self, verdict: Verdict) {
        let waiting = self
            .verdict
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(waiting) = waiting {
            // A connection that is gone needs no verdict.
            let _ = waiting.send(verdict);
        }
    }

    /// Queues a stream frame that must stay in the order of its stream: everything but Credit.
    /// The caller wakes the outbox.
    pub(crate) fn push_frame(&self, frame: StreamFrame, bulk: Vec<bytes::Bytes>) {
        let pushed = match self.role {
            Role::Client => self.outbox.push_bulk(&MasterToClient::Stream(frame), bulk),
            Role::Node => self.outbox.push_bulk(&MasterToNode::Stream(frame), bulk),
        };
        self.note(pushed);
    }

    /// Sends a Credit frame at once.
    pub(crate) fn push_credit(&self, frame: StreamFrame) {
        let pushed = match self.role {
            Role::Client => self
                .outbox
                .push_control(&MasterToClient::Stream(frame), Vec::new()),
            Role::Node => self
                .outbox
                .push_control(&MasterToNode::Stream(frame), Vec::new()),
        };
        self.note(pushed);
    }

    /// Sends `Closing` as the last message.
    pub(crate) fn close(&self, reason: Refusal) {
        match self.role {
            Role::Client => self.outbox.finish(&MasterToClient::Closing(reason)),
            Role::Node => self.outbox.finish(&MasterToNode::Closing(reason)),
        }
    }

    /// Acts on an overflow: the peer grants credit or asks, and does not read.
    pub(crate) fn note(&self, pushed: Pushed) {
        if pushed == Pushed::Overflow {
            tracing::warn!(
                connection = self.id.0,
                "closed: it does not read what it asked for"
            );
            self.gone.cancel();
        }
    }
}

/// Why a stream ended when its other side vanished.
pub(crate) fn other_side_gone() -> Refusal {
    Refusal::new(
        RefusalCode::NodeLost,
        "The stream's other side is no longer connected. Open the stream again.",
    )
}
