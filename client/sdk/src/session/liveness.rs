//! Whether the location answers: looked at only while something is expected of it.
//!
//! Owner: the session task. Invariant: whoever waits for an answer learns within about three seconds
//! that the network is silent ([`LinkState::Unanswered`]), long before the link counts as lost.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    LinkState,
    task::{Line, SessionTask},
    transport::{LinkReceive as _, Transport},
};

/// Between two looks.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// A location that has said nothing for this long while a request waits is asked whether it is there.
const QUIET_WITH_REQUESTS: Duration = Duration::from_secs(1);

/// The same while streams are open: a terminal in which nobody types costs a ping every so often.
const QUIET_WITH_STREAMS: Duration = Duration::from_secs(5);

/// A question that is unanswered for this long is told: slower lines than this exist, and then it is
/// told that the answer has come.
const TOLD_AFTER: Duration = Duration::from_secs(2);

impl<T: Transport> SessionTask<T> {
    /// How long the location may say nothing; `None` if nothing is expected of it.
    pub(super) fn quiet(&self) -> Option<Duration> {
        match self.line {
            Line::Up(_) if !self.pending.is_empty() => Some(QUIET_WITH_REQUESTS),
            Line::Up(_) if !self.streams.is_empty() => Some(QUIET_WITH_STREAMS),
            _ => None,
        }
    }

    pub(super) fn check(&mut self) {
        self.next_check = Instant::now() + CHECK_EVERY;
        let (Some(quiet), Line::Up(receiver)) = (self.quiet(), &mut self.line) else {
            return;
        };
        if let Some(unanswered) = receiver.probe(quiet).filter(|time| *time >= TOLD_AFTER) {
            let now = std::time::Instant::now();
            let since = now.checked_sub(unanswered).unwrap_or(now);
            self.link.send_if_modified(|state| {
                let news = *state == LinkState::Connected;
                if news {
                    *state = LinkState::Unanswered { since };
                }
                news
            });
        }
    }

    /// Something was heard.
    pub(super) fn answers(&self) {
        self.link.send_if_modified(|state| {
            let news = matches!(state, LinkState::Unanswered { .. });
            if news {
                *state = LinkState::Connected;
            }
            news
        });
    }
}
