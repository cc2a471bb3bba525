//! The master's other half, as a model: performs the core's effects in order, keeps the store and
//! the table of routes, and dies in the middle.

use std::collections::{BTreeMap, BTreeSet};

use teu_master_core::{
    Config, ConnectionId, Core, Now,
    effect::StreamEndpoint,
    record::{Restored, Session, StoreOp},
};
use teu_protocol::ids::{SessionId, StreamId};

use super::scenery;

/// The process: gone with a crash, but for the store.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) core: Core,
    pub(super) started_at: u64,
    pub(super) routes: Vec<(StreamEndpoint, StreamEndpoint)>,
    pub(super) next_tick: u64,
}

/// What survives.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) sessions: BTreeMap<SessionId, Session>,
    /// When each session ended.
    pub(super) ended: BTreeMap<SessionId, u64>,
}

impl Daemon {
    pub(super) fn start(store: &Store, now: u64) -> Self {
        let sessions = store.sessions.values().cloned().collect();
        let restored = Restored {
            sessions,
            ..scenery::stored()
        };
        let core = Core::new(Config::default(), restored, clock(now, now));
        Self {
            core,
            started_at: now,
            routes: Vec::new(),
            next_tick: now + 250,
        }
    }

    pub(super) fn now(&self, now: u64) -> Now {
        clock(now, self.started_at)
    }

    /// Takes the route of which this is a side; returns its other side.
    pub(super) fn take_route(
        &mut self,
        connection: ConnectionId,
        stream: StreamId,
    ) -> Option<(StreamEndpoint, StreamEndpoint)> {
        let is = |side: &StreamEndpoint| side.connection == connection && side.stream == stream;
        let at = self.routes.iter().position(|(a, b)| is(a) || is(b))?;
        let (a, b) = self.routes.swap_remove(at);
        Some(if is(&a) { (a, b) } else { (b, a) })
    }

    pub(super) fn routed(&self) -> BTreeSet<ConnectionId> {
        self.routes
            .iter()
            .flat_map(|(a, b)| [a.connection, b.connection])
            .collect()
    }
}

impl Store {
    pub(super) fn persist(&mut self, op: StoreOp, now: u64) {
        match op {
            StoreOp::PutSession(session) => {
                self.sessions.insert(session.id, session);
            }
            StoreOp::RemoveSession(id) => {
                self.sessions.remove(&id);
                self.ended.insert(id, now);
            }
            // Accounts, nodes and images do not change here.
            _ => {}
        }
    }
}

fn clock(now: u64, started_at: u64) -> Now {
    Now {
        monotonic_ms: now - started_at,
        unix_ms: 1_700_000_000_000 + now,
    }
}
