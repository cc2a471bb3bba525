//! What we send on a stream.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use teu_protocol::message::{Channel, ClientToMaster, StreamEnd, StreamFrame};
use tokio_util::sync::PollSender;

use super::{CloseSaid, Outgoing, SendCredit, StreamGuard, StreamOver};

/// The most bytes that one message carries: a few parts, so that streams take turns on the link
/// often (a quarter of the usual window).
pub(crate) const MAX_DATA_BYTES: usize = 256 * 1024;

/// The sending half. Credit is taken before a place in the queue, so a stream that waits for credit
/// blocks nobody.
#[derive(Debug)]
pub(crate) struct StreamWriter {
    credit: Arc<SendCredit>,
    /// Taken from `credit`, not yet used.
    taken: u64,
    /// Total of the bytes handed to the queue.
    sent: u64,
    /// Standard input: what the process was given before this stream.
    offset: u64,
    queue: PollSender<Outgoing>,
    guard: Arc<StreamGuard>,
}

impl StreamWriter {
    pub(crate) const fn new(
        credit: Arc<SendCredit>,
        queue: PollSender<Outgoing>,
        guard: Arc<StreamGuard>,
    ) -> Self {
        Self {
            credit,
            taken: 0,
            sent: 0,
            offset: 0,
            queue,
            guard,
        }
    }

    /// The first byte of standard input on this stream is the process's byte number `offset`.
    pub(crate) const fn begin_at(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// How many of the bytes that were sent the far end has taken: `first_grant` is the credit that the
    /// stream was opened with.
    pub(crate) fn taken_of(&self, first_grant: u64) -> u64 {
        let taken = self.credit.total().saturating_sub(first_grant);
        taken.min(self.sent)
    }

    /// What a frame of this channel says of its place.
    fn cursor(&self, channel: Channel) -> u64 {
        match channel {
            Channel::Stdin => self.offset + self.sent,
            _ => 0,
        }
    }

    /// Sends all of `parts`, as credit allows. If it is cancelled, what is left in `parts` was not
    /// sent.
    pub(crate) async fn send(
        &mut self,
        channel: Channel,
        parts: &mut VecDeque<Bytes>,
    ) -> Result<(), StreamOver> {
        while !parts.is_empty() {
            poll_fn(|context| self.poll_send(context, channel, parts)).await?;
        }
        Ok(())
    }

    /// Sends as much from the front of `parts` as one message and the credit allow.
    pub(crate) fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        channel: Channel,
        parts: &mut VecDeque<Bytes>,
    ) -> Poll<Result<(), StreamOver>> {
        let waiting: usize = parts.iter().map(Bytes::len).sum();
        if waiting == 0 {
            parts.clear();
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_ready(context, waiting))?;
        let mut budget = usize::try_from(self.taken)
            .unwrap_or(usize::MAX)
            .min(MAX_DATA_BYTES);
        let mut bulk = Vec::with_capacity(parts.len());
        while budget > 0 {
            let Some(mut part) = parts.pop_front() else {
                break;
            };
            let now = part.split_to(part.len().min(budget));
            budget -= now.len();
            if !part.is_empty() {
                parts.push_front(part);
            }
            bulk.push(now);
        }
        Poll::Ready(self.put(channel, bulk))
    }

    /// Sends a copy of a prefix of `bytes` and tells its length.
    pub(crate) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        channel: Channel,
        bytes: &[u8],
    ) -> Poll<Result<usize, StreamOver>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.poll_ready(context, bytes.len()))?;
        let length = bytes
            .len()
            .min(usize::try_from(self.taken).unwrap_or(usize::MAX));
        let length = length.min(MAX_DATA_BYTES);
        let copy = Bytes::copy_from_slice(bytes.get(..length).unwrap_or_default());
        Poll::Ready(self.put(channel, vec![copy]).map(|()| length))
    }

    /// Says that no more Data comes on `channel`.
    pub(crate) async fn eof(&mut self, channel: Channel) -> Result<(), StreamOver> {
        poll_fn(|context| self.poll_eof(context, channel)).await
    }

    /// As [`StreamWriter::eof`].
    pub(crate) fn poll_eof(
        &mut self,
        context: &mut Context<'_>,
        channel: Channel,
    ) -> Poll<Result<(), StreamOver>> {
        ready!(self.poll_queue(context))?;
        let frame = StreamFrame::Eof {
            stream: self.guard.stream,
            channel,
            cursor: self.cursor(channel),
        };
        Poll::Ready(self.push(frame, Vec::new()))
    }

    /// Closes the stream, behind all that was sent.
    pub(crate) async fn close(&mut self, end: StreamEnd) -> Result<(), StreamOver> {
        poll_fn(|context| self.poll_queue(context)).await?;
        let frame = StreamFrame::Close {
            stream: self.guard.stream,
            end,
        };
        self.guard.say(CloseSaid::Close);
        self.push(frame, Vec::new())
    }

    /// The far end never opened the stream: there is nothing to close.
    pub(crate) fn never_opened(self) {
        self.guard.say(CloseSaid::NeverOpened);
    }

    /// Ready when at least one byte of credit is taken and there is room in the queue.
    fn poll_ready(
        &mut self,
        context: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<Result<(), StreamOver>> {
        if self.taken == 0 {
            let wanted = wanted.min(MAX_DATA_BYTES) as u64;
            self.taken = ready!(self.credit.poll_take(context, wanted))?;
        }
        self.poll_queue(context)
    }

    fn poll_queue(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamOver>> {
        if let Some(why) = self.credit.over() {
            self.queue.abort_send();
            return Poll::Ready(Err(why));
        }
        self.queue
            .poll_reserve(context)
            .map_err(|_| StreamOver::Lost)
    }

    fn put(&mut self, channel: Channel, bulk: Vec<Bytes>) -> Result<(), StreamOver> {
        let bytes = bulk.iter().map(Bytes::len).sum::<usize>() as u64;
        let cursor = self.cursor(channel);
        self.taken -= bytes;
        self.sent += bytes;
        self.push(
            StreamFrame::Data {
                stream: self.guard.stream,
                channel,
                cursor,
                from: None,
            },
            bulk,
        )
    }

    fn push(&mut self, frame: StreamFrame, bulk: Vec<Bytes>) -> Result<(), StreamOver> {
        let message = ClientToMaster::Stream(frame);
        let outgoing = Outgoing::new(self.guard.epoch, message, bulk);
        self.queue.send_item(outgoing).map_err(|_| StreamOver::Lost)
    }
}
