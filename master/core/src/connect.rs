//! A peer connected: as what, and to which session.
//!
//! Invariant: the role is the one that the key is enrolled for; an unknown, revoked or wrong-role
//! key is rejected the same way. Next: [`crate::ready`] for what it is told first.

use teu_protocol::{
    ids::{PublicKey, SessionId},
    message::{Initiate, Refusal, RefusalCode, Role, SessionAsk},
};

use crate::{ConnectionId, Core, Effect, limits, record, record::StoreOp, refusals};

impl Core {
    pub(crate) fn connected(
        &mut self,
        connection: ConnectionId,
        key: PublicKey,
        initiate: Initiate,
        random: [u8; 16],
    ) {
        match (initiate.role, self.nodes.by_key(&key)) {
            (Role::Client, None) if self.accounts.may_connect(&key) => {
                if let Err(refusal) = self.client_connected(connection, key, &initiate, random) {
                    self.close(connection, refusal);
                }
            }
            (Role::Node, Some(node)) => self.node_connected(connection, node),
            _ => self.effects.push(Effect::Reject { connection }),
        }
    }

    fn client_connected(
        &mut self,
        connection: ConnectionId,
        account: PublicKey,
        initiate: &Initiate,
        random: [u8; 16],
    ) -> Result<(), Refusal> {
        self.check_connections(&account, initiate)?;
        let id = self.session_asked(account, &initiate.session, random)?;
        let held_until_ms = self.clock() + limits::READY_HELD_MS;
        let settled = self.is_settled();
        let session = self
            .sessions
            .get_mut(&id)
            .ok_or_else(refusals::no_session)?;
        if !session.has_room_for(&initiate.attachment) {
            return Err(refusals::limit(
                "too many programs are attached to this session",
            ));
        }
        let hold = session.restored && !settled;
        if let Some(earlier) = session.attach(initiate.attachment, connection) {
            self.replace(earlier);
        }
        let who = (id, initiate.attachment, account);
        self.connections
            .add_client(connection, who, hold.then_some(held_until_ms));
        if !hold {
            self.send_ready(connection, &id);
        }
        Ok(())
    }

    /// The account may have a further connection, or this one replaces one of its own.
    fn check_connections(&self, account: &PublicKey, initiate: &Initiate) -> Result<(), Refusal> {
        let own = self.connections.of_account(account);
        if own < limits::CONNECTIONS_PER_ACCOUNT {
            return Ok(());
        }
        let asked = match &initiate.session {
            SessionAsk::New => None,
            SessionAsk::Resume(id) => Some(*id),
            SessionAsk::Named(name) => self.sessions.named(account, name),
        };
        let session = asked.and_then(|id| self.sessions.of_account(account, &id));
        if session.is_some_and(|session| session.is_connected(&initiate.attachment)) {
            return Ok(());
        }
        Err(refusals::limit(format!(
            "this account has {own} connections, which is the most. End programs that use it, then \
             connect again"
        )))
    }

    fn session_asked(
        &mut self,
        account: PublicKey,
        ask: &SessionAsk,
        random: [u8; 16],
    ) -> Result<SessionId, Refusal> {
        let name = match ask {
            SessionAsk::Resume(id) => {
                let session = self.sessions.of_account(&account, id);
                return session
                    .map(|s| s.record().id)
                    .ok_or_else(refusals::no_session);
            }
            SessionAsk::Named(name) => match self.sessions.named(&account, name) {
                Some(id) => return Ok(id),
                None => Some(name.clone()),
            },
            SessionAsk::New => None,
        };
        let id = SessionId::from_bytes(random);
        let record = record::Session {
            id,
            account,
            name,
            created_ms: self.now.unix_ms,
        };
        self.sessions.open(record.clone())?;
        self.persist(StoreOp::PutSession(record));
        Ok(id)
    }

    /// A client came back before its earlier connection was seen to be gone.
    fn replace(&mut self, earlier: ConnectionId) {
        self.connections.remove(earlier);
        self.close_streams_of(earlier);
        let reason = Refusal::new(
            RefusalCode::Unavailable,
            "the same program has connected again; this connection is replaced by that one",
        );
        self.close(earlier, reason);
    }
}
