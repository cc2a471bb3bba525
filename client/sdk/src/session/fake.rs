//! A location in the same process, for tests: links are channels, and the test plays the master.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use teu_protocol::{
    ids::{AttachmentId, ContainerId, NodeId, RequestId, SessionId, StreamId, VolumeId},
    message::{
        Channel, ClientToMaster, ContainerInfo, ContainerState, Initiate, MasterToClient, Offer,
        Ready, Refusal, RefusalCode, Reply, ReplyBody, Request, RequestBody, ResourceLimits, Role,
        SessionAsk, SessionLimits, StreamEnd, StreamFrame, VolumeInfo, VolumeSpec, VolumeState,
    },
};
use tokio::sync::{mpsc, oneshot};

use super::{
    SessionHandle,
    transport::{Dialled, LinkGone, LinkReceive, LinkSend, Transport},
};
use crate::{Container, error::ConnectError};

pub(crate) const SESSION: SessionId = SessionId::from_bytes([5; 16]);

pub(crate) const LIMITS: SessionLimits = SessionLimits {
    streams: 16,
    window_bytes: 8 << 20,
    containers: 10,
    volumes: 10,
    requests: 64,
};

pub(crate) struct FakeTransport(mpsc::UnboundedSender<DialRequest>);

type Verdict = Result<Dialled<FakeSender, FakeReceiver>, ConnectError>;
type DialRequest = (Initiate, oneshot::Sender<Verdict>);

pub(crate) struct FakeSender(mpsc::UnboundedSender<(ClientToMaster, Vec<Bytes>)>);

pub(crate) struct FakeReceiver {
    messages: mpsc::UnboundedReceiver<(MasterToClient, Vec<Bytes>)>,
    silence: Silence,
}

/// For how long the location has not answered a ping.
pub(crate) type Silence = Arc<Mutex<Option<Duration>>>;

impl Transport for FakeTransport {
    type Sender = FakeSender;
    type Receiver = FakeReceiver;

    async fn dial(&self, initiate: Initiate) -> Verdict {
        let (verdict, judged) = oneshot::channel();
        self.0.send((initiate, verdict)).map_err(|_| no_link())?;
        judged.await.map_err(|_| no_link())?
    }

    fn pause(&self, _: u32) -> Duration {
        Duration::from_millis(1)
    }
}

fn no_link() -> ConnectError {
    ConnectError::Link {
        reason: "the test hung up".into(),
    }
}

impl LinkSend for FakeSender {
    async fn send(&mut self, message: ClientToMaster, bulk: Vec<Bytes>) -> Result<(), LinkGone> {
        self.0
            .send((message, bulk))
            .map_err(|_| LinkGone("closed".into()))
    }
}

impl LinkReceive for FakeReceiver {
    async fn receive(&mut self) -> Result<(MasterToClient, Vec<Bytes>), LinkGone> {
        let message = self.messages.recv().await;
        message.ok_or_else(|| LinkGone("closed".into()))
    }

    fn probe(&mut self, _: Duration) -> Option<Duration> {
        *self.silence.lock().unwrap()
    }
}

/// Where dials arrive.
pub(crate) struct FakeMaster(mpsc::UnboundedReceiver<DialRequest>);

impl FakeMaster {
    /// A session that is connected, and its far end.
    pub(crate) async fn connected(ready: Ready) -> (SessionHandle, Self, FarEnd) {
        Self::connected_as(SessionAsk::New, ready).await
    }

    pub(crate) async fn connected_as(
        session: SessionAsk,
        ready: Ready,
    ) -> (SessionHandle, Self, FarEnd) {
        let (dials, arriving) = mpsc::unbounded_channel();
        let transport = FakeTransport(dials);
        let mut master = Self(arriving);
        let initiate = Initiate {
            role: Role::Client,
            features: Vec::new(),
            name: "test".into(),
            session,
            attachment: AttachmentId::from_bytes([9; 16]),
        };
        let (dialled, (_, far)) =
            tokio::join!(transport.dial(initiate.clone()), master.accept(ready));
        (
            super::start(transport, initiate, dialled.unwrap()),
            master,
            far,
        )
    }

    /// Lets the next dial in.
    pub(crate) async fn accept(&mut self, ready: Ready) -> (Initiate, FarEnd) {
        let (initiate, verdict) = self.0.recv().await.unwrap();
        let (to_client, receiver) = mpsc::unbounded_channel();
        let (sender, from_client) = mpsc::unbounded_channel();
        let silence = Silence::default();
        let dialled = Dialled {
            sender: FakeSender(sender),
            receiver: FakeReceiver {
                messages: receiver,
                silence: Silence::clone(&silence),
            },
            ready,
        };
        assert!(
            verdict.send(Ok(dialled)).is_ok(),
            "the client gave up dialling"
        );
        (
            initiate,
            FarEnd {
                to_client,
                from_client,
                silence,
            },
        )
    }

    /// Turns the next dial away.
    pub(crate) async fn refuse(&mut self, error: ConnectError) -> Initiate {
        let (initiate, verdict) = self.0.recv().await.unwrap();
        let _ = verdict.send(Err(error));
        initiate
    }
}

/// The master's end of one connection; dropping it loses the link.
pub(crate) struct FarEnd {
    to_client: mpsc::UnboundedSender<(MasterToClient, Vec<Bytes>)>,
    from_client: mpsc::UnboundedReceiver<(ClientToMaster, Vec<Bytes>)>,
    pub(crate) silence: Silence,
}

impl FarEnd {
    /// Takes the place of one that is dropped.
    pub(crate) fn unconnected() -> Self {
        let (to_client, _) = mpsc::unbounded_channel();
        let (_, from_client) = mpsc::unbounded_channel();
        Self {
            to_client,
            from_client,
            silence: Silence::default(),
        }
    }

    pub(crate) fn say(&self, message: MasterToClient, bulk: Vec<Bytes>) {
        let _ = self.to_client.send((message, bulk));
    }

    /// What the client says next; `None` if it hung up.
    pub(crate) async fn hear(&mut self) -> Option<(ClientToMaster, Vec<Bytes>)> {
        self.from_client.recv().await
    }

    pub(crate) fn hear_now(&mut self) -> Option<(ClientToMaster, Vec<Bytes>)> {
        self.from_client.try_recv().ok()
    }

    pub(crate) async fn request(&mut self) -> Request {
        loop {
            match self.hear().await.unwrap() {
                (ClientToMaster::Request(request), _) => return *request,
                (ClientToMaster::Stream(StreamFrame::Credit { .. }), _) => {}
                other => panic!("a request was expected, not {other:?}"),
            }
        }
    }

    pub(crate) fn reply(&self, id: RequestId, result: Result<ReplyBody, Refusal>) {
        self.say(
            MasterToClient::Reply(Box::new(Reply { id, result })),
            Vec::new(),
        );
    }

    pub(crate) fn refuse(&self, id: RequestId, code: RefusalCode) {
        self.reply(id, Err(Refusal::new(code, "no")));
    }

    /// Opens the stream that the client asks for next, granting `credit`.
    pub(crate) async fn open(&mut self, credit: u64) -> (RequestBody, StreamId, u64) {
        self.open_with_input(credit, None).await
    }

    /// The same; so much of the client's input is there.
    pub(crate) async fn open_with_input(
        &mut self,
        credit: u64,
        input: Option<u64>,
    ) -> (RequestBody, StreamId, u64) {
        let Request { id, body } = self.request().await;
        let (stream, window) = match &body {
            RequestBody::Attach { stream, window, .. }
            | RequestBody::Logs { stream, window, .. }
            | RequestBody::Tunnel { stream, window, .. }
            | RequestBody::ExportVolume { stream, window, .. } => (*stream, *window),
            other => panic!("a stream was expected, not {other:?}"),
        };
        self.reply(
            id,
            Ok(ReplyBody::Opened {
                window: credit,
                input,
            }),
        );
        (body, stream, window)
    }

    pub(crate) fn data(&self, stream: StreamId, channel: Channel, cursor: u64, bytes: &[u8]) {
        let frame = StreamFrame::Data {
            stream,
            channel,
            cursor,
            from: Some(cursor.saturating_sub(bytes.len() as u64)),
        };
        self.say(
            MasterToClient::Stream(frame),
            vec![Bytes::copy_from_slice(bytes)],
        );
    }

    pub(crate) fn frame(&self, frame: StreamFrame) {
        self.say(MasterToClient::Stream(frame), Vec::new());
    }

    pub(crate) fn close(&self, stream: StreamId, end: StreamEnd) {
        self.frame(StreamFrame::Close { stream, end });
    }

    /// The next frame that is not Credit.
    pub(crate) async fn next_frame(&mut self) -> (StreamFrame, Bytes) {
        loop {
            match self.hear().await.unwrap() {
                (ClientToMaster::Stream(StreamFrame::Credit { .. }), _) => {}
                (ClientToMaster::Stream(frame), bulk) => {
                    return (frame, Bytes::from(bulk.concat()));
                }
                other => panic!("a frame was expected, not {other:?}"),
            }
        }
    }
}

pub(crate) fn ready() -> Ready {
    Ready {
        session: SESSION,
        name: None,
        limits: LIMITS,
        offer: Offer::default(),
        containers: vec![container_info()],
        seq: 0,
    }
}

pub(crate) const CONTAINER: ContainerId = ContainerId::from_bytes([7; 16]);

pub(crate) fn container_info() -> ContainerInfo {
    ContainerInfo {
        id: CONTAINER,
        tag: None,
        node: NodeId::from_bytes([1; 16]),
        ip: Some(Ipv4Addr::new(10, 0, 0, 2)),
        image: teu_protocol::ids::Digest::of(b"image"),
        image_name: "image".into(),
        command: Vec::new(),
        labels: std::collections::BTreeMap::default(),
        created_ms: 0,
        state: ContainerState::Running { since_ms: 0 },
        tty: false,
        limits: ResourceLimits::default(),
        allowed_from: Vec::new(),
        volumes: Vec::new(),
    }
}

pub(crate) fn volume_info() -> VolumeInfo {
    VolumeInfo {
        id: VolumeId::from_bytes([8; 16]),
        node: NodeId::from_bytes([1; 16]),
        created_ms: 0,
        spec: VolumeSpec::default(),
        origin: None,
        state: VolumeState::Ready,
        used_by: Vec::new(),
    }
}

pub(crate) fn container(session: &SessionHandle) -> Container {
    Container::known(session.clone(), CONTAINER).unwrap()
}
