//! What a lost connection cost: how long it was lost, and which containers the location ended meanwhile.
//!
//! Owner: the session task. Invariant: "no such container" is never all that is said of a container
//! that this program saw and that ended because the program could not be reached.

use std::{collections::HashMap, time::Duration};

use teu_protocol::{
    ids::{ContainerId, RequestId},
    message::{Refusal, RefusalCode, ReplyBody, RequestBody},
};
use tokio::time::Instant;

/// Containers that ended in cuts and are remembered: more than one session may have.
const REMEMBERED: usize = 4_096;

/// What ends in a shorter cut ended by itself: the location waits so long for a program to come back.
const LEAST: Duration = Duration::from_secs(3);

#[derive(Debug, Default)]
pub(super) struct Cuts {
    since: Option<Instant>,
    ended: HashMap<ContainerId, Duration>,
    /// Requests about such containers.
    asked: HashMap<RequestId, (ContainerId, Duration)>,
}

impl Cuts {
    /// The connection is lost.
    pub(super) fn lost(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    /// How long it has been lost.
    pub(super) fn away(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The connection is back, without these containers. How long it was lost, if that may be why.
    pub(super) fn over(&mut self, ended: &[ContainerId]) -> Option<Duration> {
        let away = self.away();
        self.since = None;
        if away < LEAST {
            return None;
        }
        if self.ended.len() + ended.len() > REMEMBERED {
            self.ended.clear();
        }
        self.ended.extend(ended.iter().map(|id| (*id, away)));
        Some(away)
    }

    /// This is being asked.
    pub(super) fn asked(&mut self, id: RequestId, body: &RequestBody) {
        if self.ended.is_empty() {
            return;
        }
        let of = |container: &ContainerId| Some((*container, *self.ended.get(container)?));
        if let Some(found) = subjects(body).iter().find_map(of) {
            self.asked.insert(id, found);
        }
    }

    /// The answer to it: "no such container" with its reason.
    pub(super) fn explain(&mut self, id: RequestId, result: &mut Result<ReplyBody, Refusal>) {
        let Some((container, away)) = self.asked.remove(&id) else {
            return;
        };
        if let Err(refusal) = result
            && refusal.code == RefusalCode::NotFound
        {
            refusal.message = format!(
                "the connection to the location was lost for {}, and the location ended what this \
                 program had started, container {} too. Start it again",
                told(away),
                container.short()
            );
        }
    }
}

/// The containers that a request is about.
fn subjects(body: &RequestBody) -> Vec<ContainerId> {
    match body {
        RequestBody::Wake(container)
        | RequestBody::Destroy(container)
        | RequestBody::Stop { container, .. }
        | RequestBody::Signal { container, .. }
        | RequestBody::Exec { container, .. }
        | RequestBody::Attach { container, .. }
        | RequestBody::Logs { container, .. }
        | RequestBody::Tunnel { container, .. }
        | RequestBody::Resize { container, .. } => vec![*container],
        RequestBody::Allow { to, from } | RequestBody::Disallow { to, from } => vec![*to, *from],
        RequestBody::Find(what) => what.parse().into_iter().collect(),
        _ => Vec::new(),
    }
}

/// `45 s`, `2 min 11 s`.
pub(crate) fn told(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}
