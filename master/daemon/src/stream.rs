//! The data plane: where a stream's frames go, looked up by the connection that received them.
//!
//! ```text
//!   reader of A ──frame on stream a──▶ A's table ──▶ Route ──renumbered──▶ outbox of B ──▶ writer of B
//! ```
//! Owner: each [`Peer`] has its table; the core loop adds and removes routes, readers follow them.
//! Invariants: a route is in both tables or in none that matters (`closed` decides, once); no more
//! Data goes towards a side than it granted; the core's loop sees none of this. No lock is held
//! while another is taken, or across an await. Next: [`crate::layers`] for streams that end here.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use teu_master_core::effect::StreamEndpoint;
use teu_protocol::{
    ids::StreamId,
    message::{Refusal, RefusalCode, StreamEnd, StreamFrame},
};

use crate::{
    bounds::MAX_WINDOW_BYTES,
    layers::{Download, Upload},
    peer::Peer,
};

/// What a stream of a connection is.
#[derive(Debug, Clone)]
pub(crate) enum Stream {
    /// Forwarded to another connection.
    Routed(Arc<Route>, SideName),
    /// A blob that comes in.
    Upload(Arc<Upload>),
    /// A blob that goes out.
    Download(Arc<Download>),
}

/// One connection's streams.
#[derive(Debug, Default)]
pub(crate) struct StreamTable {
    streams: Mutex<HashMap<StreamId, Stream>>,
}

impl StreamTable {
    pub(crate) fn get(&self, id: StreamId) -> Option<Stream> {
        self.lock().get(&id).cloned()
    }

    /// Adds a stream. One of the same number is replaced; the core never lets that happen.
    pub(crate) fn insert(&self, id: StreamId, stream: Stream) -> Option<Stream> {
        self.lock().insert(id, stream)
    }

    pub(crate) fn remove(&self, id: StreamId) -> Option<Stream> {
        self.lock().remove(&id)
    }

    /// Empties the table: the connection is gone.
    pub(crate) fn drain(&self) -> Vec<Stream> {
        self.lock().drain().map(|(_, stream)| stream).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamId, Stream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which side of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SideName {
    Client,
    Node,
}

impl SideName {
    const fn other(self) -> Self {
        match self {
            Self::Client => Self::Node,
            Self::Node => Self::Client,
        }
    }
}

/// One side of a route.
#[derive(Debug)]
struct Side {
    peer: Arc<Peer>,
    stream: StreamId,
    /// Bytes that this side may still be sent.
    credit: Credit,
}

/// Two streams that are one.
#[derive(Debug)]
pub(crate) struct Route {
    client: Side,
    node: Side,
    closed: AtomicBool,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forwarded {
    /// It is queued; the other side's outbox wants waking.
    Queued,
    /// It was Credit, and is under way.
    Sent,
    /// The stream is over: the core must hear of it.
    Closed,
    /// The stream was over already.
    Ignored,
}

impl Route {
    /// Makes a route and enters it into both tables.
    pub(crate) fn open(
        (client, client_end): (Arc<Peer>, StreamEndpoint),
        (node, node_end): (Arc<Peer>, StreamEndpoint),
    ) {
        let side = |peer: Arc<Peer>, end: StreamEndpoint| Side {
            peer,
            stream: end.stream,
            credit: Credit::new(end.window),
        };
        let route = Arc::new(Self {
            client: side(client, client_end),
            node: side(node, node_end),
            closed: AtomicBool::new(false),
        });
        for name in [SideName::Client, SideName::Node] {
            let side = route.side(name);
            let stream = Stream::Routed(Arc::clone(&route), name);
            if let Some(replaced) = side.peer.streams.insert(side.stream, stream) {
                tracing::error!(stream = %side.stream, "a stream number was used twice");
                end_locally(replaced, &broken_rules());
            }
        }
    }

    /// The peer that frames from `from` go to.
    pub(crate) fn towards(&self, from: SideName) -> &Arc<Peer> {
        &self.side(from.other()).peer
    }

    /// Forwards a frame that came from `from`.
    pub(crate) fn forward(
        &self,
        from: SideName,
        frame: StreamFrame,
        bulk: Vec<Bytes>,
    ) -> Forwarded {
        let (sender, receiver) = (self.side(from), self.side(from.other()));
        match &frame {
            StreamFrame::Data { .. } => {
                let bytes = bulk.iter().map(Bytes::len).sum::<usize>() as u64;
                if self.is_closed() {
                    return Forwarded::Ignored;
                }
                if !receiver.credit.spend(bytes) {
                    return self.break_off();
                }
            }
            StreamFrame::Credit { bytes, .. } => {
                if !sender.credit.grant(*bytes) {
                    return self.break_off();
                }
                receiver.peer.push_credit(frame.renumbered(receiver.stream));
                return Forwarded::Sent;
            }
            StreamFrame::Eof { .. } => {}
            StreamFrame::Close { .. } => {
                if !self.unlink() {
                    return Forwarded::Ignored;
                }
                receiver
                    .peer
                    .push_frame(frame.renumbered(receiver.stream), Vec::new());
                receiver.peer.outbox.wake();
                return Forwarded::Closed;
            }
        }
        receiver
            .peer
            .push_frame(frame.renumbered(receiver.stream), bulk);
        Forwarded::Queued
    }

    /// Ends the stream on both sides, for this reason. `false` if it was over already.
    pub(crate) fn end(&self, reason: &Refusal) -> bool {
        let first = self.unlink();
        if first {
            for side in [&self.client, &self.node] {
                let end = StreamEnd::Failed(reason.clone());
                side.peer.push_frame(
                    StreamFrame::Close {
                        stream: side.stream,
                        end,
                    },
                    Vec::new(),
                );
                side.peer.outbox.wake();
            }
        }
        first
    }

    /// The stream's number and connection at one of its sides, as the core knows it.
    pub(crate) fn client_side(&self) -> (teu_master_core::ConnectionId, StreamId) {
        (self.client.peer.id, self.client.stream)
    }

    fn break_off(&self) -> Forwarded {
        if self.end(&broken_rules()) {
            Forwarded::Closed
        } else {
            Forwarded::Ignored
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Takes the route out of both tables; `true` for whoever is first.
    fn unlink(&self) -> bool {
        if self.closed.swap(true, Ordering::AcqRel) {
            return false;
        }
        self.client.peer.streams.remove(self.client.stream);
        self.node.peer.streams.remove(self.node.stream);
        true
    }

    const fn side(&self, name: SideName) -> &Side {
        match name {
            SideName::Client => &self.client,
            SideName::Node => &self.node,
        }
    }
}

/// Ends a stream from the daemon's side, with Close to whoever is still connected.
pub(crate) fn end_locally(stream: Stream, reason: &Refusal) {
    match stream {
        Stream::Routed(route, _) => {
            route.end(reason);
        }
        Stream::Upload(upload) => upload.cancel(),
        Stream::Download(download) => download.cancel(),
    }
}

/// Why a stream ended whose side sent more than it may, or granted without bound.
pub(crate) fn broken_rules() -> Refusal {
    Refusal::new(
        RefusalCode::BadRequest,
        "The stream was closed because one side did not keep to its credit. \
         This is a defect of that program.",
    )
}

/// Bytes that may be sent towards somebody.
#[derive(Debug)]
pub(crate) struct Credit(AtomicU64);

impl Credit {
    /// What was granted when the stream was opened, at most [`MAX_WINDOW_BYTES`].
    pub(crate) fn new(window: u64) -> Self {
        Self(AtomicU64::new(window.min(MAX_WINDOW_BYTES)))
    }

    /// Takes all of `bytes`, or nothing.
    pub(crate) fn spend(&self, bytes: u64) -> bool {
        let spent = |credit: u64| credit.checked_sub(bytes);
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, spent)
            .is_ok()
    }

    /// Takes what there is, up to `most`.
    pub(crate) fn spend_up_to(&self, most: u64) -> u64 {
        let spent = |credit: u64| Some(credit - credit.min(most));
        let before = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, spent);
        before.unwrap_or_default().min(most)
    }

    /// Adds; `false` (and nothing added) if more than [`MAX_WINDOW_BYTES`] were outstanding.
    pub(crate) fn grant(&self, bytes: u64) -> bool {
        let granted = |credit: u64| {
            credit
                .checked_add(bytes)
                .filter(|sum| *sum <= MAX_WINDOW_BYTES)
        };
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, granted)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_is_never_overspent_and_never_unbounded() {
        let credit = Credit::new(100);
        assert!(credit.spend(60));
        assert!(!credit.spend(41), "only 40 are left");
        assert_eq!(credit.spend_up_to(1000), 40);
        assert!(!credit.spend(1));
        assert!(credit.grant(MAX_WINDOW_BYTES));
        assert!(!credit.grant(1), "the window is full");
        assert!(!credit.grant(u64::MAX), "no overflow");
    }

    #[test]
    fn an_opening_window_is_clamped() {
        let credit = Credit::new(u64::MAX);
        assert!(credit.spend(MAX_WINDOW_BYTES));
        assert!(!credit.spend(1));
    }
}
