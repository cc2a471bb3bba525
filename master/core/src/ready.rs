//! READY for clients: the session as it stands, at once or as soon as the nodes have told.
//!
//! Invariant: no event goes to a client before its READY, and READY includes all up to its `seq`.

use teu_protocol::{
    ids::SessionId,
    message::{MasterToClient, Offer, Ready},
};

use crate::{ConnectionId, Core, limits};

impl Core {
    pub(crate) fn send_ready(&mut self, connection: ConnectionId, id: &SessionId) {
        let Some(session) = self.sessions.get(id) else {
            return;
        };
        let ready = Ready {
            session: *id,
            name: session.record().name.clone(),
            limits: limits::SESSION,
            offer: Offer {
                nodes: self.nodes.offers_since(0),
                volumes: self.volumes_of(&session.record().account),
            },
            containers: self
                .containers
                .listed(id)
                .iter()
                .map(|c| c.info.clone())
                .collect(),
            seq: session.seq,
        };
        self.send_client(connection, MasterToClient::Ready(Box::new(ready)));
        let alone = session_is_alone(self, id, connection);
        let version = self.nodes.offer_version();
        if alone && let Some(session) = self.sessions.get_mut(id) {
            session.offer_version = version;
        }
    }

    /// Sends the READYs that were held since the restart, if their time has come.
    pub(crate) fn release_held(&mut self) {
        let (settled, now) = (self.is_settled(), self.clock());
        for (connection, until_ms) in self.connections.held() {
            if !settled && now < until_ms {
                continue;
            }
            if let Some(client) = self.connections.client_mut(connection) {
                client.ready_held_until_ms = None;
                let session = client.session();
                self.send_ready(connection, &session);
            }
        }
    }
}

/// Nobody else in the session still waits to hear of an older change of the offer.
fn session_is_alone(core: &Core, id: &SessionId, connection: ConnectionId) -> bool {
    core.sessions
        .get(id)
        .is_some_and(|session| session.connections().all(|c| c == connection))
}
