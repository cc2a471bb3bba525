//! What arrives on a stream.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use teu_protocol::message::{Channel, StreamEnd};
use tokio::sync::mpsc;

use super::{RecvWindow, StreamGuard};

/// Bytes that arrived together. They count against the stream's window until this is dropped.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) channel: Channel,
    /// Process output: where the next byte is in the process's log.
    pub(crate) cursor: u64,
    /// Process output: where its first byte is.
    pub(crate) from: Option<u64>,
    parts: VecDeque<Bytes>,
    bytes: u64,
    window: Arc<RecvWindow>,
}

impl Chunk {
    /// `bytes` is the sum of the parts, already counted by [`RecvWindow::receive`].
    pub(crate) fn new(
        channel: Channel,
        cursor: u64,
        parts: Vec<Bytes>,
        bytes: u64,
        window: Arc<RecvWindow>,
    ) -> Self {
        Self {
            channel,
            cursor,
            from: None,
            parts: parts.into(),
            bytes,
            window,
        }
    }

    /// Process output that begins there.
    pub(crate) const fn from(mut self, cursor: Option<u64>) -> Self {
        self.from = cursor;
        self
    }

    /// It only tells a cursor.
    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// All that is left, as one.
    pub(crate) fn joined(&self) -> Bytes {
        match self.parts.len() {
            1 => self.parts.front().cloned().unwrap_or_default(),
            _ => self.parts.iter().flatten().copied().collect(),
        }
    }

    /// Takes the first of what is left.
    pub(crate) fn next_part(&mut self) -> Option<Bytes> {
        self.parts.pop_front()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.window.consume(self.bytes);
    }
}

/// What can arrive.
#[derive(Debug)]
pub(crate) enum StreamItem {
    Data(Chunk),
    /// No more Data on some channel.
    Eof,
    /// The peer closed the stream; nothing follows.
    End(StreamEnd),
    /// The link is gone; nothing follows.
    Lost,
}

/// The receiving half. (Its channel is unbounded; [`RecvWindow`] bounds what is in it.)
#[derive(Debug)]
pub(crate) struct StreamReader {
    items: mpsc::UnboundedReceiver<StreamItem>,
    window: Arc<RecvWindow>,
    _guard: Arc<StreamGuard>,
}

impl StreamReader {
    pub(crate) const fn new(
        items: mpsc::UnboundedReceiver<StreamItem>,
        window: Arc<RecvWindow>,
        guard: Arc<StreamGuard>,
    ) -> Self {
        Self {
            items,
            window,
            _guard: guard,
        }
    }

    /// The next item; [`StreamItem::Lost`] again and again when the stream is over. Cancel-safe.
    pub(crate) async fn next(&mut self) -> StreamItem {
        self.items.recv().await.unwrap_or(StreamItem::Lost)
    }

    /// As [`StreamReader::next`].
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<StreamItem> {
        self.items
            .poll_recv(context)
            .map(|item| item.unwrap_or(StreamItem::Lost))
    }

    pub(crate) const fn window(&self) -> &Arc<RecvWindow> {
        &self.window
    }
}
