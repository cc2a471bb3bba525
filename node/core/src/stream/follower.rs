//! A reader of a process's log: what to do next, given how far the log is and what may be sent.
//!
//! ```text
//! step ──▶ Read(at most n) ──sent──▶ step …      nothing new: Wait for growth
//!   │                                            no credit: Wait for credit
//!   └─ all was sent and it has ended (or we do not follow) ──▶ Close
//! ```
//! Owner: the stream's task. Invariants: nothing is read beyond the credit; Close comes only after
//! the last byte; acknowledgements follow what the reader has consumed, not what was sent.

use std::collections::VecDeque;

use teu_protocol::{
    flow::SendWindow,
    message::{StreamEnd, Termination},
};

/// The most to read at once: four full parts of a message.
const READ_MAX: u64 = 4 * teu_protocol::limits::MAX_PART_CONTENT_BYTES as u64;

/// What a reader with a large window may have under way beyond what it is known to have: it grants in
/// large steps, so its acknowledgements would come too late for a process that waits for them.
pub const ACKNOWLEDGED_WITHIN: u64 = 1024 * 1024;

/// How far a process's log is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogProgress {
    /// The cursor after its last byte.
    pub end: u64,
    /// Its process ended: `end` is final.
    pub ended: Option<Termination>,
}

/// What a follower does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FollowStep {
    /// Read and send at most this many bytes.
    Read {
        /// At most.
        max: u64,
    },
    /// Wait until the log grows or ends.
    WaitForLog,
    /// Wait until credit comes.
    WaitForCredit,
    /// Close the stream.
    Close(StreamEnd),
}

/// Where a reader is.
#[derive(Debug, Clone)]
pub struct Follower {
    cursor: u64,
    credit: SendWindow,
    /// `None`: follow until the process ends; else: until here.
    until: Option<u64>,
    /// Bytes sent, and bytes for which credit came back: the reader has consumed them.
    sent: u64,
    consumed: u64,
    /// Sums of `sent` and the cursors that belong to them, not yet acknowledged.
    marks: VecDeque<(u64, u64)>,
    acknowledged: u64,
}

impl Follower {
    /// A reader from `cursor` on. If it does not follow, it stops where the log ends now.
    #[must_use]
    pub const fn new(cursor: u64, window: u64, follow: bool, now: LogProgress) -> Self {
        let until = if follow { None } else { Some(now.end) };
        Self {
            cursor,
            credit: SendWindow::new(window),
            until,
            sent: 0,
            consumed: 0,
            marks: VecDeque::new(),
            acknowledged: cursor,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn step(&self, log: LogProgress) -> FollowStep {
        let end = self.until.unwrap_or(log.end);
        if self.cursor >= end {
            return match (self.until, log.ended) {
                (Some(_), _) => FollowStep::Close(StreamEnd::Done),
                (None, Some(termination)) => FollowStep::Close(StreamEnd::Exited(termination)),
                (None, None) => FollowStep::WaitForLog,
            };
        }
        match self.credit.available() {
            0 => FollowStep::WaitForCredit,
            credit => FollowStep::Read {
                max: credit.min(READ_MAX),
            },
        }
    }

    /// `bytes` were sent; the next unread byte is at `cursor` (it may have skipped bytes that the
    /// log no longer keeps).
    pub fn sent(&mut self, bytes: u64, cursor: u64) {
        self.credit.take(bytes);
        self.cursor = self.cursor.max(cursor);
        self.sent += bytes;
        self.marks.push_back((self.sent, self.cursor));
        self.acknowledge();
    }

    /// The reader grants more: it has consumed as much (or its window grows, which is less than
    /// [`ACKNOWLEDGED_WITHIN`] over a stream's life).
    pub fn grant(&mut self, bytes: u64) {
        // One that grants more than a stream may have gets no credit for it.
        let _ = self.credit.grant(bytes);
        self.consumed = self.consumed.saturating_add(bytes).min(self.sent);
        self.acknowledge();
    }

    fn acknowledge(&mut self) {
        let consumed = self
            .consumed
            .max(self.sent.saturating_sub(ACKNOWLEDGED_WITHIN));
        while let Some((_, cursor)) = self.marks.pop_front_if(|(sent, _)| *sent <= consumed) {
            self.acknowledged = cursor;
        }
    }

    /// Everything before this is with the reader, or at most [`ACKNOWLEDGED_WITHIN`] bytes short of it: a
    /// reader that comes back stands there or further on.
    #[must_use]
    pub const fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// The next unread byte.
    #[must_use]
    pub const fn cursor(&self) -> u64 {
        self.cursor
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use teu_protocol::message::{Cause, ExitStatus};

    use super::*;

    const END: Termination = Termination {
        status: ExitStatus::Code(0),
        cause: Cause::Exited,
    };

    #[derive(Debug, Clone)]
    enum Step {
        Grow(u64),
        Grant(u64),
        Turn,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..5_000_u64).prop_map(Step::Grow),
            (1..5_000_u64).prop_map(Step::Grant),
            Just(Step::Turn),
        ]
    }

    proptest! {
        #[test]
        fn every_byte_is_sent_once_before_the_close(
            steps in proptest::collection::vec(step(), 0..200),
            window in 0..1_000_u64,
        ) {
            let mut log = LogProgress::default();
            let mut follower = Follower::new(0, window, true, log);
            let (mut granted, mut sent) = (window, 0);
            for step in steps {
                match step {
                    Step::Grow(bytes) => log.end += bytes,
                    Step::Grant(bytes) => {
                        granted += bytes;
                        follower.grant(bytes);
                    }
                    Step::Turn => match follower.step(log) {
                        FollowStep::Read { max } => {
                            let now = max.min(log.end - follower.cursor());
                            sent += now;
                            follower.sent(now, sent);
                            prop_assert!(sent <= granted);
                        }
                        FollowStep::WaitForLog => prop_assert_eq!(sent, log.end),
                        FollowStep::WaitForCredit => prop_assert_eq!(sent, granted),
                        FollowStep::Close(_) => prop_assert!(false, "closed before the end"),
                    },
                }
            }
            log.ended = Some(END);
            while let FollowStep::Read { .. } | FollowStep::WaitForCredit = follower.step(log) {
                follower.grant(1);
                sent += 1;
                follower.sent(1, sent);
            }
            prop_assert_eq!(follower.step(log), FollowStep::Close(StreamEnd::Exited(END)));
            prop_assert_eq!(sent, log.end);
        }
    }

    #[test]
    fn a_reader_that_does_not_follow_stops_where_the_log_was() {
        let log = LogProgress {
            end: 5,
            ended: None,
        };
        let mut follower = Follower::new(3, 100, false, log);
        let later = LogProgress {
            end: 50,
            ended: None,
        };
        assert_eq!(follower.step(later), FollowStep::Read { max: 100 });
        follower.sent(2, 5);
        assert_eq!(follower.step(later), FollowStep::Close(StreamEnd::Done));
    }

    #[test]
    fn what_is_acknowledged_was_consumed_or_is_not_far_behind() {
        let log = LogProgress::default();
        let mut follower = Follower::new(0, 64 << 20, true, log);
        follower.sent(100, 100);
        follower.sent(100, 250); // A gap of 50 bytes.
        assert_eq!(follower.acknowledged(), 0);
        follower.grant(99);
        assert_eq!(follower.acknowledged(), 0);
        follower.grant(1);
        assert_eq!(follower.acknowledged(), 100);
        follower.grant(1 << 20);
        assert_eq!(follower.acknowledged(), 250);
        // A reader of a huge window says nothing for long.
        follower.sent(ACKNOWLEDGED_WITHIN, 10 << 20);
        assert_eq!(follower.acknowledged(), 250);
        follower.sent(ACKNOWLEDGED_WITHIN, 20 << 20);
        assert_eq!(follower.acknowledged(), 10 << 20);
        // A gap with nothing behind it is passed at once when all before it was consumed.
        follower.grant(64 << 20);
        follower.sent(0, 30 << 20);
        assert_eq!(follower.acknowledged(), 30 << 20);
    }
}
