//! A peer went: with a goodbye or without, for good or for a moment; and how sessions end.
//!
//! Invariants: what an attachment owns is condemned when the attachment ends, what a session owns
//! when the session ends; the end of a session is durable before anybody is told.

use teu_protocol::{
    ids::{AttachmentId, ContainerId, SessionId},
    message::{Refusal, RefusalCode},
};

use crate::{
    ConnectionId, Core, connections::Peer, limits, record::StoreOp, refusals, sessions::Expiry,
};

impl Core {
    pub(crate) fn goodbye(&mut self, connection: ConnectionId) {
        match self.connections.remove(connection) {
            Some(Peer::Client(client)) => {
                self.close_streams_of(connection);
                self.end_attachment(client.session(), client.attachment());
                let reason = Refusal::new(RefusalCode::NotFound, "goodbye");
                self.close(connection, reason);
            }
            Some(Peer::Node(node)) => self.node_lost(node, connection),
            None => {}
        }
    }

    pub(crate) fn disconnected(&mut self, connection: ConnectionId) {
        match self.connections.remove(connection) {
            Some(Peer::Client(client)) => {
                self.close_streams_of(connection);
                let (id, attachment) = (client.session(), client.attachment());
                let until_ms = self.clock() + limits::GRACE_MS;
                let Some(session) = self.sessions.get_mut(&id) else {
                    return;
                };
                if session.detach(attachment, connection, until_ms) {
                    self.sessions
                        .expires(until_ms, Expiry::Attachment(id, attachment));
                }
            }
            Some(Peer::Node(node)) => self.node_lost(node, connection),
            None => {}
        }
    }

    /// Ends what nobody came back to.
    pub(crate) fn expire_sessions(&mut self) {
        let now = self.clock();
        while let Some(expiry) = self.sessions.next_expired(now) {
            match expiry {
                Expiry::Attachment(id, attachment) => {
                    let session = self.sessions.get(&id);
                    if session.is_some_and(|s| s.grace_is_over(&attachment, now)) {
                        self.end_attachment(id, attachment);
                    }
                }
                Expiry::Deserted(id) => {
                    let session = self.sessions.get(&id);
                    if session.is_some_and(|s| s.is_deserted() && !s.is_persistent()) {
                        self.end_session(&id, refusals::no_session());
                    }
                }
            }
        }
    }

    /// A client process is gone for good.
    pub(crate) fn end_attachment(&mut self, id: SessionId, attachment: AttachmentId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.forget(&attachment);
        if session.is_deserted() && !session.is_persistent() {
            self.end_session(&id, refusals::no_session());
            return;
        }
        let all: Vec<_> = self.containers.of_session(&id).map(|c| c.info.id).collect();
        for container in all {
            let Some(found) = self.containers.get(&container) else {
                continue;
            };
            if found.ends_with(&attachment) {
                self.doom(&container);
            } else {
                self.condemn_processes(&container, Some(attachment));
                self.release_readers(&container, attachment);
            }
        }
    }

    /// The session is over: whoever is still connected is told `why`.
    pub(crate) fn end_session(&mut self, id: &SessionId, why: Refusal) {
        let Some(session) = self.sessions.remove(id) else {
            return;
        };
        self.persist(StoreOp::RemoveSession(*id));
        self.orders.forget_askers(*id);
        self.doctors.forget_askers(id);
        let connections: Vec<_> = session.connections().collect();
        for connection in connections {
            self.connections.remove(connection);
            self.close_streams_of(connection);
            self.close(connection, why.clone());
        }
        let all: Vec<ContainerId> = self.containers.of_session(id).map(|c| c.info.id).collect();
        for container in all {
            self.doom(&container);
        }
    }
}
