//! An authenticated connection, as the rest of the daemon sees it.
//!
//! Owner: the connection's tasks; the core loop and routes hold handles. Invariant: `key` was proven
//! by the handshake, everything else about a peer is what the core granted.
//! Next: [`crate::connection`] runs it.

use std::sync::{Arc, Mutex, PoisonError};

use teu_master_core::ConnectionId;
use teu_protocol::{
    ids::{PublicKey, StreamId},
    message::{MasterToClient, MasterToNode, Refusal, RefusalCode, Role, StreamEnd, StreamFrame},
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
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
        let outbox = Outbox::new(role, budget);
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
    /// `false` if too much waits for this node. The caller wakes the outbox.
    #[must_use]
    pub(crate) fn push_frame(&self, frame: StreamFrame, bulk: Vec<bytes::Bytes>) -> bool {
        let pushed = self.outbox.push_frame(frame, bulk);
        self.note(pushed);
        pushed != Pushed::Full
    }

    /// Queues a stream's last word and wakes the outbox. There is always room for it.
    pub(crate) fn push_close(&self, stream: StreamId, end: StreamEnd) {
        let pushed = self
            .outbox
            .push_frame(StreamFrame::Close { stream, end }, Vec::new());
        self.note(pushed);
        self.outbox.wake();
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

/// Why a stream ended whose node has too much waiting to be read.
pub(crate) fn node_reads_too_slowly() -> Refusal {
    Refusal::new(
        RefusalCode::Unavailable,
        "The stream was closed because its node reads too slowly: too much waits for it. Try again.",
    )
}

/// Why a stream ended when its other side vanished.
pub(crate) fn other_side_gone() -> Refusal {
    Refusal::new(
        RefusalCode::NodeLost,
        "The stream's other side is no longer connected. Open the stream again.",
    )
}
