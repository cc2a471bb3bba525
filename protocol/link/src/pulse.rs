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
        let lost_at = asked.first + LINK_LOST_AFTER.saturating_sub(PING_AFTER_IDLE);
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
    fn a_reader_that_was_away_asks_before_it_gives_up() {
        let mut pulse = Pulse::new(at(0));
        assert_eq!(pulse.check(at(100)), Due::Ping);
        assert_eq!(pulse.check(at(119)), Due::Ping);
        assert_eq!(pulse.check(at(120)), Due::Lost);
    }
}
