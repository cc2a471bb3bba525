//! How long a daemon that crashed waits before it is started again. Pure.
//!
//! Invariant: a daemon that cannot start costs the machine less and less; one that was well is back at once.

use std::time::Duration;

/// After a crash of a daemon that was well: short, for containers wait for their agent.
const AT_ONCE: Duration = Duration::from_millis(200);

/// After the second crash in a row; doubled with each further one.
const FIRST: Duration = Duration::from_secs(1);

/// The longest.
const LONGEST: Duration = Duration::from_secs(30);

/// A daemon that lived for so long had started well.
pub(super) const WELL_AFTER: Duration = Duration::from_secs(5);

/// Crashes in a row.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Backoff {
    in_a_row: u32,
}

impl Backoff {
    /// It ended after this life. `killed`: by SIGKILL, which is somebody's deed and not its own.
    pub(super) fn ended(&mut self, lived: Duration, killed: bool) -> Duration {
        if killed {
            return AT_ONCE;
        }
        self.in_a_row = match lived {
            long if long >= WELL_AFTER => 1,
            _ => self.in_a_row.saturating_add(1),
        };
        match self.in_a_row {
            1 => AT_ONCE,
            more => FIRST
                .saturating_mul(2_u32.saturating_pow(more - 2))
                .min(LONGEST),
        }
    }

    /// How often it ended by itself without having been well.
    pub(super) const fn in_a_row(self) -> u32 {
        self.in_a_row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_half_a_minute_and_begin_anew_when_it_was_well() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..8)
            .map(|_| backoff.ended(Duration::from_secs(1), false).as_secs())
            .collect();
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(backoff.in_a_row(), 8);
        assert_eq!(backoff.ended(WELL_AFTER, false), AT_ONCE);
        assert_eq!(backoff.ended(Duration::ZERO, false), FIRST);
    }

    #[test]
    fn being_killed_is_no_fault_of_the_daemon() {
        let mut backoff = Backoff::default();
        for _ in 0..100 {
            assert_eq!(backoff.ended(Duration::ZERO, true), AT_ONCE);
        }
        assert_eq!(backoff.in_a_row(), 0);
    }

    #[test]
    fn no_number_of_crashes_overflows() {
        let mut backoff = Backoff {
            in_a_row: u32::MAX - 1,
        };
        for _ in 0..3 {
            assert_eq!(backoff.ended(Duration::ZERO, false), LONGEST);
        }
    }
}
