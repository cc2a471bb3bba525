//! What was promised to the sender of a stream.

/// The peer sent more than it was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer sent {excess} bytes more than it was granted")]
pub struct Overrun {
    /// How much more, in bytes.
    pub excess: u64,
}

/// Consumed bytes are granted again when they make this part of the window: often enough that a sender
/// never waits on a line whose round trip fits the window, seldom enough that Credit frames are few.
const GRANTS_PER_WINDOW: u64 = 4;

/// The receiving side of a stream with a window of a given size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiveWindow {
    /// `open + held + owed`.
    size: u64,
    /// Granted and not received.
    open: u64,
    /// Received and not consumed.
    held: u64,
    /// Consumed and not granted again.
    owed: u64,
}

impl ReceiveWindow {
    /// The window that was granted when the stream was opened.
    #[must_use]
    pub const fn new(size: u64) -> Self {
        Self {
            size,
            open: size,
            held: 0,
            owed: 0,
        }
    }

    /// All that was promised: what the peer may make us hold, in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that came and are not consumed.
    #[must_use]
    pub const fn held(&self) -> u64 {
        self.held
    }

    /// Bytes came.
    ///
    /// # Errors
    /// If they were not granted; nothing is counted then.
    pub const fn received(&mut self, bytes: u64) -> Result<(), Overrun> {
        match self.open.checked_sub(bytes) {
            Some(open) => {
                self.open = open;
                self.held += bytes;
                Ok(())
            }
            None => Err(Overrun {
                excess: bytes - self.open,
            }),
        }
    }

    /// Bytes that came were passed on, and not more than came. `Some`: grant this much now.
    pub fn consumed(&mut self, bytes: u64) -> Option<u64> {
        self.count_consumed(bytes);
        self.take_grant()
    }

    pub(super) fn count_consumed(&mut self, bytes: u64) {
        self.held = self.held.saturating_sub(bytes);
        self.owed += bytes;
    }

    /// What is owed, once it is worth a Credit frame.
    pub(super) fn take_grant(&mut self) -> Option<u64> {
        if !self.is_grant_due() {
            return None;
        }
        let grant = std::mem::take(&mut self.owed);
        self.open += grant;
        Some(grant)
    }

    pub(super) fn is_grant_due(&self) -> bool {
        self.owed >= (self.size / GRANTS_PER_WINDOW).max(1)
    }

    /// Promises more; it goes out with the next grant.
    pub(super) const fn grow(&mut self, bytes: u64) {
        self.size += bytes;
        self.owed += bytes;
    }

    /// Promises less, by as much as is not granted yet and at most `most` bytes.
    pub(super) fn shrink(&mut self, most: u64) -> u64 {
        let less = most.min(self.owed);
        self.size -= less;
        self.owed -= less;
        less
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::flow::SendWindow;

    #[test]
    fn more_than_granted_is_noticed() {
        let mut window = ReceiveWindow::new(10);
        assert_eq!(window.received(10), Ok(()));
        assert_eq!(window.received(1), Err(Overrun { excess: 1 }));
        assert_eq!(window.consumed(1), None);
        assert_eq!(window.consumed(2), Some(3));
        assert_eq!(window.received(3), Ok(()));
        assert_eq!(window.held(), 10);
    }

    #[test]
    fn a_tiny_window_never_gets_stuck() {
        let mut window = ReceiveWindow::new(1);
        for _ in 0..3 {
            assert_eq!(window.received(1), Ok(()));
            assert_eq!(window.consumed(1), Some(1));
        }
    }

    proptest! {
        #[test]
        fn a_sender_that_keeps_to_its_credit_never_overruns_and_never_stalls(
            chunks in proptest::collection::vec(1..3_000_u64, 1..200),
            size in 1..2_000_u64,
        ) {
            let mut credit = SendWindow::new(size);
            let mut window = ReceiveWindow::new(size);
            for mut chunk in chunks {
                while chunk > 0 {
                    let now = credit.take(chunk);
                    prop_assert!(now > 0, "stalled although everything was consumed");
                    window.received(now).unwrap();
                    if let Some(grant) = window.consumed(now) {
                        credit.grant(grant).unwrap();
                    }
                    chunk -= now;
                }
            }
        }
    }
}
