//! The daemon's clock: the only place that reads the time.
//!
//! Owner: the server makes one at its start. Invariant: monotonic time counts from there.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use teu_master_core::Now;

/// Counts from the daemon's start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            started: Instant::now(),
        }
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The time as the core wants it.
    pub(crate) fn now(&self) -> Now {
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            monotonic_ms: millis(self.elapsed()),
            unix_ms: millis(unix),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
