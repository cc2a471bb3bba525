//! One stream of bulk bytes on the link: what a tunnel, an attached process or an upload uses.
//!
//! Owner: whoever opened it. Invariant: what the peer may send is bounded by the window that was
//! granted, and bytes count as consumed only when their [`Chunk`] is dropped, so a slow reader
//! slows its own writer and nobody else. A stream belongs to one connection (its `epoch`): when that is
//! lost, the stream says [`StreamItem::Lost`] and its owner opens another one.
//!
//! ```text
//! SessionTask ──StreamItem──▶ StreamReader      StreamWriter ──Outgoing──▶ Outbox
//!      ▲                           │ Chunk dropped                          ▲
//!      └──Notice (guard dropped)   └────────Credit──────────────────────────┘
//! ```
//! Next: [`crate::session`] opens streams and hands out what arrives.

mod credit;
mod reader;
mod unread;
mod window;
mod writer;

pub(crate) use credit::SendCredit;
pub(crate) use reader::{Chunk, StreamItem, StreamReader};
pub(crate) use unread::Unread;
pub(crate) use window::{RecvWindow, WindowBudget};
pub(crate) use writer::StreamWriter;

use bytes::Bytes;
use teu_protocol::{ids::StreamId, message::ClientToMaster};
use tokio::sync::{mpsc, oneshot};

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

/// Nothing more can be sent on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamOver {
    /// It was closed by either side.
    Ended,
    /// The link that carried it is gone; what the peer got of it is unknown.
    Lost,
}

/// Something for the link, made for the connection number `epoch`: on any other it is dropped.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) epoch: u64,
    pub(crate) message: ClientToMaster,
    pub(crate) bulk: Vec<Bytes>,
    /// Told when it was handed to the transport.
    pub(crate) sent: Option<oneshot::Sender<()>>,
}

impl Outgoing {
    pub(crate) const fn new(epoch: u64, message: ClientToMaster, bulk: Vec<Bytes>) -> Self {
        Self {
            epoch,
            message,
            bulk,
            sent: None,
        }
    }
}

/// Both halves of an open stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) reader: StreamReader,
    pub(crate) writer: StreamWriter,
}

/// Tells the session when nobody holds a stream any more.
#[derive(Debug)]
pub(crate) struct StreamGuard {
    pub(crate) stream: StreamId,
    pub(crate) epoch: u64,
    /// A [`CloseSaid`].
    said: AtomicU8,
    notices: mpsc::UnboundedSender<Notice>,
}

/// Nobody holds this stream any more. (Unbounded channel, bounded by the number of open streams.)
#[derive(Debug, Clone, Copy)]
pub(crate) struct Notice {
    pub(crate) stream: StreamId,
    pub(crate) said: CloseSaid,
}

/// What its owner has said of a stream's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum CloseSaid {
    /// Nothing: the session says Close.
    Nothing,
    /// Close: it is in the queue, or beyond.
    Close,
    /// The far end never opened the stream: nothing is to be said.
    NeverOpened,
}

impl StreamGuard {
    pub(crate) fn new(
        stream: StreamId,
        epoch: u64,
        notices: mpsc::UnboundedSender<Notice>,
    ) -> Arc<Self> {
        Arc::new(Self {
            stream,
            epoch,
            said: AtomicU8::new(CloseSaid::Nothing as u8),
            notices,
        })
    }

    fn say(&self, said: CloseSaid) {
        self.said.store(said as u8, Ordering::Release);
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let said = match self.said.load(Ordering::Acquire) {
            said if said == CloseSaid::Close as u8 => CloseSaid::Close,
            said if said == CloseSaid::NeverOpened as u8 => CloseSaid::NeverOpened,
            _ => CloseSaid::Nothing,
        };
        let notice = Notice {
            stream: self.stream,
            said,
        };
        // The session may be over: then there is nobody to tell.
        let _ = self.notices.send(notice);
    }
}
