//! Who is at the other end of each connection: decided once, when it connects.
//!
//! Invariant: a [`Caller`] is made only here, from what the handshake proved; requests carry it
//! instead of anything that the peer says about itself.

use std::collections::{BTreeMap, BTreeSet};

use teu_protocol::ids::{AttachmentId, NodeId, PublicKey, RequestId, SessionId};

use crate::ConnectionId;

/// All live connections.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    peers: BTreeMap<ConnectionId, Peer>,
    /// How many are of each account.
    by_account: BTreeMap<PublicKey, usize>,
}

/// The other end.
#[derive(Debug)]
pub(crate) enum Peer {
    /// A client program.
    Client(Client),
    /// A node's agent.
    Node(NodeId),
}

/// A connected client program.
#[derive(Debug)]
pub(crate) struct Client {
    session: SessionId,
    attachment: AttachmentId,
    account: PublicKey,
    /// Requests that wait for their replies.
    waiting: BTreeSet<RequestId>,
    /// READY is not sent before this time, unless all nodes have reported.
    pub(crate) ready_held_until_ms: Option<u64>,
}

/// Who asks: proven by the connection that the request came on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) connection: ConnectionId,
    pub(crate) session: SessionId,
    pub(crate) attachment: AttachmentId,
    pub(crate) account: PublicKey,
    /// The request that it asks with.
    pub(crate) request: RequestId,
}

impl Connections {
    pub(crate) fn add_client(
        &mut self,
        connection: ConnectionId,
        (session, attachment, account): (SessionId, AttachmentId, PublicKey),
        ready_held_until_ms: Option<u64>,
    ) {
        let waiting = BTreeSet::new();
        let client = Client {
            session,
            attachment,
            account,
            waiting,
            ready_held_until_ms,
        };
        self.peers.insert(connection, Peer::Client(client));
        *self.by_account.entry(account).or_default() += 1;
    }

    pub(crate) fn add_node(&mut self, connection: ConnectionId, node: NodeId) {
        self.peers.insert(connection, Peer::Node(node));
    }

    pub(crate) fn remove(&mut self, connection: ConnectionId) -> Option<Peer> {
        let peer = self.peers.remove(&connection)?;
        if let Peer::Client(client) = &peer
            && let Some(count) = self.by_account.get_mut(&client.account)
        {
            *count -= 1;
            if *count == 0 {
                self.by_account.remove(&client.account);
            }
        }
        Some(peer)
    }

    pub(crate) fn of_account(&self, account: &PublicKey) -> usize {
        self.by_account.get(account).copied().unwrap_or_default()
    }

    pub(crate) fn caller(&self, connection: ConnectionId, request: RequestId) -> Option<Caller> {
        match self.peers.get(&connection)? {
            Peer::Client(client) => Some(Caller {
                connection,
                session: client.session,
                attachment: client.attachment,
                account: client.account,
                request,
            }),
            Peer::Node(_) => None,
        }
    }

    pub(crate) fn node(&self, connection: ConnectionId) -> Option<NodeId> {
        match self.peers.get(&connection)? {
            Peer::Node(node) => Some(*node),
            Peer::Client(_) => None,
        }
    }

    pub(crate) fn client_mut(&mut self, connection: ConnectionId) -> Option<&mut Client> {
        match self.peers.get_mut(&connection)? {
            Peer::Client(client) => Some(client),
            Peer::Node(_) => None,
        }
    }

    /// Clients whose READY is held, oldest first.
    pub(crate) fn held(&self) -> Vec<(ConnectionId, u64)> {
        let until = |peer: &Peer| match peer {
            Peer::Client(client) => client.ready_held_until_ms,
            Peer::Node(_) => None,
        };
        self.peers
            .iter()
            .filter_map(|(id, peer)| Some((*id, until(peer)?)))
            .collect()
    }

    pub(crate) fn clients(&self) -> usize {
        self.peers
            .values()
            .filter(|peer| matches!(peer, Peer::Client(_)))
            .count()
    }
}

impl Client {
    /// It has been sent READY: events may follow.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready_held_until_ms.is_none()
    }

    pub(crate) fn session(&self) -> SessionId {
        self.session
    }

    pub(crate) fn attachment(&self) -> AttachmentId {
        self.attachment
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn waits_for(&mut self, request: RequestId) {
        self.waiting.insert(request);
    }

    pub(crate) fn was_answered(&mut self, request: &RequestId) {
        self.waiting.remove(request);
    }
}
