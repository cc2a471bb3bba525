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
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use teu_master_core::effect::StreamEndpoint;
use teu_protocol::{
    flow::{Overgrant, Overrun, SendWindow},
    ids::StreamId,
    message::{Refusal, RefusalCode, StreamEnd, StreamFrame},
};

use crate::{
    layers::{Download, Upload},
    peer::{Peer, node_reads_too_slowly},
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
    credit: Mutex<SendWindow>,
}

impl Side {
    fn spend(&self, bytes: u64) -> Result<(), Overrun> {
        self.credit().spend(bytes)
    }

    fn grant(&self, bytes: u64) -> Result<(), Overgrant> {
        self.credit().grant(bytes)
    }

    fn credit(&self) -> MutexGuard<'_, SendWindow> {
        self.credit.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
            credit: Mutex::new(SendWindow::new(end.window)),
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
                if receiver.spend(bytes).is_err() {
                    return self.break_off(&broken_rules());
                }
            }
            StreamFrame::Credit { bytes, .. } => {
                if sender.grant(*bytes).is_err() {
                    return self.break_off(&broken_rules());
                }
                receiver.peer.outbox.push_credit(receiver.stream, *bytes);
                return Forwarded::Sent;
            }
            StreamFrame::Eof { .. } => {}
            StreamFrame::Close { end, .. } => {
                if !self.unlink() {
                    return Forwarded::Ignored;
                }
                receiver.peer.push_close(receiver.stream, end.clone());
                return Forwarded::Closed;
            }
        }
        let frame = frame.renumbered(receiver.stream);
        if receiver.peer.push_frame(frame, bulk) {
            Forwarded::Queued
        } else {
            self.break_off(&node_reads_too_slowly())
        }
    }

    /// Ends the stream on both sides, for this reason. `false` if it was over already.
    pub(crate) fn end(&self, reason: &Refusal) -> bool {
        let first = self.unlink();
        if first {
            for side in [&self.client, &self.node] {
                let end = StreamEnd::Failed(reason.clone());
                side.peer.push_close(side.stream, end);
            }
        }
        first
    }

    /// The stream's number and connection at one of its sides, as the core knows it.
    pub(crate) fn client_side(&self) -> (teu_master_core::ConnectionId, StreamId) {
        (self.client.peer.id, self.client.stream)
    }

    fn break_off(&self, reason: &Refusal) -> Forwarded {
        if self.end(reason) {
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
        for side in [&self.client, &self.node] {
            side.peer.streams.remove(side.stream);
            side.peer.outbox.forget_credit(side.stream);
        }
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
