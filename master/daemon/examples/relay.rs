//! Measures what the master costs between a client and a node: bulk on a stream, and requests.
//!
//! `cargo run --release -p teu-master --example relay [GIB]`. Everything is in this process, on
//! loopback; client and node are `teu-link`, as real ones are. Numbers for people; nothing asserts.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Instant};

use bytes::Bytes;
use teu_link::{Connection, Dialer, LinkReceiver, LinkSender};
use teu_master::{Bootstrap, BootstrapAccount, BootstrapNode, Config, Server};
use teu_protocol::{
    ids::{AttachmentId, ContainerId, Digest, RequestId, StreamId},
    message::{
        Channel, ClientToMaster, ContainerState, Initiate, Lifetime, MasterToClient, MasterToNode,
        NodeCapacity, NodeContainer, NodeReplyBody, NodeReport, NodeRequestBody, NodeToMaster,
        NodeUsage, Request, RequestBody, ResourceLimits, Role, SessionAsk, StreamEnd, StreamFrame,
        encode,
    },
    noise::{LocationIdentity, StaticKey},
};
use tokio::sync::Semaphore;

type Client = (
    LinkSender<ClientToMaster>,
    LinkReceiver<ClientToMaster, MasterToClient>,
);
type Node = (
    LinkSender<NodeToMaster>,
    LinkReceiver<NodeToMaster, MasterToNode>,
);

const FQDN: &str = "relay.localhost";
const STREAM: StreamId = StreamId(1);
const WINDOW: u64 = 4 << 20;

fn key(byte: u8) -> StaticKey {
    StaticKey::from_bytes([byte; 32]).unwrap()
}

fn main() {
    let gib: u64 = std::env::args()
        .nth(1)
        .map_or(4, |text| text.parse().unwrap());
    let directory = std::env::temp_dir().join(format!("teu-relay-{}", std::process::id()));
    let mut config = Config::new((Ipv4Addr::LOCALHOST, 0).into(), &directory, FQDN);
    config.bootstrap = Bootstrap {
        accounts: vec![BootstrapAccount {
            key: key(1).public(),
            name: "a".into(),
            admin: true,
        }],
        nodes: vec![BootstrapNode {
            key: key(2).public(),
            name: "n".into(),
        }],
    };
    let masters = tokio::runtime::Runtime::new().unwrap();
    let server = masters.block_on(async { Box::pin(Server::start(config)).await.unwrap() });
    let location = LocationIdentity::new(FQDN, server.public_key(), 1).unwrap();
    let dialer = |byte| Dialer::new(server.local_addr().to_string(), location.clone(), key(byte));
    let peers = tokio::runtime::Runtime::new().unwrap();
    peers.block_on(async {
        let (client, node, container) = set_up(dialer(1), dialer(2)).await;
        let client = requests(client, node, container, gib).await;
        drop(client);
    });
    masters.block_on(server.shutdown());
    let _ = std::fs::remove_dir_all(directory);
}

fn initiate(role: Role) -> Vec<u8> {
    encode(&Initiate {
        role,
        features: Vec::new(),
        name: "relay".into(),
        session: SessionAsk::New,
        attachment: AttachmentId::from_bytes([7; 16]),
    })
    .unwrap()
}

async fn set_up(client: Dialer, node: Dialer) -> (Client, Node, ContainerId) {
    let client: Connection<ClientToMaster, MasterToClient> =
        client.dial(&initiate(Role::Client)).await.unwrap();
    let (ready, sender, mut receiver) = client.into_parts();
    let MasterToClient::Ready(ready) = ready else {
        panic!("{ready:?}")
    };
    let node: Connection<NodeToMaster, MasterToNode> =
        node.dial(&initiate(Role::Node)).await.unwrap();
    let (topology, node_sender, node_receiver) = node.into_parts();
    let MasterToNode::Ready(topology) = topology else {
        panic!("{topology:?}")
    };
    let container = ContainerId::from_bytes([3; 16]);
    let running = NodeContainer {
        container,
        session: ready.session,
        attachment: AttachmentId::from_bytes([7; 16]),
        account: key(1).public(),
        lifetime: Lifetime::Session,
        tag: None,
        labels: BTreeMap::new(),
        image: Digest::of(b"image"),
        image_name: "image".into(),
        command: Vec::new(),
        created_ms: 1,
        ip: Some(Ipv4Addr::from(u32::from(topology.subnet.0) + 2)),
        state: ContainerState::Running { since_ms: 1 },
        tty: false,
        limits: ResourceLimits::default(),
        allowed_from: Vec::new(),
        volumes: Vec::new(),
        processes: Vec::new(),
        readers: Vec::new(),
    };
    let report = NodeReport {
        platform: "linux/amd64".into(),
        version: "0".into(),
        capacity: NodeCapacity::default(),
        usage: NodeUsage::default(),
        containers: vec![running],
        layers: Vec::new(),
        volumes: None,
    };
    node_sender
        .send(NodeToMaster::Report(Box::new(report)), Vec::new())
        .await
        .unwrap();
    // The container's event.
    receiver.recv().await.unwrap();
    ((sender, receiver), (node_sender, node_receiver), container)
}

fn request(number: u64, body: RequestBody) -> ClientToMaster {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    ClientToMaster::Request(Box::new(Request {
        id: RequestId::from_bytes(id),
        body,
    }))
}

async fn requests(
    (sender, mut receiver): Client,
    node: Node,
    container: ContainerId,
    gib: u64,
) -> Client {
    let node = tokio::spawn(serve_node(node));
    let ask = move |number| {
        request(
            number,
            RequestBody::Signal {
                container,
                process: None,
                signal: teu_protocol::image_config::signal::Signal::HUP,
            },
        )
    };

    let mut times = Vec::new();
    for number in 0..5_000 {
        let begun = Instant::now();
        sender.send(ask(number), Vec::new()).await.unwrap();
        while !matches!(receiver.recv().await.unwrap().0, MasterToClient::Reply(_)) {}
        times.push(begun.elapsed());
    }
    times.sort();
    println!(
        "request and reply, one at a time: p50 {:?}, p99 {:?}",
        times[2_500], times[4_950]
    );

    let (count, slots) = (200_000, Arc::new(Semaphore::new(512)));
    let (asker, begun) = (sender.clone(), Instant::now());
    let free = Arc::clone(&slots);
    let asking = tokio::spawn(async move {
        for number in 0..count {
            free.acquire().await.unwrap().forget();
            asker.send(ask(10_000 + number), Vec::new()).await.unwrap();
        }
    });
    for _ in 0..count {
        while !matches!(receiver.recv().await.unwrap().0, MasterToClient::Reply(_)) {}
        slots.add_permits(1);
    }
    asking.await.unwrap();
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    println!(
        "requests and replies, 512 on their way: {rate:.0}/s, {:.0} messages/s",
        rate * 4.0
    );

    let open = RequestBody::Tunnel {
        container,
        port: 80,
        stream: STREAM,
        window: WINDOW,
    };
    sender
        .send(request(1 << 40, open), Vec::new())
        .await
        .unwrap();
    let begun = Instant::now();
    let total = gib << 30;
    let credit = Arc::new(Semaphore::new(0));
    let (bulk_sender, bulk_credit) = (sender.clone(), Arc::clone(&credit));
    let sending = tokio::spawn(async move {
        let piece = Bytes::from(vec![7u8; 65_518]);
        let bulk = vec![piece.clone(), piece.clone(), piece.clone(), piece];
        let size: usize = bulk.iter().map(Bytes::len).sum();
        let mut sent = 0;
        while sent < total {
            bulk_credit
                .acquire_many(u32::try_from(size).unwrap())
                .await
                .unwrap()
                .forget();
            let frame = StreamFrame::Data {
                stream: STREAM,
                channel: Channel::Main,
                cursor: 0,
                from: None,
            };
            bulk_sender
                .send(ClientToMaster::Stream(frame), bulk.clone())
                .await
                .unwrap();
            sent += size as u64;
        }
        let close = StreamFrame::Close {
            stream: STREAM,
            end: StreamEnd::Done,
        };
        bulk_sender
            .send(ClientToMaster::Stream(close), Vec::new())
            .await
            .unwrap();
        sent
    });
    loop {
        match receiver.recv().await.unwrap().0 {
            MasterToClient::Reply(reply) => {
                assert!(reply.result.is_ok(), "{reply:?}");
                credit.add_permits(usize::try_from(WINDOW).unwrap());
            }
            MasterToClient::Stream(StreamFrame::Credit { bytes, .. }) => {
                credit.add_permits(usize::try_from(bytes).unwrap());
            }
            MasterToClient::Stream(StreamFrame::Close { end, .. }) => panic!("{end:?}"),
            _ => {}
        }
        if sending.is_finished() {
            break;
        }
    }
    let sent = sending.await.unwrap();
    let received = node.await.unwrap();
    assert_eq!(sent, received);
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "bulk client → master → node: {:.2} Gbit/s",
        sent as f64 * 8.0 / seconds / 1e9
    );
    (sender, receiver)
}

/// Answers every order at once; answers the bytes received when the stream is closed.
async fn serve_node((sender, mut receiver): Node) -> u64 {
    let mut received = 0;
    let mut owed = 0;
    loop {
        match receiver.recv().await.unwrap() {
            (MasterToNode::Request(order), _) => {
                let body = match order.body {
                    NodeRequestBody::Tunnel { .. } => NodeReplyBody::Opened {
                        window: WINDOW,
                        input: None,
                    },
                    _ => NodeReplyBody::Done,
                };
                let reply = NodeToMaster::Reply {
                    id: order.id,
                    result: Ok(body),
                };
                sender.send(reply, Vec::new()).await.unwrap();
            }
            (MasterToNode::Stream(StreamFrame::Data { stream, .. }), bulk) => {
                let bytes: usize = bulk.iter().map(Bytes::len).sum();
                received += bytes as u64;
                owed += bytes as u64;
                if owed >= WINDOW / 4 {
                    let credit = StreamFrame::Credit {
                        stream,
                        bytes: owed,
                    };
                    sender
                        .send(NodeToMaster::Stream(credit), Vec::new())
                        .await
                        .unwrap();
                    owed = 0;
                }
            }
            (MasterToNode::Stream(StreamFrame::Close { .. }), _) => return received,
            _ => {}
        }
    }
}
