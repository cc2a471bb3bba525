//! What waits to be sent to one peer: a queue bounded in bytes, control before bulk.
//!
//! Owner: one per connection; the core loop and other connections' readers put in, the connection's
//! writer takes out. Invariant: it never holds more than its bound (a message that would exceed it
//! ends the connection instead), and all outboxes together shrink each other's bound before they
//! fill memory. Control overtakes bulk; within each kind order is kept, so a stream's `Close` goes
//! as bulk, behind its data. Next: [`crate::connection::writer`].

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::Notify;

use crate::bounds::{ALL_OUTBOXES_BYTES, CROWDED_OUTBOX_BYTES, ITEM_OVERHEAD_BYTES};

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
    /// The peer does not read what it is sent: the outbox is closed.
    Overflow,
}

#[derive(Debug)]
struct State {
    control: VecDeque<Item>,
    bulk: VecDeque<Item>,
    bytes: usize,
    phase: Phase,
    writer_waits: bool,
    sources_wait: bool,
}

#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// The writer has something to do.
    ready: Notify,
    /// A source may go on.
    drained: Notify,
    bound: usize,
    /// Shrinks with the budget (clients), or not (nodes).
    shrinks: bool,
    high_water: usize,
    budget: Budget,
}

impl Outbox {
    pub(crate) fn new(bound: usize, high_water: usize, shrinks: bool, budget: Budget) -> Self {
        let state = State {
            control: VecDeque::new(),
            bulk: VecDeque::new(),
            bytes: 0,
            phase: Phase::Open,
            writer_waits: false,
            sources_wait: false,
        };
        Self {
            state: Mutex::new(state),
            ready: Notify::new(),
            drained: Notify::new(),
            bound,
            shrinks,
            high_water,
            budget,
        }
    }

    /// Queues a message that overtakes bulk, and wakes the writer.
    pub(crate) fn push_control<M: Serialize>(&self, message: &M, bulk: Vec<Bytes>) -> Pushed {
        let pushed = self.push(encoded(message, bulk), true);
        self.wake();
        pushed
    }

    /// Queues a message in the order of the bulk. The writer is woken by [`Outbox::wake`], so that
    /// it finds several at once.
    pub(crate) fn push_bulk<M: Serialize>(&self, message: &M, bulk: Vec<Bytes>) -> Pushed {
        self.push(encoded(message, bulk), false)
    }

    /// Queues a ZMTP command.
    pub(crate) fn push_command(&self, frame: Bytes) -> Pushed {
        let pushed = self.push(Some(Item::Command(frame)), true);
        self.wake();
        pushed
    }

    /// Queues the last message; then what is control is sent and the connection ends.
    pub(crate) fn finish<M: Serialize>(&self, message: &M) {
        self.push(encoded(message, Vec::new()), true);
        let mut state = self.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Finishing;
        }
        drop(state);
        self.wake();
        self.drained.notify_waiters();
    }

    /// Drops everything and ends the writer.
    pub(crate) fn close(&self) {
        self.shut(&mut self.lock());
        self.drained.notify_waiters();
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

    /// Waits until less than the high-water mark is queued, or the outbox is closed.
    pub(crate) async fn room(&self) {
        loop {
            let drained = self.drained.notified();
            {
                let mut state = self.lock();
                if state.bytes < self.high_water || state.phase != Phase::Open {
                    return;
                }
                state.sources_wait = true;
                state.writer_waits = false;
            }
            self.ready.notify_one();
            drained.await;
        }
    }

    /// Whether the last message is queued or was sent.
    pub(crate) fn is_finishing(&self) -> bool {
        self.lock().phase != Phase::Open
    }

    /// Whether a source should wait for [`Outbox::room`].
    pub(crate) fn is_high(&self) -> bool {
        self.lock().bytes >= self.high_water
    }

    fn push(&self, item: Option<Item>, control: bool) -> Pushed {
        let Some(item) = item else {
            return Pushed::Ignored;
        };
        let cost = item.cost();
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return Pushed::Ignored;
        }
        if state.bytes + cost > self.bound_now() {
            self.shut(&mut state);
            drop(state);
            self.ready.notify_one();
            self.drained.notify_waiters();
            return Pushed::Overflow;
        }
        state.bytes += cost;
        self.budget.fetch_add(cost, Ordering::Relaxed);
        if control {
            state.control.push_back(item);
        } else {
            state.bulk.push_back(item);
        }
        Pushed::Taken
    }

    fn bound_now(&self) -> usize {
        let crowded = self.budget.load(Ordering::Relaxed) > ALL_OUTBOXES_BYTES;
        if self.shrinks && crowded {
            CROWDED_OUTBOX_BYTES
        } else {
            self.bound
        }
    }

    fn fill(&self, state: &mut State, batch: &mut Vec<Item>, max_bytes: usize) {
        let mut taken = 0;
        while taken < max_bytes && state.phase != Phase::Closed {
            let next = match state.control.pop_front() {
                None if state.phase == Phase::Open => state.bulk.pop_front(),
                control => control,
            };
            let Some(item) = next else { break };
            taken += item.cost();
            batch.push(item);
        }
        state.bytes -= taken.min(state.bytes);
        self.budget.fetch_sub(taken, Ordering::Relaxed);
        if state.sources_wait && state.bytes < self.high_water / 2 {
            state.sources_wait = false;
            self.drained.notify_waiters();
        }
    }

    fn shut(&self, state: &mut State) {
        state.phase = Phase::Closed;
        state.control = VecDeque::new();
        state.bulk = VecDeque::new();
        self.budget.fetch_sub(state.bytes, Ordering::Relaxed);
        state.bytes = 0;
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
