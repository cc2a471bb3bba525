//! Peers that keep to the protocol, and use it to ask for what is not theirs.

use std::{net::Ipv4Addr, time::Duration};

use teu_link::{Connection, DialError, Dialer, LinkReceiver, LinkSender};
use teu_protocol::{
    ids::{AttachmentId, ContainerId, Digest, PublicKey, RequestId, SessionId},
    message::{
        ClientToMaster, ContainerState, Initiate, Lifetime, MasterToClient, MasterToNode,
        NodeCapacity, NodeContainer, NodeReport, NodeRequest, NodeToMaster, NodeUsage, Refusal,
        ReplyBody, Request, RequestBody, ResourceLimits, Role, SessionAsk, Topology, encode,
    },
};
use tokio::time::timeout;

use super::{Target, key};

const PATIENCE: Duration = Duration::from_secs(30);

/// INITIATE's payload.
#[must_use]
#[allow(clippy::expect_used, reason = "it always encodes")]
pub fn initiate(role: Role, session: SessionAsk) -> Vec<u8> {
    let initiate = Initiate {
        role,
        features: Vec::new(),
        name: "attack".to_owned(),
        session,
        attachment: AttachmentId::from_bytes([7; 16]),
    };
    encode(&initiate).expect("INITIATE")
}

fn dialer(target: &Target, who: u8) -> Dialer {
    Dialer::new(
        target.address().to_string(),
        target.location().clone(),
        key(who),
    )
}

/// A client by `teu-link`.
#[derive(Debug)]
pub struct LinkedClient {
    /// READY, or `Closing`.
    pub first: MasterToClient,
    sender: LinkSender<ClientToMaster>,
    receiver: LinkReceiver<ClientToMaster, MasterToClient>,
    requests: u64,
}

impl LinkedClient {
    /// Connects as the key of that byte.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn dial(target: &Target, who: u8, session: SessionAsk) -> Result<Self, DialError> {
        Self::over(dialer(target, who), session).await
    }

    /// Connects to whom this dials.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn over(dialer: Dialer, session: SessionAsk) -> Result<Self, DialError> {
        let connection: Connection<ClientToMaster, MasterToClient> =
            dialer.dial(&initiate(Role::Client, session)).await?;
        let (first, sender, receiver) = connection.into_parts();
        Ok(Self {
            first,
            sender,
            receiver,
            requests: 0,
        })
    }

    /// Its session.
    #[must_use]
    #[allow(clippy::panic, reason = "a test that expects READY")]
    pub fn session(&self) -> SessionId {
        match &self.first {
            MasterToClient::Ready(ready) => ready.session,
            other => panic!("not READY: {other:?}"),
        }
    }

    /// Says something.
    #[allow(clippy::expect_used, reason = "a test that expects to be connected")]
    pub async fn say(&self, message: ClientToMaster) {
        self.sender
            .send(message, Vec::new())
            .await
            .expect("a connection");
    }

    /// Asks, without waiting.
    pub async fn ask(&mut self, body: RequestBody) -> RequestId {
        self.requests += 1;
        let mut id = [0xa5; 16];
        id[..8].copy_from_slice(&self.requests.to_be_bytes());
        let id = RequestId::from_bytes(id);
        self.say(ClientToMaster::Request(Box::new(Request { id, body })))
            .await;
        id
    }

    /// The next message that is no event, within this time.
    pub async fn hear(&mut self, within: Duration) -> Option<MasterToClient> {
        let heard = timeout(within, async {
            loop {
                match self.receiver.recv().await {
                    Ok((MasterToClient::Event(_), _)) => {}
                    Ok((message, _)) => return Some(message),
                    Err(_) => return None,
                }
            }
        });
        heard.await.ok().flatten()
    }

    /// Waits for an answer.
    #[allow(clippy::panic, reason = "a test that expects an answer")]
    pub async fn answer(&mut self, id: RequestId) -> Result<ReplyBody, Refusal> {
        match self.hear(PATIENCE).await {
            Some(MasterToClient::Reply(reply)) if reply.id == id => reply.result,
            other => panic!("not the answer: {other:?}"),
        }
    }

    /// Asks and waits for the answer.
    pub async fn request(&mut self, body: RequestBody) -> Result<ReplyBody, Refusal> {
        let id = self.ask(body).await;
        self.answer(id).await
    }
}

/// A node by `teu-link`.
#[derive(Debug)]
pub struct LinkedNode {
    topology: Topology,
    sender: LinkSender<NodeToMaster>,
    receiver: LinkReceiver<NodeToMaster, MasterToNode>,
}

impl LinkedNode {
    /// Connects as the key of that byte, in the node's role.
    ///
    /// # Errors
    /// [`DialError`].
    #[allow(clippy::panic, reason = "a test that expects READY")]
    pub async fn dial(target: &Target, who: u8) -> Result<Self, DialError> {
        let connection: Connection<NodeToMaster, MasterToNode> = dialer(target, who)
            .dial(&initiate(Role::Node, SessionAsk::New))
            .await?;
        let (first, sender, receiver) = connection.into_parts();
        let MasterToNode::Ready(topology) = first else {
            panic!("not READY: {first:?}")
        };
        Ok(Self {
            topology,
            sender,
            receiver,
        })
    }

    /// Says something.
    #[allow(clippy::expect_used, reason = "a test that expects to be connected")]
    pub async fn say(&self, message: NodeToMaster, bulk: Vec<bytes::Bytes>) {
        self.sender.send(message, bulk).await.expect("a connection");
    }

    /// Reports that it runs a container of this session, or nothing.
    pub async fn report(&self, owner: Option<(SessionId, PublicKey)>) -> ContainerId {
        let container = ContainerId::from_bytes([3; 16]);
        let containers = owner
            .map(|owner| self.container(container, owner))
            .into_iter()
            .collect();
        let report = NodeReport {
            platform: "linux/amd64".to_owned(),
            version: "0".to_owned(),
            capacity: NodeCapacity::default(),
            usage: NodeUsage::default(),
            containers,
            layers: Vec::new(),
            volumes: None,
        };
        self.say(NodeToMaster::Report(Box::new(report)), Vec::new())
            .await;
        container
    }

    /// The next order.
    #[allow(clippy::panic, reason = "a test that expects an order")]
    pub async fn order(&mut self) -> NodeRequest {
        match timeout(PATIENCE, self.receiver.recv()).await {
            Ok(Ok((MasterToNode::Request(order), _))) => *order,
            other => panic!("not an order: {other:?}"),
        }
    }

    fn container(
        &self,
        container: ContainerId,
        (session, account): (SessionId, PublicKey),
    ) -> NodeContainer {
        let network = u32::from(self.topology.subnet.0);
        NodeContainer {
            container,
            session,
            attachment: AttachmentId::from_bytes([7; 16]),
            account,
            lifetime: Lifetime::Session,
            tag: None,
            labels: std::collections::BTreeMap::new(),
            image: Digest::of(b"image"),
            image_name: "image".to_owned(),
            command: vec!["true".to_owned()],
            created_ms: 1,
            ip: Some(Ipv4Addr::from(network + 2)),
            state: ContainerState::Running { since_ms: 1 },
            tty: false,
            limits: ResourceLimits::default(),
            allowed_from: Vec::new(),
            volumes: Vec::new(),
            processes: Vec::new(),
            readers: Vec::new(),
        }
    }
}
