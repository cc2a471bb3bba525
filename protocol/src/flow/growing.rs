//! Windows that grow while their readers keep up, out of a budget that streams share.
//!
//! ```text
//!          a window's worth consumed within FAST_ROUND, and room in the budget
//! base ───────────────────────────────────────────────────────────────────────▶ twice … most
//!      ◀─────────────────────────────────────────────────────────────────────
//!          little left in the budget, and slow or quiet: what is consumed is not granted again
//! ```
//! A round trip below [`FAST_ROUND`] never holds a window down: a stream whose window is what slows it
//! consumes a window's worth in each round trip. A stream that is slow by itself keeps its base.

use std::time::Duration;

use super::{Overrun, ReceiveWindow};

/// A window's worth that was consumed within this makes the window grow.
const FAST_ROUND: Duration = Duration::from_millis(500);

/// A window's worth that took longer, or a pause as long, makes a grown window give back.
const SLOW_ROUND: Duration = Duration::from_secs(4);

/// No stream takes more than this part of what is left, so that later ones can grow too.
const SHARE_OF_REST: u64 = 4;

/// What all windows of one budget may grow by, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growth {
    total: u64,
    left: u64,
}

impl Growth {
    /// A budget of which nothing is taken.
    #[must_use]
    pub const fn new(total: u64) -> Self {
        Self { total, left: total }
    }

    /// What is not taken, in bytes.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.left
    }

    fn take(&mut self, wanted: u64) -> u64 {
        let taken = wanted.min(self.left / SHARE_OF_REST);
        self.left -= taken;
        taken
    }

    fn give_back(&mut self, bytes: u64) {
        self.left = (self.left + bytes).min(self.total);
    }

    /// More than half is taken: who does not need its growth gives it back.
    const fn is_scarce(&self) -> bool {
        self.left < self.total / 2
    }
}

/// A [`ReceiveWindow`] between a base and a largest size. `now` is the time since any fixed instant.
#[derive(Debug, Clone, Copy)]
pub struct GrowingWindow {
    window: ReceiveWindow,
    base: u64,
    most: u64,
    /// Consumed since `round_began`.
    round: u64,
    round_began: Duration,
    last: Duration,
    /// Where the size goes as bytes are consumed.
    target: u64,
    over: bool,
}

impl GrowingWindow {
    /// A window of `base` bytes that may grow to `most`.
    #[must_use]
    pub const fn new(base: u64, most: u64, now: Duration) -> Self {
        Self {
            window: ReceiveWindow::new(base),
            base,
            most,
            round: 0,
            round_began: now,
            last: now,
            target: base,
            over: false,
        }
    }

    /// As [`ReceiveWindow::size`].
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.window.size()
    }

    /// As [`ReceiveWindow::held`].
    #[must_use]
    pub const fn held(&self) -> u64 {
        self.window.held()
    }

    /// As [`ReceiveWindow::received`].
    ///
    /// # Errors
    /// If the bytes were not granted.
    pub const fn received(&mut self, bytes: u64) -> Result<(), Overrun> {
        self.window.received(bytes)
    }

    /// Bytes that came were passed on. `Some`: grant this much now.
    pub fn consumed(&mut self, bytes: u64, now: Duration, growth: &mut Growth) -> Option<u64> {
        if self.over {
            self.window.count_consumed(bytes);
            return None;
        }
        self.pace(bytes, now, growth);
        self.window.count_consumed(bytes);
        if self.target < self.size() {
            growth.give_back(self.window.shrink(self.size() - self.target));
        }
        if !self.window.is_grant_due() {
            return None;
        }
        if self.target > self.size() {
            self.window.grow(growth.take(self.target - self.size()));
            self.target = self.size();
        }
        self.window.take_grant()
    }

    /// The stream is over: its growth is given back, and no more is granted.
    pub fn end(&mut self, growth: &mut Growth) {
        if !std::mem::replace(&mut self.over, true) {
            growth.give_back(self.size().saturating_sub(self.base));
        }
    }

    /// Decides where the size goes.
    fn pace(&mut self, bytes: u64, now: Duration, growth: &Growth) {
        let paused = now.saturating_sub(self.last);
        self.last = now;
        if paused >= FAST_ROUND {
            (self.round, self.round_began) = (0, now);
            if paused >= SLOW_ROUND && growth.is_scarce() {
                self.target = self.base;
            }
        }
        self.round += bytes;
        if self.round < self.size() {
            return;
        }
        let took = now.saturating_sub(self.round_began);
        (self.round, self.round_began) = (0, now);
        if took <= FAST_ROUND {
            self.target = self.size().saturating_mul(2).min(self.most);
        } else if took >= SLOW_ROUND && growth.is_scarce() {
            self.target = (self.size() / 2).max(self.base);
        }
    }
}

#[cfg(test)]
mod tests;
