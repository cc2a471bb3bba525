//! Requests that wait for their answers.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use teu_protocol::{
    ids::{RequestId, StreamId},
    message::{ReplyBody, RequestBody},
};
use tokio::sync::oneshot;

use super::command::{AskResult, StreamAsk};
use crate::stream::Stream;

/// One that waits.
#[derive(Debug)]
pub(super) enum Waiter {
    /// Kept whole, to be sent again on the next connection with the same id.
    Request {
        body: RequestBody,
        bulk: Vec<Bytes>,
        reply: oneshot::Sender<AskResult<ReplyBody>>,
    },
    /// Dies with its connection: whoever opens tries again.
    Open {
        stream: StreamId,
        reply: oneshot::Sender<AskResult<(Stream, ReplyBody)>>,
    },
}

/// A stream that could not be opened yet: no link, no window or no number free.
#[derive(Debug)]
pub(super) struct WaitingOpen {
    pub(super) ask: StreamAsk,
    pub(super) reply: oneshot::Sender<AskResult<(Stream, ReplyBody)>>,
}

/// Requests in the order in which they were asked, so that they are sent again in that order.
#[derive(Debug, Default)]
pub(super) struct Pending {
    waiters: HashMap<RequestId, Waiter>,
    order: VecDeque<RequestId>,
    /// Asked for, but beyond what the location lets one connection have under way.
    held_back: VecDeque<RequestId>,
    under_way: usize,
}

impl Pending {
    pub(super) fn insert(&mut self, id: RequestId, waiter: Waiter) {
        if self.waiters.insert(id, waiter).is_none() {
            self.order.push_back(id);
        }
        // Most leave in order; the rest is swept when it outnumbers what waits.
        if self.order.len() > 64 && self.order.len() > 2 * self.waiters.len() {
            self.order.retain(|id| self.waiters.contains_key(id));
        }
    }

    /// Whether one more may be under way.
    pub(super) const fn has_room(&self, limit: usize) -> bool {
        self.under_way < limit
    }

    /// A stream that is asked for now (there must be room).
    pub(super) fn insert_open(&mut self, id: RequestId, waiter: Waiter) {
        self.insert(id, waiter);
        self.under_way += 1;
    }

    /// Whether a request may be sent now; else it is remembered for [`Pending::next_held_back`].
    pub(super) fn may_send(&mut self, id: RequestId, limit: usize) -> bool {
        let fits = self.has_room(limit);
        if fits {
            self.under_way += 1;
        } else {
            self.held_back.push_back(id);
        }
        fits
    }

    /// The answered request's waiter, if there still is one.
    pub(super) fn remove(&mut self, id: RequestId) -> Option<Waiter> {
        let waiter = self.waiters.remove(&id)?;
        self.under_way = self.under_way.saturating_sub(1);
        while self
            .order
            .front()
            .is_some_and(|id| !self.waiters.contains_key(id))
        {
            self.order.pop_front();
        }
        Some(waiter)
    }

    pub(super) fn next_held_back(&mut self, limit: usize) -> Option<RequestId> {
        if !self.has_room(limit) {
            return None;
        }
        let id = self.held_back.pop_front()?;
        self.under_way += 1;
        Some(id)
    }

    /// What to send for this id: nothing if nobody waits any more.
    pub(super) fn request(&self, id: RequestId) -> Option<(&RequestBody, &Vec<Bytes>)> {
        match self.waiters.get(&id)? {
            Waiter::Request { body, bulk, .. } => Some((body, bulk)),
            Waiter::Open { .. } => None,
        }
    }

    /// The connection is gone: streams that were being opened are taken out, requests nobody waits
    /// for are forgotten.
    pub(super) fn link_lost(&mut self) -> Vec<Waiter> {
        self.under_way = 0;
        self.held_back.clear();
        let opens: Vec<RequestId> = self
            .waiters
            .iter()
            .filter(|(_, waiter)| match waiter {
                Waiter::Open { .. } => true,
                Waiter::Request { reply, .. } => reply.is_closed(),
            })
            .map(|(id, _)| *id)
            .collect();
        opens
            .iter()
            .filter_map(|id| self.waiters.remove(id))
            .collect()
    }

    /// All ids in the order in which they were asked.
    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub(super) fn ids(&self) -> Vec<RequestId> {
        self.order
            .iter()
            .filter(|id| self.waiters.contains_key(id))
            .copied()
            .collect()
    }

    pub(super) fn drain(&mut self) -> Vec<Waiter> {
        self.order.clear();
        self.held_back.clear();
        self.waiters.drain().map(|(_, waiter)| waiter).collect()
    }
}
