//! What the peer may still send on a stream.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use teu_protocol::{
    ids::StreamId,
    message::{ClientToMaster, StreamFrame},
};
use tokio::sync::mpsc;

use super::Outgoing;

/// Consumed bytes are reported when they make this part of the window: often enough that a sender
/// never waits for credit on a line whose round trip fits the window, seldom enough that Credit
/// frames are few.
const REPORTS_PER_WINDOW: u64 = 4;

/// The receiving side of a stream's flow control. The session counts what arrives, readers what is
/// consumed.
#[derive(Debug)]
pub(crate) struct RecvWindow {
    stream: StreamId,
    epoch: u64,
    size: u64,
    /// What the peer may still send.
    granted: AtomicU64,
    /// Consumed, not yet granted anew.
    unreported: AtomicU64,
    /// Received and not yet consumed.
    held: AtomicU64,
    over: AtomicBool,
    control: mpsc::UnboundedSender<Outgoing>,
}

impl RecvWindow {
    /// `control` takes the Credit frames: at most [`REPORTS_PER_WINDOW`] a stream are under way.
    pub(crate) fn new(
        stream: StreamId,
        epoch: u64,
        size: u64,
        control: mpsc::UnboundedSender<Outgoing>,
    ) -> Self {
        Self {
            stream,
            epoch,
            size,
            granted: AtomicU64::new(size),
            unreported: AtomicU64::new(0),
            held: AtomicU64::new(0),
            over: AtomicBool::new(false),
            control,
        }
    }

    /// Bytes that were promised to the peer in total.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that arrived and that nobody has consumed yet.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    /// Counts what arrived; `false` if the peer sent more than it may.
    #[must_use]
    pub(crate) fn receive(&self, bytes: u64) -> bool {
        let take = |granted: u64| granted.checked_sub(bytes);
        let fits = self
            .granted
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take)
            .is_ok();
        if fits {
            self.held.fetch_add(bytes, Ordering::AcqRel);
        }
        fits
    }

    /// The stream is over: no more Credit.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }

    pub(super) fn consume(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::AcqRel);
        let unreported = self
            .unreported
            .fetch_add(bytes, Ordering::AcqRel)
            .saturating_add(bytes);
        if unreported < (self.size / REPORTS_PER_WINDOW).max(1) || self.over.load(Ordering::Acquire)
        {
            return;
        }
        let bytes = self.unreported.swap(0, Ordering::AcqRel);
        if bytes == 0 {
            return;
        }
        self.granted.fetch_add(bytes, Ordering::AcqRel);
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(size: u64) -> (RecvWindow, mpsc::UnboundedReceiver<Outgoing>) {
        let (control, credits) = mpsc::unbounded_channel();
        (RecvWindow::new(StreamId(1), 1, size, control), credits)
    }

    fn credit(credits: &mut mpsc::UnboundedReceiver<Outgoing>) -> Option<u64> {
        match credits.try_recv().ok()?.message {
            ClientToMaster::Stream(StreamFrame::Credit { bytes, .. }) => Some(bytes),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn more_than_was_granted_is_an_offence() {
        let (window, _credits) = window(100);
        assert!(window.receive(60));
        assert!(!window.receive(41));
        assert!(window.receive(40));
        assert_eq!(window.held(), 100);
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
    fn a_tiny_window_never_gets_stuck() {
        let (window, mut credits) = window(1);
        for _ in 0..3 {
            assert!(window.receive(1));
            window.consume(1);
            assert_eq!(credit(&mut credits), Some(1));
        }
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
