//! The core itself: its tables, and the one routing table of what may wake it.
//!
//! Invariant: nothing changes a table but a method called, at the end, from [`Core::handle`]; and
//! every iteration whose order reaches an effect is over an ordered map.

use std::collections::BTreeMap;

use bytes::Bytes;
use teu_protocol::{
    ids::{RequestId, SessionId, StreamId},
    message::{
        ClientToMaster, Event, EventBody, MasterToClient, MasterToNode, NodeToMaster, Refusal,
        StreamFrame,
    },
};

use crate::{
    Config, ConnectionId, Effect, Input, Now, Outbound, accounts::Accounts,
    connections::Connections, containers::Containers, doctor::Doctors, images::Images, limits,
    nodes::Nodes, offers::OfferPush, orders::Orders, record, sessions::Sessions, streams::Streams,
    volumes::Volumes,
};

/// The broker's state. One a master; its owner feeds it inputs one after another.
#[derive(Debug)]
pub struct Core {
    pub(crate) config: Config,
    pub(crate) started: Now,
    pub(crate) now: Now,
    pub(crate) accounts: Accounts,
    pub(crate) sessions: Sessions,
    pub(crate) connections: Connections,
    pub(crate) nodes: Nodes,
    pub(crate) containers: Containers,
    pub(crate) orders: Orders,
    pub(crate) streams: Streams,
    pub(crate) images: Images,
    pub(crate) volumes: Volumes,
    /// Uploads that the cache prepares for: by the request that asked, their streams.
    pub(crate) uploads: BTreeMap<(ConnectionId, RequestId), StreamId>,
    pub(crate) doctors: Doctors,
    pub(crate) offer_push: OfferPush,
    /// Numbers the core's own orders.
    pub(crate) orders_issued: u64,
    pub(crate) effects: Vec<Effect>,
}

impl Core {
    /// A core with what the store holds. Nothing is connected; what the nodes run is not known.
    #[must_use]
    pub fn new(config: Config, restored: record::Restored, now: Now) -> Self {
        let record::Restored {
            accounts,
            nodes,
            sessions,
            images,
            possessions,
            volumes,
            destroyed,
        } = restored;
        Self {
            started: now,
            now,
            accounts: Accounts::new(accounts),
            sessions: Sessions::restored(sessions, now.monotonic_ms),
            connections: Connections::default(),
            nodes: Nodes::restored(nodes, config.range),
            containers: Containers::default(),
            orders: Orders::default(),
            streams: Streams::default(),
            images: Images::restored(images, possessions),
            volumes: Volumes::restored(volumes, destroyed),
            uploads: BTreeMap::new(),
            doctors: Doctors::default(),
            offer_push: OfferPush::default(),
            orders_issued: 0,
            effects: Vec::new(),
            config,
        }
    }

    /// Takes one input in and says what to do, in order.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Effect> {
        self.now = Now {
            monotonic_ms: now.monotonic_ms.max(self.now.monotonic_ms),
            ..now
        };
        match input {
            Input::Connected {
                connection,
                key,
                initiate,
                random,
            } => {
                self.connected(connection, key, initiate, random);
            }
            Input::Client {
                connection,
                message,
                bulk,
            } => self.client(connection, message, bulk),
            Input::Node {
                connection,
                message,
                ..
            } => self.node(connection, message),
            Input::Disconnected { connection } => self.disconnected(connection),
            Input::StreamClosed { connection, stream } => self.stream_closed(connection, stream),
            Input::UploadReady {
                connection,
                request,
                result,
            } => {
                self.upload_ready(connection, request, result);
            }
            Input::UploadEnded {
                connection,
                stream,
                digest,
                result,
            } => {
                self.upload_ended(connection, stream, digest, result);
            }
            Input::Tick => self.tick(),
        }
        self.tell_volumes();
        std::mem::take(&mut self.effects)
    }

    fn client(&mut self, connection: ConnectionId, message: ClientToMaster, bulk: Vec<Bytes>) {
        match message {
            ClientToMaster::Request(request) => self.request(connection, *request, bulk),
            ClientToMaster::Goodbye => self.goodbye(connection),
            ClientToMaster::Stream(StreamFrame::Close { stream, .. }) => {
                self.stream_closed(connection, stream);
            }
            ClientToMaster::Stream(_) | ClientToMaster::Ping(_) | ClientToMaster::Pong(_) => {}
        }
    }

    fn node(&mut self, connection: ConnectionId, message: NodeToMaster) {
        let Some(node) = self.connections.node(connection) else {
            return;
        };
        match message {
            NodeToMaster::Report(report) => self.reported(node, *report),
            NodeToMaster::Reply { id, result } => self.node_replied(node, id, result),
            NodeToMaster::Event(event) => self.node_event(node, *event),
            NodeToMaster::FetchLayer {
                id,
                digest,
                offset,
                stream,
                window,
            } => {
                self.fetch_layer(node, (connection, id, stream), digest, offset, window);
            }
            NodeToMaster::Goodbye => self.disconnected(connection),
            NodeToMaster::Stream(StreamFrame::Close { stream, .. }) => {
                self.stream_closed(connection, stream);
            }
            NodeToMaster::Stream(_) | NodeToMaster::Ping(_) | NodeToMaster::Pong(_) => {}
        }
    }

    /// Milliseconds since the daemon started: what deadlines are made of.
    pub(crate) fn clock(&self) -> u64 {
        self.now.monotonic_ms
    }

    /// Every node has told what it runs, or had the time to: what is not known does not exist.
    pub(crate) fn is_settled(&self) -> bool {
        self.clock() >= self.started.monotonic_ms + limits::SETTLE_MS || self.nodes.all_seen()
    }

    pub(crate) fn persist(&mut self, op: record::StoreOp) {
        self.effects.push(Effect::Persist(op));
    }

    pub(crate) fn send_client(&mut self, connection: ConnectionId, message: MasterToClient) {
        let message = Outbound::Client(message);
        self.effects.push(Effect::Send {
            connection,
            message,
            bulk: Vec::new(),
        });
    }

    pub(crate) fn send_node(
        &mut self,
        connection: ConnectionId,
        message: MasterToNode,
        bulk: Vec<Bytes>,
    ) {
        let message = Outbound::Node(message);
        self.effects.push(Effect::Send {
            connection,
            message,
            bulk,
        });
    }

    pub(crate) fn close(&mut self, connection: ConnectionId, reason: Refusal) {
        self.effects.push(Effect::Close { connection, reason });
    }

    /// Tells all of a session's connected clients, with the session's next number.
    pub(crate) fn notify(&mut self, session: &SessionId, body: EventBody) {
        let Some(session) = self.sessions.get_mut(session) else {
            return;
        };
        session.seq += 1;
        let event = Event {
            seq: session.seq,
            body,
        };
        let connections: Vec<_> = session.connections().collect();
        for connection in connections {
            if self
                .connections
                .client_mut(connection)
                .is_some_and(|client| client.is_ready())
            {
                self.send_client(connection, MasterToClient::Event(event.clone()));
            }
        }
    }
}
