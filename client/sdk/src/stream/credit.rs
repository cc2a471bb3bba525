//! What we may still send on a stream.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use futures::task::AtomicWaker;
use teu_protocol::flow::{Overgrant, SendWindow};

use super::StreamOver;

/// A [`SendWindow`] to which the session adds and from which one writer takes.
#[derive(Debug)]
pub(crate) struct SendCredit {
    window: Mutex<SendWindow>,
    over: AtomicU8,
    writer: AtomicWaker,
}

const OPEN: u8 = 0;
const ENDED: u8 = 1;
const LOST: u8 = 2;

impl Default for SendCredit {
    fn default() -> Self {
        Self {
            window: Mutex::new(SendWindow::new(0)),
            over: AtomicU8::new(OPEN),
            writer: AtomicWaker::new(),
        }
    }
}

impl SendCredit {
    /// The peer grants more.
    ///
    /// # Errors
    /// If no honest peer grants as much.
    pub(crate) fn grant(&self, bytes: u64) -> Result<(), Overgrant> {
        let granted = self.window().grant(bytes);
        self.writer.wake();
        granted
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
        self.window().granted()
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
        let taken = self.window().take(wanted);
        (taken > 0).then_some(Ok(taken))
    }

    fn window(&self) -> MutexGuard<'_, SendWindow> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
