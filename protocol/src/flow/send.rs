//! What may still be sent on a stream.

use super::{MAX_WINDOW_BYTES, Overrun};

/// Bytes that the receiver has granted and that are not sent yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendWindow {
    available: u64,
    /// All that was ever granted, the first grant included.
    granted: u64,
}

/// The receiver granted more than any honest one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the peer granted {granted} bytes on top of {available}, more than the {MAX_WINDOW_BYTES} that a stream may have"
)]
pub struct Overgrant {
    /// What it granted.
    pub granted: u64,
    /// What was granted before and is not used yet.
    pub available: u64,
}

impl SendWindow {
    /// The window that was granted when the stream was opened, at most [`MAX_WINDOW_BYTES`].
    #[must_use]
    pub const fn new(window: u64) -> Self {
        let window = if window < MAX_WINDOW_BYTES {
            window
        } else {
            MAX_WINDOW_BYTES
        };
        Self {
            available: window,
            granted: window,
        }
    }

    /// What may be sent now, in bytes.
    #[must_use]
    pub const fn available(&self) -> u64 {
        self.available
    }

    /// All that was ever granted, in bytes.
    #[must_use]
    pub const fn granted(&self) -> u64 {
        self.granted
    }

    /// Takes what there is for sending, up to `most` bytes.
    pub const fn take(&mut self, most: u64) -> u64 {
        let taken = if most < self.available {
            most
        } else {
            self.available
        };
        self.available -= taken;
        taken
    }

    /// Counts what somebody else sent: all of it, or nothing.
    ///
    /// # Errors
    /// If it was not granted.
    pub const fn spend(&mut self, bytes: u64) -> Result<(), Overrun> {
        match self.available.checked_sub(bytes) {
            Some(rest) => {
                self.available = rest;
                Ok(())
            }
            None => Err(Overrun {
                excess: bytes - self.available,
            }),
        }
    }

    /// The receiver grants more.
    ///
    /// # Errors
    /// If more than [`MAX_WINDOW_BYTES`] were outstanding then; nothing is added.
    pub const fn grant(&mut self, bytes: u64) -> Result<(), Overgrant> {
        match self.available.checked_add(bytes) {
            Some(sum) if sum <= MAX_WINDOW_BYTES => {
                self.available = sum;
                self.granted = self.granted.saturating_add(bytes);
                Ok(())
            }
            _ => Err(Overgrant {
                granted: bytes,
                available: self.available,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_is_never_overspent_and_never_unbounded() {
        let mut window = SendWindow::new(100);
        assert_eq!(window.spend(60), Ok(()));
        assert_eq!(window.spend(41), Err(Overrun { excess: 1 }));
        assert_eq!(window.take(1_000), 40);
        assert_eq!(window.take(1), 0);
        assert_eq!(window.grant(MAX_WINDOW_BYTES), Ok(()));
        assert!(window.grant(1).is_err(), "the window is full");
        assert!(window.grant(u64::MAX).is_err(), "no overflow");
        assert_eq!(window.available(), MAX_WINDOW_BYTES);
        assert_eq!(window.granted(), MAX_WINDOW_BYTES + 100);
    }

    #[test]
    fn an_opening_window_is_clamped() {
        assert_eq!(SendWindow::new(u64::MAX).available(), MAX_WINDOW_BYTES);
    }
}
