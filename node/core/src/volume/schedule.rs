//! When scheduled snapshots are due.
//!
//! Periods are counted from 1970, so an hour's are on the hour. Owner: [`super::Volume`].
//! Invariants: at most one snapshot a period; periods that were missed are made up by one; a clock
//! that is set does no harm: forward it is one missed period, backward the count begins anew.

use std::time::Duration;

use teu_protocol::{
    ids::{Tag, VolumeId},
    message::{SCHEDULED_PREFIX, SnapshotSchedule, VolumeState},
};

use super::{Holders, Queued, Volume, Volumes};
use crate::{effect::Effect, input::Now};

/// The wall clock is looked at this often at least: somebody may have set it.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Where a volume is in its schedule.
#[derive(Debug, Default)]
pub(super) struct Clockwork {
    /// The schedule that is counted, the newest period that has its snapshot (or needs none), and
    /// when to look next.
    runs: Option<(SnapshotSchedule, u64, Duration)>,
}

impl Clockwork {
    pub(super) fn due(&self) -> Option<Duration> {
        self.runs.map(|(_, _, due)| due)
    }

    /// The volume has this schedule. `last_ms`: when its newest scheduled snapshot was made.
    fn wind(&mut self, schedule: Option<SnapshotSchedule>, last_ms: u64, now: Now) {
        match (self.runs, schedule) {
            (Some((old, ..)), Some(new)) if old.every_s == new.every_s => {
                if let Some((counted, ..)) = &mut self.runs {
                    *counted = new;
                }
            }
            (_, Some(new)) => {
                let last = period(new, last_ms).min(period(new, now.unix_ms));
                let due = if last < period(new, now.unix_ms) {
                    now.steady + SOON
                } else {
                    next_look(new, now)
                };
                self.runs = Some((new, last, due));
            }
            (_, None) => self.runs = None,
        }
    }

    /// Whether a snapshot is to be made now. `can`: the volume is well.
    fn strikes(&mut self, can: bool, now: Now) -> bool {
        let Some((schedule, last, due)) = &mut self.runs else {
            return false;
        };
        if *due > now.steady {
            return false;
        }
        *due = next_look(*schedule, now);
        let current = period(*schedule, now.unix_ms);
        if current < *last {
            *last = current;
        }
        let strikes = can && current > *last;
        if strikes {
            *last = current;
        }
        strikes
    }
}

/// What was missed is made up a little later: a node that starts has other things to do.
const SOON: Duration = Duration::from_secs(1);

fn period(schedule: SnapshotSchedule, unix_ms: u64) -> u64 {
    unix_ms / period_ms(schedule)
}

const fn period_ms(schedule: SnapshotSchedule) -> u64 {
    let ms = schedule.every_s.saturating_mul(1_000);
    if ms == 0 { 1 } else { ms }
}

fn next_look(schedule: SnapshotSchedule, now: Now) -> Duration {
    let every = period_ms(schedule);
    let left = Duration::from_millis(every - now.unix_ms % every);
    now.steady + left.min(LOOK_AGAIN)
}

/// `auto-20261121T143000Z`.
pub(super) fn name(unix_ms: u64) -> Option<Tag> {
    let seconds = unix_ms / 1_000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{SCHEDULED_PREFIX}{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
        .parse()
        .ok()
}

/// Days since 1970 to a date of the Gregorian calendar (Howard Hinnant, `civil_from_days`).
const fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400;
    (if month <= 2 { year + 1 } else { year }, month, day)
}

impl Volume {
    /// Its record may be new.
    pub(super) fn wind(&mut self, now: Now, scheduled_ms: Option<u64>) {
        let last = scheduled_ms.unwrap_or(self.record.created_ms);
        self.clockwork.wind(self.record.spec.schedule, last, now);
    }

    /// Its schedule is new: it counts from now on.
    pub(super) fn rewind(&mut self, now: Now) {
        self.clockwork
            .wind(self.record.spec.schedule, now.unix_ms, now);
    }
}

impl Volumes {
    pub(crate) fn tick(&mut self, holders: Holders<'_>, now: Now, effects: &mut Vec<Effect>) {
        let mut struck: Vec<VolumeId> = Vec::new();
        for (id, volume) in &mut self.table {
            let waits = |queued: &Queued| matches!(queued, Queued::Scheduled);
            let can = volume.state == VolumeState::Ready && !volume.making;
            if volume.clockwork.strikes(can, now) && !volume.queue.iter().any(waits) {
                volume.queue.push_back(Queued::Scheduled);
                struck.push(*id);
            }
        }
        for id in struck {
            self.advance(id, holders, now, effects);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dates() {
        let named = |ms| name(ms).unwrap().to_string();
        assert_eq!(named(0), "auto-19700101T000000Z");
        assert_eq!(named(951_782_400_999), "auto-20000229T000000Z");
        assert_eq!(named(1_795_271_400_000), "auto-20261121T143000Z");
        assert_eq!(named(4_107_542_399_000), "auto-21000228T235959Z");
    }

    fn every(every_s: u64) -> SnapshotSchedule {
        SnapshotSchedule { every_s, keep: 2 }
    }

    fn at(steady_s: u64, unix_s: u64) -> Now {
        Now {
            steady: Duration::from_secs(steady_s),
            unix_ms: unix_s * 1_000,
        }
    }

    #[test]
    fn it_strikes_on_multiples_and_once_for_all_that_was_missed() {
        let mut clock = Clockwork::default();
        clock.wind(Some(every(30)), 1_000_010_000, at(5, 1_000_010));
        // 1,000,020 is a multiple of 30.
        assert_eq!(clock.due(), Some(Duration::from_secs(15)));
        assert!(!clock.strikes(true, at(14, 1_000_019)));
        assert!(clock.strikes(true, at(15, 1_000_020)));
        assert!(!clock.strikes(true, at(15, 1_000_020)));
        assert_eq!(clock.due(), Some(Duration::from_secs(45)));
        // Asleep for an hour.
        assert!(clock.strikes(true, at(45, 1_003_620)));
        assert!(!clock.strikes(true, at(46, 1_003_621)));
        // Not while it cannot; then at once.
        assert!(!clock.strikes(false, at(75, 1_003_650)));
        assert!(clock.strikes(true, at(105, 1_003_680)));
    }

    #[test]
    fn a_clock_that_is_set_does_no_harm() {
        let mut clock = Clockwork::default();
        clock.wind(Some(every(3_600)), 1_000_000_000, at(0, 1_000_000));
        // Forward by a year: one snapshot; it is seen within a minute.
        assert!(clock.strikes(true, at(60, 32_000_000)));
        assert!(!clock.strikes(true, at(120, 32_000_060)));
        // Back again: none for what is counted anew, and the next hour has its own.
        assert!(!clock.strikes(true, at(180, 1_000_180)));
        let mut struck = 0;
        for minute in 4..64 {
            struck += u32::from(clock.strikes(true, at(minute * 60, 1_000_000 + minute * 60)));
        }
        assert_eq!(struck, 1);
    }

    #[test]
    fn what_was_missed_while_the_node_was_off_is_made_up() {
        let mut clock = Clockwork::default();
        clock.wind(Some(every(3_600)), 3_600_000, at(0, 100_000));
        assert_eq!(clock.due(), Some(SOON));
        assert!(clock.strikes(true, at(1, 100_001)));
        assert!(!clock.strikes(true, at(61, 100_061)));
    }
}
