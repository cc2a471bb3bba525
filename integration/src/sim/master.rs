//! The master's loop: the real core's effects performed in order, up to where it dies.

use teu_master_core::{Effect, Input, Outbound};
use teu_protocol::message::MasterToClient;

use super::{
    World,
    link::{Down, End},
};

impl World {
    /// Gives the core an input and performs its effects, unless the master dies over them.
    pub(super) fn input(&mut self, input: Input) {
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        let now = daemon.now(self.now);
        let effects = daemon.core.handle(input, now);
        for effect in effects {
            if let Some((left, down)) = &mut self.dies_after {
                if *left == 0 {
                    let down = u64::from(*down);
                    self.dies_after = None;
                    self.crash_master(down);
                    return;
                }
                *left -= 1;
            }
            self.perform(effect);
        }
    }

    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(op) => self.store.persist(op, self.now),
            Effect::Send {
                connection,
                message,
                ..
            } => {
                self.must_be_durable(&message);
                self.send_down(connection, Down::Message(message));
            }
            Effect::Reject { connection } => self.send_down(connection, Down::Rejected),
            Effect::Close { connection, reason } => {
                self.send_down(connection, Down::Closing(reason));
                self.master_drops(connection);
            }
            Effect::Route { client, node } => {
                if let Some(daemon) = &mut self.daemon {
                    daemon.routes.push((client, node));
                }
            }
            Effect::Unroute {
                connection, stream, ..
            } => {
                let route = self
                    .daemon
                    .as_mut()
                    .and_then(|daemon| daemon.take_route(connection, stream));
                match route {
                    Some((a, b)) => {
                        self.send_close(a);
                        self.send_close(b);
                    }
                    None => self
                        .broken
                        .push(format!("no route to take: {connection:?} {stream}")),
                }
            }
            Effect::ReceiveLayer { .. } | Effect::SendLayer { .. } | Effect::DeleteLayer(_) => {
                self.broken
                    .push(format!("nobody asked for layers: {effect:?}"));
            }
        }
    }

    /// What a client is told of its session survives the master.
    pub(super) fn must_be_durable(&mut self, message: &Outbound) {
        if let Outbound::Client(MasterToClient::Ready(ready)) = message
            && !self.store.sessions.contains_key(&ready.session)
        {
            self.broken
                .push("READY for a session that is not durable".into());
        }
    }

    pub(super) fn crash_master(&mut self, down: u64) {
        self.daemon = None;
        self.start_master_at = self.now + down;
        let again = self.now + 200;
        for link in std::mem::take(&mut self.links)
            .into_values()
            .filter(|link| link.peer_has_it)
        {
            match link.end {
                End::Client(n) => self.clients[n].unlinked(again),
                End::Node(n) => self.nodes[n].unlinked(again),
            }
        }
    }
}
