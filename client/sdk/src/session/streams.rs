//! The streams that are open on the present connection, and what may still be opened.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use teu_protocol::{
    flow::MAX_WINDOW_BYTES,
    ids::StreamId,
    message::{RefusalCode, SessionLimits, StreamEnd, StreamFrame},
};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use super::command::StreamAsk;
use crate::stream::{
    Chunk, CloseSaid, Notice, Outgoing, RecvWindow, SendCredit, Stream, StreamGuard, StreamItem,
    StreamOver, StreamReader, StreamWriter, WindowBudget,
};

#[derive(Debug)]
struct Entry {
    items: mpsc::UnboundedSender<StreamItem>,
    window: Arc<RecvWindow>,
    credit: Arc<SendCredit>,
    abandoned: StreamEnd,
    /// Somebody holds the stream.
    is_held: bool,
    /// Our Close is on the link: whatever is asked for now comes behind it.
    close_sent: bool,
    /// Held until the answer says that the stream is open.
    unopened: Option<Stream>,
}

/// The peer said something about a stream that it may not say; the connection is not to be trusted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StreamOffence(pub(super) &'static str);

/// The table.
#[derive(Debug)]
pub(super) struct Streams {
    entries: HashMap<StreamId, Entry>,
    /// Counts up over the whole life of the session, so that no number is ever used twice.
    last: u64,
    /// What the streams of the present connection share; made with its first stream.
    budget: Option<Arc<WindowBudget>>,
    notices: mpsc::UnboundedSender<Notice>,
}

impl Streams {
    pub(super) fn new(notices: mpsc::UnboundedSender<Notice>) -> Self {
        Self {
            entries: HashMap::new(),
            last: 0,
            budget: None,
            notices,
        }
    }

    /// Whether the limits allow one more stream now. Each that they allow has a window.
    pub(super) fn has_room(&self, limits: &SessionLimits) -> bool {
        self.entries.len() < limits.streams as usize
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A number and a window for a new stream; `None` if the limits leave no room now.
    pub(super) fn reserve(
        &mut self,
        ask: &StreamAsk,
        epoch: u64,
        limits: &SessionLimits,
        control: &mpsc::UnboundedSender<Outgoing>,
        bulk: &mpsc::Sender<Outgoing>,
    ) -> Option<(StreamId, u64)> {
        if !self.has_room(limits) {
            return None;
        }
        let budget = self.budget.get_or_insert_with(|| WindowBudget::new(limits));
        let budget = Arc::clone(budget);
        let window = if ask.receives() { budget.base() } else { 0 };
        self.last += 1;
        let id = StreamId(self.last);
        let (items, items_rx) = mpsc::unbounded_channel();
        let window_state = RecvWindow::new(id, epoch, window, budget, control.clone());
        let window_state = Arc::new(window_state);
        let credit = Arc::new(SendCredit::default());
        let guard = StreamGuard::new(id, epoch, self.notices.clone());
        let reader = StreamReader::new(items_rx, Arc::clone(&window_state), Arc::clone(&guard));
        let writer = StreamWriter::new(Arc::clone(&credit), PollSender::new(bulk.clone()), guard);
        let stream = Stream { reader, writer };
        let entry = Entry {
            items,
            window: window_state,
            credit,
            abandoned: ask.abandoned(),
            is_held: true,
            close_sent: false,
            unopened: Some(stream),
        };
        self.entries.insert(id, entry);
        Some((id, window))
    }

    /// The location opened the stream and grants `credit`.
    pub(super) fn opened(&mut self, id: StreamId, credit: u64) -> Option<Stream> {
        let entry = self.entries.get_mut(&id)?;
        // On a stream that is new all that may be outstanding fits.
        let _ = entry.credit.grant(credit.min(MAX_WINDOW_BYTES));
        entry.unopened.take()
    }

    /// Takes in a frame. Frames about streams that are over cross ours on the way: ignored.
    pub(super) fn receive(
        &mut self,
        frame: StreamFrame,
        bulk: Vec<Bytes>,
    ) -> Result<(), StreamOffence> {
        let id = frame.stream();
        if id.0 == 0 || id.0 > self.last {
            return Err(StreamOffence("it named a stream that was never opened"));
        }
        let Some(entry) = self.entries.get(&id) else {
            return Ok(());
        };
        let item = match frame {
            StreamFrame::Data {
                channel,
                cursor,
                from,
                ..
            } => {
                let bytes = bulk.iter().map(Bytes::len).sum::<usize>() as u64;
                if !entry.window.receive(bytes) {
                    return Err(StreamOffence("it sent more than it was granted"));
                }
                let window = Arc::clone(&entry.window);
                StreamItem::Data(Chunk::new(channel, cursor, bulk, bytes, window).from(from))
            }
            StreamFrame::Credit { bytes, .. } => {
                let granted = entry.credit.grant(bytes);
                return granted
                    .map_err(|_| StreamOffence("it granted more than a stream may have"));
            }
            StreamFrame::Eof { .. } => StreamItem::Eof,
            StreamFrame::Close { end, .. } => {
                // The process goes on, and its input on the next stream.
                let lost =
                    matches!(&end, StreamEnd::Failed(why) if why.code == RefusalCode::NodeLost);
                if lost {
                    entry.credit.end(StreamOver::Lost);
                }
                let _ = entry.items.send(StreamItem::End(end));
                self.remove(id);
                return Ok(());
            }
        };
        // Nobody reads any more: the guard's notice is on its way, the bytes are dropped here.
        let _ = entry.items.send(item);
        Ok(())
    }

    /// Nobody holds the stream any more: what to tell the location, if that was not done. The
    /// stream counts until its Close is sent, so that the location never sees more streams or larger
    /// windows than it allows.
    pub(super) fn abandoned(&mut self, notice: Notice) -> Option<StreamFrame> {
        let stream = notice.stream;
        let entry = self.entries.get_mut(&stream)?;
        entry.is_held = false;
        entry.window.end();
        let end = entry.abandoned.clone();
        if entry.close_sent || notice.said == CloseSaid::NeverOpened {
            self.remove(stream);
            return None;
        }
        (notice.said == CloseSaid::Nothing).then_some(StreamFrame::Close { stream, end })
    }

    /// Our Close of the stream is on the link.
    pub(super) fn close_sent(&mut self, id: StreamId) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.close_sent = true;
        if !entry.is_held {
            self.remove(id);
        }
    }

    /// Forgets a stream that the location refused to open.
    pub(super) fn refused(&mut self, id: StreamId) {
        self.remove(id);
    }

    /// The connection is gone, and all streams with it.
    pub(super) fn link_lost(&mut self) {
        for (_, entry) in self.entries.drain() {
            let _ = entry.items.send(StreamItem::Lost);
            entry.window.end();
            entry.credit.end(StreamOver::Lost);
        }
        self.budget = None;
    }

    fn remove(&mut self, id: StreamId) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        entry.window.end();
        entry.credit.end(StreamOver::Ended);
        Some(entry)
    }
}
