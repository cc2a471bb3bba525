//! What waits to be sent to one peer: queues bounded in bytes, control before bulk, streams in turn.
//!
//! Owner: one per connection; the core loop and other connections' readers put in and never wait, the
//! connection's writer takes out. Invariants: it never holds more than its bounds: control that would
//! exceed them ends the connection, bulk ends its stream (to a node) or the connection (to a client,
//! which granted what comes); all outboxes together shrink each other's bounds before they fill memory.
//! Control overtakes bulk; the order of control is kept, and that of each stream, so a stream's `Close`
//! goes as bulk, behind its data. Next: [`crate::connection::writer`].

mod turns;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use serde::Serialize;
use teu_protocol::{
    ids::StreamId,
    message::{MasterToClient, MasterToNode, Role, StreamFrame},
};
use tokio::sync::Notify;

use crate::bounds::{
    ALL_OUTBOXES_BYTES, CLIENT_OUTBOX_BYTES, CROWDED_OUTBOX_BYTES, ITEM_OVERHEAD_BYTES,
    NODE_CROWDED_STREAM_BYTES, NODE_OUTBOX_BYTES, NODE_STREAM_BYTES, NODES_CROWDED_BYTES,
};
use turns::{Grants, Turns};

/// Bytes that wait in all outboxes.
pub(crate) type Budget = Arc<AtomicUsize>;

/// Something to send.
#[derive(Debug)]
pub(crate) enum Item {
    /// A message to seal: MessagePack and bulk.
    Message(Vec<u8>, Vec<Bytes>),
    /// A ZMTP command, sent as it is.
    Command(Bytes),
}

impl Item {
    fn cost(&self) -> usize {
        ITEM_OVERHEAD_BYTES
            + match self {
                Self::Message(control, bulk) => {
                    control.len() + bulk.iter().map(Bytes::len).sum::<usize>()
                }
                Self::Command(bytes) => bytes.len(),
            }
    }
}

/// How the queue fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// No more is accepted; what is control is still sent.
    Finishing,
    /// Nothing more is sent.
    Closed,
}

/// Whether an outbox took something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    Taken,
    /// The connection is ending anyway.
    Ignored,
    /// So much bulk waits for this node that no more is taken.
    Full,
    /// The peer does not read what it is sent: the outbox is closed.
    Overflow,
}

#[derive(Debug)]
struct State {
    control: VecDeque<Item>,
    grants: Grants,
    bulk: Turns,
    control_bytes: usize,
    bulk_bytes: usize,
    phase: Phase,
    writer_waits: bool,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// The writer has something to do.
    ready: Notify,
    role: Role,
    budget: Budget,
}

impl Outbox {
    /// An empty one, for a peer of this role.
    pub(crate) fn new(role: Role, budget: Budget) -> Self {
        let state = State {
            control: VecDeque::new(),
            grants: Grants::default(),
            bulk: Turns::default(),
            control_bytes: 0,
            bulk_bytes: 0,
            phase: Phase::Open,
            writer_waits: false,
        };
        Self {
            state: Mutex::new(state),
            ready: Notify::new(),
            role,
            budget,
        }
    }

    /// Queues a message that overtakes bulk, and wakes the writer.
    pub(crate) fn push_control<M: Serialize>(&self, message: &M, bulk: Vec<Bytes>) -> Pushed {
        let pushed = self.push_item(encoded(message, bulk));
        self.wake();
        pushed
    }

    /// Queues a stream's frame behind the stream's earlier ones. The writer is woken by
    /// [`Outbox::wake`], so that it finds several at once.
    pub(crate) fn push_frame(&self, frame: StreamFrame, bulk: Vec<Bytes>) -> Pushed {
        let stream = frame.stream();
        // The last word is small, and comes once a stream.
        let is_last = matches!(frame, StreamFrame::Close { .. });
        let Some(item) = self.encoded_frame(frame, bulk) else {
            return Pushed::Ignored;
        };
        let cost = item.cost();
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return Pushed::Ignored;
        }
        if !is_last && state.bulk_bytes + cost > self.bulk_bound_now(&state) {
            return match self.role {
                Role::Node => Pushed::Full,
                Role::Client => self.overflow(state),
            };
        }
        state.bulk_bytes += cost;
        self.budget.fetch_add(cost, Ordering::Relaxed);
        state.bulk.push(stream, item);
        Pushed::Taken
    }

    /// Tells the peer that it may send more on a stream. What waits to be told is one sum a stream.
    pub(crate) fn push_credit(&self, stream: StreamId, bytes: u64) {
        let mut state = self.lock();
        if state.phase == Phase::Open && bytes > 0 {
            state.grants.add(stream, bytes);
        }
        drop(state);
        self.wake();
    }

    /// The stream is over: credit that waits for it must not reach another one of its number.
    pub(crate) fn forget_credit(&self, stream: StreamId) {
        self.lock().grants.remove(stream);
    }

    /// Queues a ZMTP command.
    pub(crate) fn push_command(&self, frame: Bytes) -> Pushed {
        let pushed = self.push_item(Some(Item::Command(frame)));
        self.wake();
        pushed
    }

    /// Queues the last message; then what is control is sent and the connection ends.
    pub(crate) fn finish<M: Serialize>(&self, message: &M) {
        self.push_item(encoded(message, Vec::new()));
        let mut state = self.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Finishing;
        }
        drop(state);
        self.wake();
    }

    /// Drops everything and ends the writer.
    pub(crate) fn close(&self) {
        self.shut(&mut self.lock());
        self.wake();
    }

    /// Tells the writer that there is something to do, if it sleeps.
    pub(crate) fn wake(&self) {
        let mut state = self.lock();
        let wake = std::mem::take(&mut state.writer_waits);
        drop(state);
        if wake {
            self.ready.notify_one();
        }
    }

    /// Moves up to about `max_bytes` into `batch`, control first; waits until there is something.
    /// `false` if nothing will come any more.
    pub(crate) async fn take(&self, batch: &mut Vec<Item>, max_bytes: usize) -> bool {
        loop {
            {
                let mut state = self.lock();
                self.fill(&mut state, batch, max_bytes);
                if !batch.is_empty() {
                    return true;
                }
                if state.phase != Phase::Open {
                    self.shut(&mut state);
                    return false;
                }
                state.writer_waits = true;
            }
            // A wake between the unlock and this await leaves a permit behind.
            self.ready.notified().await;
        }
    }

    /// Whether the last message is queued or was sent.
    pub(crate) fn is_finishing(&self) -> bool {
        self.lock().phase != Phase::Open
    }

    fn push_item(&self, item: Option<Item>) -> Pushed {
        let Some(item) = item else {
            return Pushed::Ignored;
        };
        let cost = item.cost();
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return Pushed::Ignored;
        }
        if state.control_bytes + cost > self.control_bound_now(&state) {
            return self.overflow(state);
        }
        state.control_bytes += cost;
        self.budget.fetch_add(cost, Ordering::Relaxed);
        state.control.push_back(item);
        Pushed::Taken
    }

    fn overflow(&self, mut state: MutexGuard<'_, State>) -> Pushed {
        self.shut(&mut state);
        drop(state);
        self.ready.notify_one();
        Pushed::Overflow
    }

    /// What control may fill: all that a client may have waiting, together with its bulk.
    fn control_bound_now(&self, state: &State) -> usize {
        match self.role {
            Role::Client => self.client_bound_now().saturating_sub(state.bulk_bytes),
            Role::Node => NODE_OUTBOX_BYTES,
        }
    }

    fn bulk_bound_now(&self, state: &State) -> usize {
        match self.role {
            Role::Client => self.client_bound_now().saturating_sub(state.control_bytes),
            Role::Node if self.waiting() > NODES_CROWDED_BYTES => NODE_CROWDED_STREAM_BYTES,
            Role::Node => NODE_STREAM_BYTES,
        }
    }

    fn client_bound_now(&self) -> usize {
        if self.waiting() > ALL_OUTBOXES_BYTES {
            CROWDED_OUTBOX_BYTES
        } else {
            CLIENT_OUTBOX_BYTES
        }
    }

    /// For all peers, in bytes.
    fn waiting(&self) -> usize {
        self.budget.load(Ordering::Relaxed)
    }

    fn fill(&self, state: &mut State, batch: &mut Vec<Item>, max_bytes: usize) {
        let mut taken = 0;
        while taken < max_bytes && state.phase != Phase::Closed {
            let Some((item, freed)) = self.next(state) else {
                break;
            };
            taken += item.cost();
            self.budget.fetch_sub(freed, Ordering::Relaxed);
            batch.push(item);
        }
    }

    /// What goes next, and what it took of the bounds: control, then credit, then bulk.
    fn next(&self, state: &mut State) -> Option<(Item, usize)> {
        if let Some(item) = state.control.pop_front() {
            let cost = item.cost();
            state.control_bytes -= cost.min(state.control_bytes);
            return Some((item, cost));
        }
        if state.phase != Phase::Open {
            return None;
        }
        if let Some((stream, bytes)) = state.grants.pop() {
            let frame = StreamFrame::Credit { stream, bytes };
            return Some((self.encoded_frame(frame, Vec::new())?, 0));
        }
        let item = state.bulk.pop()?;
        let cost = item.cost();
        state.bulk_bytes -= cost.min(state.bulk_bytes);
        Some((item, cost))
    }

    fn encoded_frame(&self, frame: StreamFrame, bulk: Vec<Bytes>) -> Option<Item> {
        match self.role {
            Role::Client => encoded(&MasterToClient::Stream(frame), bulk),
            Role::Node => encoded(&MasterToNode::Stream(frame), bulk),
        }
    }

    fn shut(&self, state: &mut State) {
        state.phase = Phase::Closed;
        state.control = VecDeque::new();
        state.grants = Grants::default();
        state.bulk = Turns::default();
        let bytes =
            std::mem::take(&mut state.control_bytes) + std::mem::take(&mut state.bulk_bytes);
        self.budget.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.shut(&mut state);
    }
}

fn encoded<M: Serialize>(message: &M, bulk: Vec<Bytes>) -> Option<Item> {
    match teu_protocol::message::encode(message) {
        Ok(control) => Some(Item::Message(control, bulk)),
        Err(error) => {
            tracing::error!(%error, "a message is lost");
            None
        }
    }
}
