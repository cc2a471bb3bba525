//! When what changes leave behind is put right, or away.
//!
//! Owner: the worker. Invariant: what may be half done is put right before anything else is done; what is
//! merely to be removed (destroyed volumes, replaced trees) waits until nobody waits for the pool, for
//! removing a tree costs what the tree holds, and on btrfs with quotas the next snapshot pays for it.

use std::time::{Duration, Instant};

use crate::volumes::pool::PoolSpace;

/// Nobody asked for anything this long.
const QUIET: Duration = Duration::from_secs(5);

/// What is to be removed does not wait longer than this, however busy the pool is.
const AT_LATEST: Duration = Duration::from_secs(60);

/// With less than this part of its room left, a pool does not wait to get more.
const SCARCE: u64 = 8;

/// Whether [`Pool::recover`](crate::volumes::pool::Pool::recover) is to be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recovery {
    NotDue,
    /// Something is to be removed, since then.
    OnceQuiet(Instant),
    /// Something half done may lie about: before anything else.
    First,
}

impl Recovery {
    /// Something was left that is to be removed.
    pub(super) fn once_quiet(&mut self, now: Instant) {
        if *self == Self::NotDue {
            *self = Self::OnceQuiet(now);
        }
    }

    /// Whether it is to be done before anything else is.
    pub(super) fn comes_first(self, room: Option<PoolSpace>) -> bool {
        match self {
            Self::NotDue => false,
            Self::OnceQuiet(_) => room.is_some_and(|room| room.free < room.total / SCARCE),
            Self::First => true,
        }
    }

    /// Whether it is to be done now: `worked` is when the pool was last asked for something.
    pub(super) fn is_due(self, now: Instant, worked: Instant, room: Option<PoolSpace>) -> bool {
        let has_waited = match self {
            Self::OnceQuiet(since) => {
                now.duration_since(worked) >= QUIET || now.duration_since(since) >= AT_LATEST
            }
            Self::NotDue | Self::First => false,
        };
        has_waited || self.comes_first(room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_removed_waits_for_quiet_but_not_for_ever_nor_in_a_full_pool() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (roomy, full) = (
            Some(PoolSpace {
                total: 800,
                free: 100,
            }),
            Some(PoolSpace {
                total: 800,
                free: 99,
            }),
        );
        let mut recovery = Recovery::NotDue;
        assert!(!recovery.is_due(at(100), start, full));
        recovery.once_quiet(at(0));
        recovery.once_quiet(at(50));
        assert_eq!(recovery, Recovery::OnceQuiet(at(0)));
        assert!(!recovery.is_due(at(6), at(2), roomy));
        assert!(recovery.is_due(at(7), at(2), roomy));
        assert!(recovery.is_due(at(6), at(2), full));
        assert!(recovery.comes_first(full) && !recovery.comes_first(roomy));
        assert!(!recovery.is_due(at(59), at(58), None));
        assert!(recovery.is_due(at(60), at(59), None));
        recovery = Recovery::First;
        recovery.once_quiet(at(0));
        assert!(recovery == Recovery::First && recovery.is_due(at(0), at(0), roomy));
    }
}
