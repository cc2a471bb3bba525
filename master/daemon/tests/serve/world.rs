//! A master in this process, and peers to talk to it.

use std::{net::Ipv4Addr, time::Duration};

use teu_link::{Connection, DialError, Dialer, LinkReceiver, LinkSender};
use teu_master::{Bootstrap, BootstrapAccount, BootstrapNode, Config, Server};
use teu_protocol::{
    ids::{AttachmentId, ContainerId, Digest, PublicKey, RequestId, SessionId},
    message::{
        ClientToMaster, ContainerState, Event, EventBody, Initiate, Lifetime, MasterToClient,
        MasterToNode, NodeCapacity, NodeContainer, NodeReport, NodeRequest, NodeToMaster,
        NodeUsage, Ready, Refusal, ReplyBody, Request, RequestBody, Role, SessionAsk, StreamFrame,
        Topology, encode,
    },
    noise::{LocationIdentity, StaticKey},
};
use tokio::time::timeout;

pub(crate) const FQDN: &str = "test.localhost";
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn key(byte: u8) -> StaticKey {
    StaticKey::from_bytes([byte; 32]).unwrap()
}

pub(crate) const ANN: u8 = 1;
pub(crate) const BOB: u8 = 2;
pub(crate) const NODE: u8 = 9;
pub(crate) const SECOND_NODE: u8 = 10;

pub(crate) struct World {
    directory: tempfile::TempDir,
    server: Option<Server>,
    nodes: Vec<BootstrapNode>,
}

fn enrolled(byte: u8, name: &str) -> BootstrapNode {
    BootstrapNode {
        key: key(byte).public(),
        name: name.into(),
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with_nodes(vec![enrolled(NODE, "node")]).await
    }

    pub(crate) async fn with_two_nodes() -> Self {
        Self::with_nodes(vec![
            enrolled(NODE, "node"),
            enrolled(SECOND_NODE, "second"),
        ])
        .await
    }

    async fn with_nodes(nodes: Vec<BootstrapNode>) -> Self {
        let mut world = Self {
            directory: tempfile::tempdir().unwrap(),
            server: None,
            nodes,
        };
        world.start_master().await;
        world
    }

    pub(crate) async fn start_master(&mut self) {
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let mut config = Config::new(listen, self.directory.path().join("data"), FQDN);
        let account = |byte: u8, name: &str| BootstrapAccount {
            key: key(byte).public(),
            name: name.into(),
            admin: byte == ANN,
        };
        config.bootstrap = Bootstrap {
            accounts: vec![account(ANN, "ann"), account(BOB, "bob")],
            nodes: self.nodes.clone(),
        };
        self.server = Some(Server::start(config).await.unwrap());
    }

    pub(crate) async fn stop_master(&mut self) {
        timeout(PATIENCE, self.server.take().unwrap().shutdown())
            .await
            .unwrap();
    }

    pub(crate) fn layers(&self) -> std::path::PathBuf {
        self.directory.path().join("data/layers")
    }

    fn dialer(&self, byte: u8) -> Dialer {
        let server = self.server.as_ref().unwrap();
        let location = LocationIdentity::new(FQDN, server.public_key(), 1).unwrap();
        Dialer::new(server.local_addr().to_string(), location, key(byte))
    }

    pub(crate) async fn try_client(
        &self,
        byte: u8,
        session: SessionAsk,
    ) -> Result<Client, DialError> {
        let initiate = initiate(Role::Client, session);
        let connection: Connection<ClientToMaster, MasterToClient> =
            self.dialer(byte).dial(&initiate).await?;
        let (first, sender, receiver) = connection.into_parts();
        Ok(Client {
            first,
            sender,
            receiver,
            requests: 0,
        })
    }

    pub(crate) async fn client(&self, byte: u8) -> Client {
        let session = SessionAsk::Named("default".parse().unwrap());
        timeout(PATIENCE, self.try_client(byte, session))
            .await
            .unwrap()
            .unwrap()
    }

    /// Another node, which runs another container of the client's session.
    pub(crate) async fn second_node(&self, client: &mut Client) -> (Node, ContainerId) {
        let node = timeout(PATIENCE, self.try_node(SECOND_NODE))
            .await
            .unwrap()
            .unwrap();
        let mut container = node.container(client.session(), key(ANN).public());
        container.container = ContainerId::from_bytes([4; 16]);
        container.tag = None;
        let id = container.container;
        node.report(vec![container]).await;
        client.see_container(id).await;
        (node, id)
    }

    pub(crate) async fn try_node(&self, byte: u8) -> Result<Node, DialError> {
        let initiate = initiate(Role::Node, SessionAsk::New);
        let connection: Connection<NodeToMaster, MasterToNode> =
            self.dialer(byte).dial(&initiate).await?;
        let (first, sender, receiver) = connection.into_parts();
        let MasterToNode::Ready(topology) = first else {
            panic!("not READY: {first:?}")
        };
        Ok(Node {
            topology,
            sender,
            receiver,
        })
    }
}

fn initiate(role: Role, session: SessionAsk) -> Vec<u8> {
    let initiate = Initiate {
        role,
        features: Vec::new(),
        name: "test".into(),
        session,
        attachment: AttachmentId::from_bytes([7; 16]),
    };
    encode(&initiate).unwrap()
}

pub(crate) struct Client {
    pub(crate) first: MasterToClient,
    pub(crate) sender: LinkSender<ClientToMaster>,
    receiver: LinkReceiver<ClientToMaster, MasterToClient>,
    requests: u8,
}

impl Client {
    pub(crate) fn ready(&self) -> &Ready {
        match &self.first {
            MasterToClient::Ready(ready) => ready,
            other => panic!("not READY: {other:?}"),
        }
    }

    pub(crate) fn session(&self) -> SessionId {
        self.ready().session
    }

    pub(crate) async fn receive(&mut self) -> (MasterToClient, Vec<bytes::Bytes>) {
        timeout(PATIENCE, self.receiver.recv())
            .await
            .unwrap()
            .unwrap()
    }

    /// Waits for the event that a container is there.
    async fn see_container(&mut self, id: ContainerId) {
        loop {
            match self.receive().await {
                (
                    MasterToClient::Event(Event {
                        body: EventBody::Container(info),
                        ..
                    }),
                    _,
                ) => return assert_eq!(info.id, id),
                (MasterToClient::Event(_), _) => {}
                other => panic!("not an event: {other:?}"),
            }
        }
    }

    /// The next message that is no event.
    pub(crate) async fn receive_answer(&mut self) -> (MasterToClient, Vec<bytes::Bytes>) {
        loop {
            match self.receive().await {
                (MasterToClient::Event(_), _) => {}
                other => return other,
            }
        }
    }

    pub(crate) async fn receive_frame(&mut self) -> (StreamFrame, Vec<bytes::Bytes>) {
        match self.receive_answer().await {
            (MasterToClient::Stream(frame), bulk) => (frame, bulk),
            other => panic!("not a frame: {other:?}"),
        }
    }

    pub(crate) async fn ask(&mut self, body: RequestBody) -> RequestId {
        self.requests += 1;
        let id = RequestId::from_bytes([self.requests; 16]);
        self.sender
            .send(
                ClientToMaster::Request(Box::new(Request { id, body })),
                Vec::new(),
            )
            .await
            .unwrap();
        id
    }

    pub(crate) async fn reply(&mut self, id: RequestId) -> Result<ReplyBody, Refusal> {
        match self.receive_answer().await {
            (MasterToClient::Reply(reply), _) if reply.id == id => reply.result,
            other => panic!("not the reply: {other:?}"),
        }
    }

    pub(crate) async fn request(&mut self, body: RequestBody) -> Result<ReplyBody, Refusal> {
        let id = self.ask(body).await;
        self.reply(id).await
    }

    pub(crate) async fn send_frame(&self, frame: StreamFrame, bulk: Vec<bytes::Bytes>) {
        self.sender
            .send(ClientToMaster::Stream(frame), bulk)
            .await
            .unwrap();
    }
}

pub(crate) struct Node {
    pub(crate) topology: Topology,
    pub(crate) sender: LinkSender<NodeToMaster>,
    receiver: LinkReceiver<NodeToMaster, MasterToNode>,
}

impl Node {
    pub(crate) async fn receive(&mut self) -> (MasterToNode, Vec<bytes::Bytes>) {
        timeout(PATIENCE, self.receiver.recv())
            .await
            .unwrap()
            .unwrap()
    }

    pub(crate) async fn receive_order(&mut self) -> NodeRequest {
        match self.receive().await {
            (MasterToNode::Request(order), _) => *order,
            other => panic!("not an order: {other:?}"),
        }
    }

    pub(crate) async fn receive_frame(&mut self) -> (StreamFrame, Vec<bytes::Bytes>) {
        match self.receive().await {
            (MasterToNode::Stream(frame), bulk) => (frame, bulk),
            other => panic!("not a frame: {other:?}"),
        }
    }

    pub(crate) async fn send(&self, message: NodeToMaster, bulk: Vec<bytes::Bytes>) {
        self.sender.send(message, bulk).await.unwrap();
    }

    pub(crate) async fn send_frame(&self, frame: StreamFrame, bulk: Vec<bytes::Bytes>) {
        self.send(NodeToMaster::Stream(frame), bulk).await;
    }

    pub(crate) async fn report(&self, containers: Vec<NodeContainer>) {
        let report = NodeReport {
            platform: "linux/amd64".into(),
            version: "0".into(),
            capacity: NodeCapacity {
                cpu_millis: 4_000,
                memory_bytes: 8 << 30,
                disk_bytes: 100 << 30,
                pool_bytes: 0,
            },
            usage: NodeUsage {
                memory_free_bytes: 8 << 30,
                disk_free_bytes: 100 << 30,
                ..NodeUsage::default()
            },
            containers,
            layers: Vec::new(),
            volumes: None,
        };
        self.send(NodeToMaster::Report(Box::new(report)), Vec::new())
            .await;
    }

    /// A running container of that session, as this node would report it.
    pub(crate) fn container(&self, session: SessionId, account: PublicKey) -> NodeContainer {
        let mut ip = self.topology.subnet.0.octets();
        ip[3] = 2;
        NodeContainer {
            container: ContainerId::from_bytes([3; 16]),
            session,
            attachment: AttachmentId::from_bytes([7; 16]),
            account,
            lifetime: Lifetime::Session,
            tag: Some("web".parse().unwrap()),
            labels: Default::default(),
            image: Digest::of(b"image"),
            image_name: "image".into(),
            command: vec!["true".into()],
            created_ms: 1,
            ip: Some(ip.into()),
            state: ContainerState::Running { since_ms: 1 },
            tty: false,
            limits: Default::default(),
            allowed_from: Vec::new(),
            volumes: Vec::new(),
            processes: Vec::new(),
            readers: Vec::new(),
        }
    }
}

/// A client of Ann's persistent session, and a node that runs one container of it.
pub(crate) async fn client_and_container(world: &World) -> (Client, Node, ContainerId) {
    let mut client = world.client(ANN).await;
    let node = timeout(PATIENCE, world.try_node(NODE))
        .await
        .unwrap()
        .unwrap();
    let container = node.container(client.session(), key(ANN).public());
    let id = container.container;
    node.report(vec![container]).await;
    client.see_container(id).await;
    (client, node, id)
}
