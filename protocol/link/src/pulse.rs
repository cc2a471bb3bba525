//! When to ask a silent peer whether it lives, and when to give it up. Pure.

use std::time::Duration;

use teu_protocol::limits::{LINK_LOST_AFTER, PING_AFTER_IDLE};

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing before that moment.
    Nothing { until: Duration },
    /// Send a ping.
    Ping,
    /// The link is lost.
    Lost,
}

/// One peer's signs of life. Times count from any fixed moment.
#[derive(Debug)]
pub(crate) struct Pulse {
    heard: Duration,
    asked: Option<Asked>,
}

/// Pings since the peer was last heard.
#[derive(Clone, Copy, Debug)]
struct Asked {
    first: Duration,
    last: Duration,
}

impl Pulse {
    pub(crate) const fn new(now: Duration) -> Self {
        Self {
            heard: now,
            asked: None,
        }
    }

    /// Something arrived.
    pub(crate) const fn heard(&mut self, now: Duration) {
        self.heard = now;
        self.asked = None;
    }

    /// Whether to send a ping now because the peer has said nothing for `quiet`; it is taken to be done.
    pub(crate) fn ask(&mut self, now: Duration, quiet: Duration) -> bool {
        let asks = self.asked.is_none() && now >= self.heard + quiet;
        if asks {
            self.asked = Some(Asked {
                first: now,
                last: now,
            });
        }
        asks
    }

    /// How long a ping has been unanswered.
    pub(crate) fn unanswered(&self, now: Duration) -> Option<Duration> {
        self.asked.map(|asked| now.saturating_sub(asked.first))
    }

    /// Says what is due; [`Due::Ping`] is taken to be done. A reader that was itself away for long
    /// asks first: only a question that stays unanswered makes a link lost.
    pub(crate) fn check(&mut self, now: Duration) -> Due {
        let Some(asked) = self.asked else {
            let until = self.heard + PING_AFTER_IDLE;
            if now < until {
                return Due::Nothing { until };
            }
            self.asked = Some(Asked {
                first: now,
                last: now,
            });
            return Due::Ping;
        };
        // A question that came early makes no link lost early.
        let lost_at = (asked.first + LINK_LOST_AFTER.saturating_sub(PING_AFTER_IDLE))
            .max(self.heard + LINK_LOST_AFTER);
        let ping_at = asked.last + PING_AFTER_IDLE;
        if now >= lost_at {
            Due::Lost
        } else if now >= ping_at {
            self.asked = Some(Asked { last: now, ..asked });
            Due::Ping
        } else {
            Due::Nothing {
                until: ping_at.min(lost_at),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_silent_peer_is_asked_at_10_and_20_s_and_lost_at_30() {
        let mut pulse = Pulse::new(at(0));
        assert_eq!(pulse.check(at(0)), Due::Nothing { until: at(10) });
        assert_eq!(pulse.check(at(10)), Due::Ping);
        assert_eq!(pulse.check(at(10)), Due::Nothing { until: at(20) });
        assert_eq!(pulse.check(at(20)), Due::Ping);
        assert_eq!(pulse.check(at(29)), Due::Nothing { until: at(30) });
        assert_eq!(pulse.check(at(30)), Due::Lost);
    }

    #[test]
    fn a_sign_of_life_starts_over() {
        let mut pulse = Pulse::new(at(0));
        assert_eq!(pulse.check(at(10)), Due::Ping);
        pulse.heard(at(11));
        assert_eq!(pulse.check(at(20)), Due::Nothing { until: at(21) });
    }

    #[test]
    fn an_early_question_tells_of_silence_and_loses_no_link_early() {
        let mut pulse = Pulse::new(at(0));
        assert!(!pulse.ask(at(0), at(1)));
        assert_eq!(pulse.unanswered(at(1)), None);
        assert!(pulse.ask(at(1), at(1)) && !pulse.ask(at(2), at(1)));
        assert_eq!(pulse.unanswered(at(3)), Some(at(2)));
        assert_eq!(pulse.check(at(11)), Due::Ping);
        assert_eq!(pulse.check(at(21)), Due::Ping);
        assert_eq!(pulse.check(at(29)), Due::Nothing { until: at(30) });
        assert_eq!(pulse.check(at(30)), Due::Lost);
        pulse.heard(at(30));
        assert_eq!(pulse.unanswered(at(31)), None);
    }

    #[test]
    fn a_reader_that_was_away_asks_before_it_gives_up() {
        let mut pulse = Pulse::new(at(0));
        assert_eq!(pulse.check(at(100)), Due::Ping);
        assert_eq!(pulse.check(at(119)), Due::Ping);
        assert_eq!(pulse.check(at(120)), Due::Lost);
    }
}
