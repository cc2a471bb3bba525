//! How a connection's promise is shared by its streams.

use super::{BASE_WINDOW_BYTES, Growth};
use crate::message::SessionLimits;

/// A base for each stream that the limits allow, and the rest for those that are fast. So all limits hold at
/// once: as many streams as are allowed have a window each, and all windows together are within the promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// What each stream gets, in bytes.
    pub base: u64,
    /// What all streams together may grow by, in bytes.
    pub growth: u64,
}

impl Shares {
    /// Half of the promise, or less, for the bases.
    #[must_use]
    pub fn of(limits: &SessionLimits) -> Self {
        let streams = u64::from(limits.streams).max(1);
        let base = (limits.window_bytes / 2 / streams).clamp(1, BASE_WINDOW_BYTES);
        let growth = limits.window_bytes.saturating_sub(base * streams);
        Self { base, growth }
    }

    /// The budget of a connection that has no stream yet.
    #[must_use]
    pub const fn budget(&self) -> Growth {
        Growth::new(self.growth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_streams_that_are_allowed_fit_at_once() {
        for (streams, window_bytes, base) in [
            (1_024, 128 << 20, BASE_WINDOW_BYTES),
            (1_024, 64 << 20, 32 << 10),
            (16, 8 << 20, BASE_WINDOW_BYTES),
            (100, 256 << 10, 1_310),
            (0, 0, 1),
        ] {
            let limits = SessionLimits {
                streams,
                window_bytes,
                containers: 1,
                volumes: 1,
                requests: 1,
            };
            let shares = Shares::of(&limits);
            assert_eq!(shares.base, base, "{limits:?}");
            let sum = shares.base * u64::from(streams) + shares.growth;
            assert!(sum <= window_bytes, "{limits:?}: {shares:?}");
        }
    }
}
