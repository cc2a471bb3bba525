//! Windows that grow, against senders that keep to their credit.

use proptest::prelude::*;

use super::*;
use crate::flow::SendWindow;

const BASE: u64 = 64 << 10;
const MOST: u64 = 1 << 20;
const MIB: u64 = 1 << 20;

/// A stream whose bytes and credit arrive at once.
struct Line {
    credit: SendWindow,
    window: GrowingWindow,
}

impl Line {
    fn new(now: Duration) -> Self {
        Self {
            credit: SendWindow::new(BASE),
            window: GrowingWindow::new(BASE, MOST, now),
        }
    }

    /// Sends and consumes `bytes` or what the credit allows, whichever is less.
    fn pass(&mut self, bytes: u64, now: Duration, growth: &mut Growth) -> u64 {
        let sent = self.credit.take(bytes);
        self.window.received(sent).unwrap();
        if let Some(grant) = self.window.consumed(sent, now, growth) {
            self.credit.grant(grant).unwrap();
        }
        sent
    }

    /// Sends all that the credit allows, `rounds` times, `round_trip` apart.
    fn race(
        &mut self,
        mut now: Duration,
        rounds: u32,
        round_trip: Duration,
        growth: &mut Growth,
    ) -> Duration {
        for _ in 0..rounds {
            now += round_trip;
            self.pass(u64::MAX, now, growth);
        }
        now
    }
}

#[test]
fn a_fast_stream_has_its_largest_window_after_a_few_round_trips() {
    for round_trip in [0, 1, 50, 300] {
        let mut growth = Growth::new(64 * MIB);
        let mut line = Line::new(Duration::ZERO);
        let round_trip = Duration::from_millis(round_trip);
        line.race(Duration::ZERO, 6, round_trip, &mut growth);
        assert_eq!(line.window.size(), MOST, "{round_trip:?}");
        assert_eq!(growth.left(), 64 * MIB - (MOST - BASE));
        line.window.end(&mut growth);
        assert_eq!(growth.left(), 64 * MIB, "an ended stream gives all back");
        line.window.end(&mut growth);
        assert_eq!(growth.left(), 64 * MIB, "once");
    }
}

#[test]
fn a_slow_reader_and_an_idle_stream_keep_their_base() {
    let mut growth = Growth::new(64 * MIB);
    let mut line = Line::new(Duration::ZERO);
    for second in 1..100 {
        // 10 KB a second, and nothing for a while.
        let now = Duration::from_secs(if second > 50 { second + 1_000 } else { second });
        line.pass(10_000, now, &mut growth);
        assert_eq!(line.window.size(), BASE);
    }
    assert_eq!(growth.left(), 64 * MIB);
}

#[test]
fn growth_is_given_back_by_quiet_streams_when_others_want_it() {
    let mut growth = Growth::new(4 * MIB);
    let mut now = Duration::ZERO;
    let mut lines: Vec<Line> = (0..8).map(|_| Line::new(now)).collect();
    for line in &mut lines {
        now = line.race(now, 8, Duration::from_millis(10), &mut growth);
    }
    assert!(growth.is_scarce());
    let left = growth.left();
    now += Duration::from_secs(10);
    for line in &mut lines {
        for _ in 0..200 {
            now += Duration::from_millis(100);
            line.pass(10_000, now, &mut growth);
        }
    }
    assert!(growth.left() > left, "{} of {left}", growth.left());
    assert!(!growth.is_scarce());
    let late = &mut lines[7];
    late.race(now, 8, Duration::from_millis(10), &mut growth);
    assert!(late.window.size() > 4 * BASE, "{}", late.window.size());
}

#[test]
fn an_exhausted_budget_leaves_every_stream_its_base() {
    let mut growth = Growth::new(MIB);
    let mut lines: Vec<Line> = (0..100).map(|_| Line::new(Duration::ZERO)).collect();
    for line in &mut lines {
        line.race(Duration::ZERO, 8, Duration::from_millis(1), &mut growth);
    }
    for line in &mut lines {
        assert!(line.window.size() >= BASE);
        let passed = line.pass(BASE / 2, Duration::from_secs(1), &mut growth);
        assert_eq!(passed, BASE / 2, "nobody is stuck");
    }
    let sum: u64 = lines.iter().map(|line| line.window.size()).sum();
    assert_eq!(sum, 100 * BASE + MIB - growth.left());
}

#[derive(Debug, Clone)]
enum Step {
    Send { line: usize, bytes: u64 },
    Arrive { line: usize },
    Consume { line: usize, bytes: u64 },
    Pause(u64),
    End { line: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let line = || 0..4_usize;
    prop_oneof![
        4 => (line(), 1..200_000_u64).prop_map(|(line, bytes)| Step::Send { line, bytes }),
        4 => line().prop_map(|line| Step::Arrive { line }),
        6 => (line(), 1..200_000_u64).prop_map(|(line, bytes)| Step::Consume { line, bytes }),
        2 => (0..6_000_u64).prop_map(Step::Pause),
        1 => line().prop_map(|line| Step::End { line }),
    ]
}

proptest! {
    /// With any delay between sender and receiver: no overrun, no promise beyond bases and budget, and
    /// nobody is stuck once everything was consumed.
    #[test]
    fn promises_hold_under_any_order_and_delay(
        steps in proptest::collection::vec(step(), 0..400),
        total in 0..4_000_000_u64,
    ) {
        let mut growth = Growth::new(total);
        let mut now = Duration::ZERO;
        let mut lines: Vec<(Line, u64)> = (0..4).map(|_| (Line::new(now), 0)).collect();
        for step in steps {
            match step {
                Step::Send { line, bytes } => {
                    let (line, under_way) = &mut lines[line];
                    *under_way += line.credit.take(bytes);
                }
                Step::Arrive { line } => {
                    let (line, under_way) = &mut lines[line];
                    prop_assert_eq!(line.window.received(std::mem::take(under_way)), Ok(()));
                }
                Step::Consume { line, bytes } => {
                    let line = &mut lines[line].0;
                    let bytes = bytes.min(line.window.held());
                    if let Some(grant) = line.window.consumed(bytes, now, &mut growth) {
                        prop_assert!(!line.window.over, "nothing is granted on an ended stream");
                        line.credit.grant(grant).unwrap();
                    }
                }
                Step::Pause(milliseconds) => now += Duration::from_millis(milliseconds),
                Step::End { line } => lines[line].0.window.end(&mut growth),
            }
            let open = || lines.iter().filter(|(line, _)| !line.window.over);
            let grown: u64 = open().map(|(line, _)| line.window.size() - BASE).sum();
            prop_assert_eq!(grown, total - growth.left());
            for (line, under_way) in open() {
                let outstanding = line.credit.available() + under_way + line.window.held();
                prop_assert!(outstanding <= line.window.size());
                prop_assert!((BASE..=MOST).contains(&line.window.size()));
            }
        }
        for (line, under_way) in lines.iter_mut().filter(|(line, _)| !line.window.over) {
            line.window.received(*under_way).unwrap();
            let held = line.window.held();
            if let Some(grant) = line.window.consumed(held, now, &mut growth) {
                line.credit.grant(grant).unwrap();
            }
            prop_assert!(line.credit.available() > 0, "stuck with an empty window");
        }
    }
}
