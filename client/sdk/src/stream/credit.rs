//! What we may still send on a stream.

use std::{
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
    task::{Context, Poll},
};

use futures::task::AtomicWaker;

use super::StreamOver;

/// Bytes that the peer has granted and we have not used. The session adds, one writer takes.
#[derive(Debug, Default)]
pub(crate) struct SendCredit {
    available: AtomicU64,
    /// All that was ever granted, the first grant included.
    total: AtomicU64,
    over: AtomicU8,
    writer: AtomicWaker,
}

const OPEN: u8 = 0;
const ENDED: u8 = 1;
const LOST: u8 = 2;

impl SendCredit {
    /// The peer grants more. A sum that no honest peer reaches counts as "very much".
    pub(crate) fn grant(&self, bytes: u64) {
        let add = |available: u64| Some(available.saturating_add(bytes));
        let _ = self
            .available
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
        let _ = self
            .total
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
        self.writer.wake();
    }

    /// Nothing more can be sent; the first reason counts.
    pub(crate) fn end(&self, why: StreamOver) {
        let why = match why {
            StreamOver::Ended => ENDED,
            StreamOver::Lost => LOST,
        };
        let _ = self
            .over
            .compare_exchange(OPEN, why, Ordering::AcqRel, Ordering::Acquire);
        self.writer.wake();
    }

    pub(crate) fn over(&self) -> Option<StreamOver> {
        match self.over.load(Ordering::Acquire) {
            OPEN => None,
            ENDED => Some(StreamOver::Ended),
            _ => Some(StreamOver::Lost),
        }
    }

    /// All that was ever granted, in bytes.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Acquire)
    }

    /// Takes up to `wanted` bytes, at least one. Only one task may wait at a time.
    pub(super) fn poll_take(
        &self,
        context: &Context<'_>,
        wanted: u64,
    ) -> Poll<Result<u64, StreamOver>> {
        if let Some(outcome) = self.try_take(wanted) {
            return Poll::Ready(outcome);
        }
        self.writer.register(context.waker());
        // Granted between the look and the registration?
        self.try_take(wanted).map_or(Poll::Pending, Poll::Ready)
    }

    fn try_take(&self, wanted: u64) -> Option<Result<u64, StreamOver>> {
        if let Some(why) = self.over() {
            return Some(Err(why));
        }
        let available = self.available.load(Ordering::Acquire);
        let taken = available.min(wanted);
        // Only this task subtracts, so `available` can only have grown since.
        self.available.fetch_sub(taken, Ordering::AcqRel);
        (taken > 0).then_some(Ok(taken))
    }
}
