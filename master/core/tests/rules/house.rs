//! A location to talk to: two accounts, two nodes, one image, a clock.

use std::net::Ipv4Addr;

use bytes::Bytes;
use teu_master_core::{
    Config, ConnectionId, Core, Effect, Input, Now, Outbound,
    record::{Account, Image, Node, Possession, Restored, Session, Volume},
};
use teu_protocol::{
    ids::{AttachmentId, ContainerId, Digest, NodeId, PublicKey, RequestId, SessionId},
    message::{
        ClientToMaster, Compression, ContainerInfo, ContainerState, EventBody, ImageManifest,
        Initiate, LayerRef, MasterToClient, MasterToNode, NodeCapacity, NodeContainer,
        NodeReplyBody, NodeReport, NodeRequest, NodeRequestBody, NodeSpawn, NodeToMaster,
        NodeUsage, Ready, Refusal, Reply, ReplyBody, Request, RequestBody, Role, SessionAsk,
        SpawnSpec,
    },
};

pub(crate) const ALICE: PublicKey = PublicKey::from_bytes([1; 32]);
pub(crate) const BOB: PublicKey = PublicKey::from_bytes([2; 32]);
pub(crate) const NODE_KEYS: [PublicKey; 2] = [
    PublicKey::from_bytes([11; 32]),
    PublicKey::from_bytes([12; 32]),
];
pub(crate) const NODES: [NodeId; 2] = [NodeId::from_bytes([11; 16]), NodeId::from_bytes([12; 16])];
pub(crate) const RUNNING: ContainerState = ContainerState::Running { since_ms: 5 };

/// The location.
pub(crate) struct House {
    pub(crate) core: Core,
    pub(crate) now: Now,
    connections: u64,
    requests: u8,
}

/// The image that both accounts have.
pub(crate) fn image() -> ImageManifest {
    let diff_id = Digest::of(b"tar");
    let config =
        format!(r#"{{"os":"linux","architecture":"amd64","rootfs":{{"diff_ids":["{diff_id}"]}}}}"#);
    let layer = LayerRef {
        digest: Digest::of(b"blob"),
        diff_id,
        size: 4,
        compression: Compression::Gzip,
    };
    ImageManifest {
        id: Digest::of(config.as_bytes()),
        config: config.into_bytes(),
        layers: vec![layer],
    }
}

pub(crate) fn stored() -> Restored {
    let account = |key, admin| Account {
        key,
        name: "x".into(),
        admin,
    };
    let node = |n: usize| Node {
        id: NODES[n],
        key: NODE_KEYS[n],
        name: format!("node{n}"),
        subnet: u16::try_from(n).unwrap(),
        prefix: 24,
    };
    let image = |account| Image {
        account,
        manifest: image(),
        names: ["app:latest".to_owned()].into(),
        platform: "linux/amd64".into(),
        added_ms: 0,
    };
    let possession = |account| Possession {
        account,
        digest: Digest::of(b"blob"),
        size: 4,
    };
    Restored {
        accounts: vec![account(ALICE, true), account(BOB, false)],
        nodes: vec![node(0), node(1)],
        sessions: Vec::new(),
        images: vec![image(ALICE), image(BOB)],
        possessions: vec![possession(ALICE), possession(BOB)],
        volumes: Vec::new(),
        destroyed: Vec::new(),
    }
}

pub(crate) fn report(containers: Vec<NodeContainer>) -> NodeReport {
    NodeReport {
        platform: "linux/amd64".into(),
        version: "1".into(),
        capacity: NodeCapacity {
            cpu_millis: 4_000,
            memory_bytes: 8 << 30,
            disk_bytes: 1 << 40,
            pool_bytes: 1 << 40,
        },
        usage: NodeUsage {
            memory_free_bytes: 8 << 30,
            disk_free_bytes: 1 << 40,
            pool_free_bytes: 1 << 39,
            ..NodeUsage::default()
        },
        containers,
        layers: Vec::new(),
        volumes: Some(Vec::new()),
    }
}

pub(crate) fn spec() -> SpawnSpec {
    SpawnSpec {
        node: Some(NODES[0]),
        ..SpawnSpec::of(image().id, "app")
    }
}

pub(crate) fn attachment(n: u8) -> AttachmentId {
    AttachmentId::from_bytes([n; 16])
}

/// The container as its node would report it.
pub(crate) fn as_reported(spawn: &NodeSpawn, ip: Ipv4Addr) -> NodeContainer {
    NodeContainer {
        container: spawn.container,
        session: spawn.session,
        attachment: spawn.attachment,
        account: spawn.account,
        lifetime: spawn.spec.lifetime,
        tag: spawn.spec.tag.clone(),
        labels: spawn.spec.labels.clone(),
        image: spawn.spec.image,
        image_name: spawn.spec.image_name.clone(),
        command: vec!["app".into()],
        created_ms: spawn.created_ms,
        ip: Some(ip),
        state: RUNNING,
        tty: false,
        limits: spawn.spec.limits,
        allowed_from: Vec::new(),
        volumes: spawn.spec.volumes.clone(),
        processes: Vec::new(),
        readers: Vec::new(),
    }
}

pub(crate) fn ip(node: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 20, node, host)
}

impl House {
    /// A running location with both nodes up.
    pub(crate) fn open() -> (Self, [ConnectionId; 2]) {
        let mut house = Self::start(stored());
        let nodes = [0, 1].map(|n| house.node(n, Vec::new()));
        (house, nodes)
    }

    /// A master that has just started.
    pub(crate) fn start(stored: Restored) -> Self {
        let now = Now {
            monotonic_ms: 0,
            unix_ms: 1_000_000,
        };
        let core = Core::new(Config::default(), stored, now);
        Self {
            core,
            now,
            connections: 0,
            requests: 0,
        }
    }

    pub(crate) fn input(&mut self, input: Input) -> Vec<Effect> {
        self.core.handle(input, self.now)
    }

    /// Lets time pass, tick by tick.
    pub(crate) fn pass(&mut self, ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        for _ in 0..ms.div_ceil(250) {
            self.now.monotonic_ms += 250;
            self.now.unix_ms += 250;
            effects.extend(self.input(Input::Tick));
        }
        effects
    }

    pub(crate) fn connect(
        &mut self,
        key: PublicKey,
        role: Role,
        session: SessionAsk,
        attachment: AttachmentId,
    ) -> (ConnectionId, Vec<Effect>) {
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        let initiate = Initiate {
            role,
            features: Vec::new(),
            name: "test".into(),
            session,
            attachment,
        };
        let mut random = [0x5e; 16];
        random[8..].copy_from_slice(&self.connections.to_be_bytes());
        let effects = self.input(Input::Connected {
            connection,
            key,
            initiate,
            random,
        });
        (connection, effects)
    }

    /// A client with its READY.
    pub(crate) fn client(
        &mut self,
        key: PublicKey,
        session: SessionAsk,
        attachment: AttachmentId,
    ) -> (ConnectionId, Ready) {
        let (connection, effects) = self.connect(key, Role::Client, session, attachment);
        (connection, ready(&effects, connection).expect("READY"))
    }

    /// A node that connects and reports.
    pub(crate) fn node(&mut self, n: usize, containers: Vec<NodeContainer>) -> ConnectionId {
        self.node_with_effects(n, containers).0
    }

    pub(crate) fn node_with_effects(
        &mut self,
        n: usize,
        containers: Vec<NodeContainer>,
    ) -> (ConnectionId, Vec<Effect>) {
        self.node_that_reports(n, report(containers))
    }

    pub(crate) fn node_that_reports(
        &mut self,
        n: usize,
        report: NodeReport,
    ) -> (ConnectionId, Vec<Effect>) {
        let (connection, mut effects) =
            self.connect(NODE_KEYS[n], Role::Node, SessionAsk::New, attachment(0));
        let report = NodeToMaster::Report(Box::new(report));
        effects.extend(self.node_says(connection, report));
        (connection, effects)
    }

    pub(crate) fn node_says(
        &mut self,
        connection: ConnectionId,
        message: NodeToMaster,
    ) -> Vec<Effect> {
        self.input(Input::Node {
            connection,
            message,
            bulk: Vec::new(),
        })
    }

    pub(crate) fn node_replies(
        &mut self,
        connection: ConnectionId,
        id: RequestId,
        result: Result<NodeReplyBody, Refusal>,
    ) -> Vec<Effect> {
        self.node_says(connection, NodeToMaster::Reply { id, result })
    }

    pub(crate) fn next_id(&mut self) -> RequestId {
        self.requests += 1;
        RequestId::from_bytes([self.requests; 16])
    }

    /// Asks with a fresh id.
    pub(crate) fn ask(&mut self, connection: ConnectionId, body: RequestBody) -> Vec<Effect> {
        let id = self.next_id();
        self.ask_as(connection, id, body)
    }

    pub(crate) fn ask_as(
        &mut self,
        connection: ConnectionId,
        id: RequestId,
        body: RequestBody,
    ) -> Vec<Effect> {
        self.ask_with(connection, id, body, Vec::new())
    }

    pub(crate) fn ask_with(
        &mut self,
        connection: ConnectionId,
        id: RequestId,
        body: RequestBody,
        bulk: Vec<Bytes>,
    ) -> Vec<Effect> {
        let message = ClientToMaster::Request(Box::new(Request { id, body }));
        self.input(Input::Client {
            connection,
            message,
            bulk,
        })
    }

    pub(crate) fn goodbye(&mut self, connection: ConnectionId) -> Vec<Effect> {
        let message = ClientToMaster::Goodbye;
        self.input(Input::Client {
            connection,
            message,
            bulk: Vec::new(),
        })
    }

    pub(crate) fn disconnect(&mut self, connection: ConnectionId) -> Vec<Effect> {
        self.input(Input::Disconnected { connection })
    }

    /// Spawns on the first node, which gives it the address that ends in `host`.
    pub(crate) fn spawned(
        &mut self,
        client: ConnectionId,
        node: ConnectionId,
        spec: SpawnSpec,
        host: u8,
    ) -> (ContainerInfo, NodeSpawn) {
        let effects = self.ask(client, RequestBody::Spawn(Box::new(spec)));
        let NodeRequest { id, body } = order(&effects, node);
        let NodeRequestBody::Spawn(spawn) = body else {
            panic!("a spawn was ordered")
        };
        let result = Ok(NodeReplyBody::Spawned {
            ip: ip(0, host),
            state: RUNNING,
            command: vec!["app".into()],
        });
        let effects = self.node_replies(node, id, result);
        match reply(&effects, client).result {
            Ok(ReplyBody::Spawned(info)) => (*info, *spawn),
            other => panic!("it was not spawned: {other:?}"),
        }
    }

    /// What a restarted master would find in the store.
    pub(crate) fn restart(&mut self, sessions: Vec<Session>) {
        self.restart_with(sessions, Vec::new());
    }

    pub(crate) fn restart_with(&mut self, sessions: Vec<Session>, volumes: Vec<Volume>) {
        self.restart_as(Restored {
            sessions,
            volumes,
            ..stored()
        });
    }

    pub(crate) fn restart_as(&mut self, restored: Restored) {
        let now = Now {
            monotonic_ms: 0,
            unix_ms: self.now.unix_ms + 1,
        };
        self.now = now;
        self.core = Core::new(Config::default(), restored, now);
    }
}

/// Messages to that client.
pub(crate) fn told(effects: &[Effect], to: ConnectionId) -> Vec<MasterToClient> {
    let told = effects.iter().filter_map(|effect| match effect {
        Effect::Send {
            connection,
            message: Outbound::Client(message),
            ..
        } if *connection == to => Some(message.clone()),
        _ => None,
    });
    told.collect()
}

pub(crate) fn ready(effects: &[Effect], to: ConnectionId) -> Option<Ready> {
    told(effects, to)
        .into_iter()
        .find_map(|message| match message {
            MasterToClient::Ready(ready) => Some(*ready),
            _ => None,
        })
}

/// The one reply to that client.
pub(crate) fn reply(effects: &[Effect], to: ConnectionId) -> Reply {
    let mut replies = replies(effects, to);
    assert_eq!(replies.len(), 1, "one reply: {effects:?}");
    replies.remove(0)
}

pub(crate) fn replies(effects: &[Effect], to: ConnectionId) -> Vec<Reply> {
    let replies = told(effects, to)
        .into_iter()
        .filter_map(|message| match message {
            MasterToClient::Reply(reply) => Some(*reply),
            _ => None,
        });
    replies.collect()
}

pub(crate) fn refusal(effects: &[Effect], to: ConnectionId) -> Refusal {
    reply(effects, to).result.expect_err("a refusal")
}

pub(crate) fn events(effects: &[Effect], to: ConnectionId) -> Vec<EventBody> {
    let events = told(effects, to)
        .into_iter()
        .filter_map(|message| match message {
            MasterToClient::Event(event) => Some(event.body),
            _ => None,
        });
    events.collect()
}

/// Orders to that node.
pub(crate) fn orders(effects: &[Effect], to: ConnectionId) -> Vec<NodeRequest> {
    let orders = effects.iter().filter_map(|effect| match effect {
        Effect::Send {
            connection,
            message: Outbound::Node(MasterToNode::Request(order)),
            ..
        } if *connection == to => Some((**order).clone()),
        _ => None,
    });
    orders.collect()
}

/// The one order to that node.
pub(crate) fn order(effects: &[Effect], to: ConnectionId) -> NodeRequest {
    let mut orders = orders(effects, to);
    assert_eq!(orders.len(), 1, "one order: {effects:?}");
    orders.remove(0)
}

/// Containers that the node is ordered to destroy.
pub(crate) fn destroyed(effects: &[Effect], to: ConnectionId) -> Vec<ContainerId> {
    let ordered = orders(effects, to)
        .into_iter()
        .filter_map(|order| match order.body {
            NodeRequestBody::Destroy(id) => Some(id),
            _ => None,
        });
    ordered.collect()
}

pub(crate) fn is_closed(effects: &[Effect], connection: ConnectionId) -> bool {
    effects
        .iter()
        .any(|e| matches!(e, Effect::Close { connection: c, .. } if *c == connection))
}

pub(crate) fn named(name: &str) -> SessionAsk {
    SessionAsk::Named(name.parse().unwrap())
}

pub(crate) fn resume(ready: &Ready) -> SessionAsk {
    SessionAsk::Resume(ready.session)
}

pub(crate) fn record(id: SessionId, name: Option<&str>) -> Session {
    Session {
        id,
        account: ALICE,
        name: name.map(|n| n.parse().unwrap()),
        created_ms: 0,
    }
}
