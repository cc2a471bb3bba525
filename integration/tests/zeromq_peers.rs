//! ZMTP as others speak it: the `zeromq` crate's DEALER against the real master, and our link's DEALER
//! against the `zeromq` crate's ROUTER. (libzmq, through pyzmq, is integration/python's.)
//!
//! Owner: whoever touches a codec. Invariant: each test goes from HELLO to a sealed message in both
//! directions, so greeting, READY, short and long frames have all been understood. Next:
//! `teu_protocol::zmtp`.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use teu_link::{Connection, Dialer};
use teu_master::{Bootstrap, BootstrapAccount, Config, Server};
use teu_protocol::{
    heartbeat::{Heartbeat, LinkMessage},
    ids::AttachmentId,
    message::{self, ClientToMaster, Initiate, MasterToClient, Role, SessionAsk},
    noise::{
        ClientHandshake, ClientStep, HelloCheck, LocationIdentity, ServerHandshake, StaticKey,
        Suite,
    },
};
use tokio::time::timeout;
use zeromq::{DealerSocket, RouterSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

const FQDN: &str = "peers.localhost";
const PATIENCE: Duration = Duration::from_secs(20);

fn key(byte: u8) -> StaticKey {
    StaticKey::from_bytes([byte; 32]).expect("32 bytes are a key")
}

/// A program's messages, for the link that meets a foreign ROUTER.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Said {
    Text(String),
    Ping(u64),
    Pong(u64),
}

impl LinkMessage for Said {
    fn ping(nonce: u64) -> Self {
        Self::Ping(nonce)
    }

    fn pong(nonce: u64) -> Self {
        Self::Pong(nonce)
    }

    fn heartbeat(&self) -> Option<Heartbeat> {
        match self {
            Self::Ping(nonce) => Some(Heartbeat::Ping(*nonce)),
            Self::Pong(nonce) => Some(Heartbeat::Pong(*nonce)),
            Self::Text(_) => None,
        }
    }
}

async fn receive(socket: &mut impl SocketRecv) -> Vec<Bytes> {
    let message = timeout(PATIENCE, socket.recv()).await.expect("in time");
    message.expect("a message").into_vec()
}

async fn send(socket: &mut impl SocketSend, parts: Vec<Bytes>) {
    let message = ZmqMessage::try_from(parts).expect("has parts");
    socket.send(message).await.expect("sent");
}

#[tokio::test]
async fn zeromqs_dealer_gets_ready_and_an_answer_from_the_master() {
    let data = tempfile::tempdir().expect("a directory");
    let mut config = Config::new(
        (Ipv4Addr::LOCALHOST, 0).into(),
        data.path().join("data"),
        FQDN,
    );
    config.bootstrap = Bootstrap {
        accounts: vec![BootstrapAccount {
            key: key(2).public(),
            name: "ann".into(),
            admin: false,
        }],
        nodes: Vec::new(),
    };
    let master = Server::start(config).await.expect("starts");
    let location = LocationIdentity::new(FQDN, master.public_key(), 1).expect("a location");

    let mut socket = DealerSocket::new();
    let address = format!("tcp://{}", master.local_addr());
    socket.connect(&address).await.expect("connects");
    let suite = Suite::AesGcmSha256;
    let (handshake, hello) =
        ClientHandshake::new(&location, &key(2), suite, [3; 32]).expect("a handshake");
    send(&mut socket, hello).await;
    let welcome = receive(&mut socket).await;
    let Ok(ClientStep::Welcomed(welcomed)) = handshake.on_message(&welcome) else {
        panic!("not WELCOME");
    };
    let initiate = message::encode(&Initiate {
        role: Role::Client,
        features: Vec::new(),
        name: "zeromq".into(),
        session: SessionAsk::New,
        attachment: AttachmentId::from_bytes([7; 16]),
    })
    .expect("encodes");
    let (initiate, mut sealer, mut opener) = welcomed
        .initiate(&initiate, Duration::ZERO)
        .expect("initiates");
    send(&mut socket, initiate).await;

    let mut hear = async |socket: &mut DealerSocket| -> MasterToClient {
        let opened = opener.open(receive(socket).await).expect("authentic");
        message::decode(&opened.control).expect("a message")
    };
    assert!(matches!(hear(&mut socket).await, MasterToClient::Ready(_)));
    let ping = message::encode(&ClientToMaster::ping(77)).expect("encodes");
    let sealed = sealer.seal(&ping, &[], Duration::ZERO).expect("seals");
    send(&mut socket, sealed).await;
    let pong = loop {
        if let Some(heartbeat) = hear(&mut socket).await.heartbeat() {
            break heartbeat;
        }
    };
    assert_eq!(pong, Heartbeat::Pong(77));
    drop(socket);
    master.shutdown().await;
}

#[tokio::test]
async fn our_dealer_gets_ready_and_an_answer_from_zeromqs_router() {
    let location = LocationIdentity::new(FQDN, key(1).public(), 1).expect("a location");
    let mut router = RouterSocket::new();
    let address = IpAddr::from(Ipv4Addr::LOCALHOST);
    let endpoint = router.bind(&format!("tcp://{address}:0")).await;
    let endpoint = endpoint.expect("binds").to_string();
    let dialer = Dialer::new(
        endpoint.trim_start_matches("tcp://"),
        location.clone(),
        key(2),
    );
    let bulk = Bytes::from(vec![9; 200_000]);
    let piece = bulk.clone();
    let location_side = async move {
        let check = HelloCheck::new(vec![(location, key(1))]);
        let mut hello = receive(&mut router).await;
        let peer = hello.remove(0);
        let to_peer = |mut parts: Vec<Bytes>| {
            parts.insert(0, peer.clone());
            parts
        };
        let hello = check.check(&hello).expect("a HELLO");
        let (server, welcome) =
            ServerHandshake::accept(&hello, [4; 32], b"welcome").expect("accepts");
        send(&mut router, to_peer(welcome)).await;
        let initiate = receive(&mut router).await.split_off(1);
        let mut accepted = server
            .on_initiate(&initiate, Duration::ZERO)
            .expect("an INITIATE");
        for text in ["ready", "large"] {
            let said = message::encode(&Said::Text(text.into())).expect("encodes");
            let bulk = if text == "large" {
                vec![piece.clone()]
            } else {
                Vec::new()
            };
            let sealed = accepted.sealer.seal(&said, &bulk, Duration::ZERO);
            send(&mut router, to_peer(sealed.expect("seals"))).await;
        }
        let echo = receive(&mut router).await.split_off(1);
        accepted.opener.open(echo).expect("authentic").bulk.concat()
    };
    let dealer_side = async {
        let connection: Connection<Said, Said> = dialer.dial(b"initiate").await.expect("dials");
        assert_eq!(connection.ready(), &Said::Text("ready".into()));
        let (sender, mut receiver) = connection.split();
        let (said, received) = receiver.recv().await.expect("a message");
        assert_eq!(said, Said::Text("large".into()));
        assert_eq!(received.concat(), bulk);
        sender.send(said, received).await.expect("sends");
        receiver
    };
    let both = async { tokio::join!(location_side, dealer_side) };
    let (echoed, _open) = timeout(PATIENCE, both).await.expect("in time");
    assert_eq!(echoed, bulk);
}
