//! Credit in bytes, both sides of it.
//!
//! Invariant: `granted - received` on one side is never less than the credit on the other.

/// What this side may still send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendCredit(u64);

impl SendCredit {
    /// What was granted when the stream was opened.
    #[must_use]
    pub const fn new(window: u64) -> Self {
        Self(window)
    }

    /// The receiver grants more. Saturates: a peer that grants absurd amounts gets no more than
    /// it can take.
    pub const fn grant(&mut self, bytes: u64) {
        self.0 = self.0.saturating_add(bytes);
    }

    /// What may be sent now.
    #[must_use]
    pub const fn available(&self) -> u64 {
        self.0
    }

    /// This much is sent. Never more than [`Self::available`].
    pub const fn spend(&mut self, bytes: u64) {
        self.0 = self.0.saturating_sub(bytes);
    }
}

/// The peer sent more than it was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer sent {excess} bytes more than it was granted")]
pub struct Overrun {
    /// How much more.
    pub excess: u64,
}

/// What this side has granted, and when to grant more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiveWindow {
    window: u64,
    /// Granted and not yet received.
    open: u64,
    /// Received, consumed, and not yet granted again.
    owed: u64,
}

impl ReceiveWindow {
    /// What was granted when the stream was opened.
    #[must_use]
    pub const fn new(window: u64) -> Self {
        Self {
            window,
            open: window,
            owed: 0,
        }
    }

    /// Bytes came.
    ///
    /// # Errors
    /// If they were not granted.
    pub const fn received(&mut self, bytes: u64) -> Result<(), Overrun> {
        match self.open.checked_sub(bytes) {
            Some(open) => {
                self.open = open;
                Ok(())
            }
            None => Err(Overrun {
                excess: bytes - self.open,
            }),
        }
    }

    /// Bytes were passed on. `Some`: grant this much now. Grants come in quarters of the window,
    /// so that they cost a message for every quarter and never stall the sender.
    pub const fn consumed(&mut self, bytes: u64) -> Option<u64> {
        self.owed += bytes;
        if self.owed < self.window / 4 {
            return None;
        }
        let grant = self.owed;
        self.owed = 0;
        self.open += grant;
        Some(grant)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn more_than_granted_is_noticed() {
        let mut window = ReceiveWindow::new(10);
        assert_eq!(window.received(10), Ok(()));
        assert_eq!(window.received(1), Err(Overrun { excess: 1 }));
        assert_eq!(window.consumed(1), None);
        assert_eq!(window.consumed(2), Some(3));
        assert_eq!(window.received(3), Ok(()));
    }

    proptest! {
        #[test]
        fn a_sender_that_keeps_to_its_credit_never_overruns_and_never_stalls(
            chunks in proptest::collection::vec(1..3_000_u64, 1..200),
            window in 1..2_000_u64,
        ) {
            let mut credit = SendCredit::new(window);
            let mut receive = ReceiveWindow::new(window);
            for mut chunk in chunks {
                while chunk > 0 {
                    let now = chunk.min(credit.available());
                    prop_assert!(now > 0, "stalled although everything was consumed");
                    credit.spend(now);
                    receive.received(now).unwrap();
                    if let Some(grant) = receive.consumed(now) {
                        credit.grant(grant);
                    }
                    chunk -= now;
                }
            }
        }
    }
}
