//! What the peer may still send on a stream.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use teu_protocol::{
    flow::{GROWN_WINDOW_BYTES, GrowingWindow, Growth, Shares},
    ids::StreamId,
    message::{ClientToMaster, SessionLimits, StreamFrame},
};
use tokio::{sync::mpsc, time::Instant};

use super::Outgoing;

/// What all streams of one connection may grow by. Locked last: a stream's window is locked before it.
#[derive(Debug)]
pub(crate) struct WindowBudget {
    shares: Shares,
    growth: Mutex<Growth>,
    began: Instant,
}

impl WindowBudget {
    /// The budget of a new connection.
    pub(crate) fn new(limits: &SessionLimits) -> Arc<Self> {
        let shares = Shares::of(limits);
        Arc::new(Self {
            growth: Mutex::new(shares.budget()),
            shares,
            began: Instant::now(),
        })
    }

    /// What each stream is promised when it is opened, in bytes.
    pub(crate) const fn base(&self) -> u64 {
        self.shares.base
    }

    fn growth(&self) -> MutexGuard<'_, Growth> {
        self.growth.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The receiving side of a stream's flow control. The session counts what arrives, readers what is
/// consumed.
#[derive(Debug)]
pub(crate) struct RecvWindow {
    stream: StreamId,
    epoch: u64,
    window: Mutex<GrowingWindow>,
    budget: Arc<WindowBudget>,
    control: mpsc::UnboundedSender<Outgoing>,
}

impl RecvWindow {
    /// A window of `size` bytes that grows, if it is not 0. `control` takes the Credit frames: a
    /// stream has at most four under way.
    pub(crate) fn new(
        stream: StreamId,
        epoch: u64,
        size: u64,
        budget: Arc<WindowBudget>,
        control: mpsc::UnboundedSender<Outgoing>,
    ) -> Self {
        let most = if size == 0 { 0 } else { GROWN_WINDOW_BYTES };
        let window = GrowingWindow::new(size, most, budget.began.elapsed());
        Self {
            stream,
            epoch,
            window: Mutex::new(window),
            budget,
            control,
        }
    }

    /// Bytes that are promised to the peer in total.
    pub(crate) fn size(&self) -> u64 {
        self.window().size()
    }

    /// Bytes that arrived and that nobody has consumed yet.
    pub(crate) fn held(&self) -> u64 {
        self.window().held()
    }

    /// Counts what arrived; `false` if the peer sent more than it may.
    #[must_use]
    pub(crate) fn receive(&self, bytes: u64) -> bool {
        self.window().received(bytes).is_ok()
    }

    /// The stream is over: no more Credit, and its growth is there for others.
    pub(crate) fn end(&self) {
        self.window().end(&mut self.budget.growth());
    }

    pub(super) fn consume(&self, bytes: u64) {
        let now = self.budget.began.elapsed();
        let grant = {
            let mut window = self.window();
            window.consumed(bytes, now, &mut self.budget.growth())
        };
        let Some(bytes) = grant else { return };
        let frame = StreamFrame::Credit {
            stream: self.stream,
            bytes,
        };
        let message = ClientToMaster::Stream(frame);
        // The session may be over: then nobody needs credit.
        let _ = self
            .control
            .send(Outgoing::new(self.epoch, message, Vec::new()));
    }

    fn window(&self) -> MutexGuard<'_, GrowingWindow> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::session::fake;

    pub(crate) fn window(size: u64) -> (RecvWindow, mpsc::UnboundedReceiver<Outgoing>) {
        let (control, credits) = mpsc::unbounded_channel();
        let budget = WindowBudget::new(&fake::LIMITS);
        let window = RecvWindow::new(StreamId(1), 1, size, budget, control);
        (window, credits)
    }

    fn credit(credits: &mut mpsc::UnboundedReceiver<Outgoing>) -> Option<u64> {
        match credits.try_recv().ok()?.message {
            ClientToMaster::Stream(StreamFrame::Credit { bytes, .. }) => Some(bytes),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn credit_comes_back_when_bytes_are_consumed_not_when_they_arrive() {
        let (window, mut credits) = window(100);
        assert!(window.receive(100));
        assert_eq!(credit(&mut credits), None);
        window.consume(24);
        assert_eq!(credit(&mut credits), None);
        window.consume(1);
        assert_eq!(credit(&mut credits), Some(25));
        assert!(!window.receive(26));
        assert!(window.receive(25));
    }

    #[test]
    fn nothing_is_granted_on_a_stream_that_is_over() {
        let (window, mut credits) = window(8);
        assert!(window.receive(8));
        window.end();
        window.consume(8);
        assert_eq!(credit(&mut credits), None);
    }
}
