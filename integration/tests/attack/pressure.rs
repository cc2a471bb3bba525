//! Too many, too slow, too much: what each may cost.

use std::time::{Duration, Instant};

use teu_integration::attack::{
    ANN, BOB, Honest, LinkedClient, LinkedNode, NODE_1, RawPeer, STRANGER, Target, initiate, key,
};
use teu_protocol::{
    ids::RequestId,
    message::{ClientToMaster, Request, RequestBody, Role, SessionAsk},
};

use crate::Attack;

pub(crate) const TRIALS: &[(&str, Attack)] = &[
    ("half_open_sockets_lock_nobody_out_and_are_closed", |t| {
        Box::pin(half_open(t))
    }),
    ("a_flood_of_hellos_starves_nobody", |t| Box::pin(hellos(t))),
    (
        "a_peer_that_does_not_read_is_closed_within_its_bound",
        |t| Box::pin(not_reading(t)),
    ),
    ("an_idle_session_costs_little", |t| {
        Box::pin(idle_sessions(t))
    }),
    ("half_open_sockets_do_not_lock_their_address_out", |t| {
        Box::pin(one_address(t))
    }),
    ("unfinished_messages_take_no_more_than_their_share", |t| {
        Box::pin(unfinished(t))
    }),
    ("a_message_of_empty_strings_is_not_built", |t| {
        Box::pin(empty_strings(t))
    }),
];

/// The half-open sockets' buffers and tasks.
const HALF_OPEN_GROWTH_BYTES: u64 = 48 << 20;

/// The bound of one client's queue (96 MiB), what the allocator wastes on it, and the requests on
/// their way.
const NOT_READING_GROWTH_BYTES: u64 = 256 << 20;

async fn half_open(target: &Target) {
    let honest = Honest::begin(target).await;
    let (before, files) = (target.memory_bytes(), target.open_files());
    let mut silent = Vec::new();
    // More than may be unauthenticated at once (1024), in different stages.
    for number in 0..1400u32 {
        let from = 10 + (number / 200) as u8;
        let mut peer = RawPeer::connect(target, from).await.unwrap();
        match number % 4 {
            0 => {}
            1 => peer.send_raw(&[0xff]).await.unwrap(),
            2 => peer
                .send_raw(&teu_protocol::zmtp::greeting())
                .await
                .unwrap(),
            _ => {
                peer.send_raw(&teu_protocol::zmtp::greeting())
                    .await
                    .unwrap();
                let _ = peer.send_raw(b"\x04\x19\x05READY\x0bSocket-Type").await;
            }
        }
        silent.push(peer);
        if number % 200 == 199 {
            // Under load: by a cookie, and still at once.
            let begun = Instant::now();
            LinkedClient::dial(target, BOB, SessionAsk::New)
                .await
                .unwrap();
            assert!(
                begun.elapsed() < Duration::from_secs(2),
                "{:?}",
                begun.elapsed()
            );
        }
    }
    let grown = target.memory_bytes().saturating_sub(before);
    assert!(
        grown < HALF_OPEN_GROWTH_BYTES,
        "the master grew by {grown} bytes"
    );
    // Ten seconds are allowed for a handshake; sockets of the honest ones may linger a moment.
    assert!(
        target
            .closes_down_to(files + 2, Duration::from_secs(15))
            .await,
        "{}",
        target.open_files()
    );
    honest.end().await;
}

async fn hellos(target: &Target) {
    let honest = Honest::begin(target).await;
    let before = target.memory_bytes();
    let until = Instant::now() + Duration::from_secs(4);
    let flood = |from: u8| async move {
        let mut sent = 0u32;
        while Instant::now() < until {
            let Ok(mut peer) = RawPeer::greeted(target, from, b"").await else {
                continue;
            };
            let (_, hello) = RawPeer::hello(target, &key(STRANGER), from);
            for _ in 0..3 {
                let _ = peer.send(&hello).await;
            }
            sent += 1;
        }
        sent
    };
    let newcomers = async {
        let mut slowest = Duration::ZERO;
        while Instant::now() < until {
            let begun = Instant::now();
            LinkedClient::dial(target, BOB, SessionAsk::New)
                .await
                .unwrap();
            slowest = slowest.max(begun.elapsed());
        }
        slowest
    };
    let (a, b, c, d, slowest) = tokio::join!(flood(20), flood(21), flood(22), flood(23), newcomers);
    assert!(a + b + c + d > 100, "a flood");
    assert!(
        slowest < Duration::from_secs(2),
        "a newcomer waited {slowest:?}"
    );
    let grown = target.most_memory_bytes().saturating_sub(before);
    assert!(
        grown < HALF_OPEN_GROWTH_BYTES,
        "the master grew by {grown} bytes"
    );
    honest.end().await;
}

async fn not_reading(target: &Target) {
    let honest = Honest::begin(target).await;
    let before = target.memory_bytes();
    let peer = RawPeer::greeted(target, 2, b"").await.unwrap();
    let ask = initiate(Role::Client, SessionAsk::New);
    let mut client = peer.into_sealed(BOB, &ask, target).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut number = 0u64;
    let closed = loop {
        assert!(
            Instant::now() < deadline,
            "still connected after {number} requests"
        );
        number += 1;
        let mut id = [9; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        // The answer is far longer than the question.
        let body = RequestBody::Doctor;
        let request = Request {
            id: RequestId::from_bytes(id),
            body,
        };
        let message = ClientToMaster::Request(Box::new(request));
        let sent = tokio::time::timeout(Duration::from_secs(20), client.send(&message)).await;
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(_)) => break true,
            Err(_) => break false,
        }
    };
    assert!(closed, "neither read nor closed after {number} requests");
    let grown = target.most_memory_bytes().saturating_sub(before);
    assert!(
        grown < NOT_READING_GROWTH_BYTES,
        "the master grew by {grown} bytes"
    );
    let served = honest.end().await;
    eprintln!(
        "closed after {number} requests, the master grew by {} MiB, {served:?}",
        grown >> 20
    );
    assert!(served.requests > 50, "{served:?}");
}

/// Tasks, queues, records and the core's tables: 20,000 of them fit in a gigabyte.
const IDLE_SESSION_BYTES: u64 = 48 << 10;

async fn idle_sessions(target: &Target) {
    let ask = initiate(Role::Client, SessionAsk::New);
    let mut held = Vec::new();
    for number in 0..100 {
        let peer = RawPeer::greeted(target, 40 + number % 4, b"")
            .await
            .unwrap();
        held.push(peer.into_sealed(ANN, &ask, target).await.unwrap());
    }
    let before = target.memory_bytes();
    for number in 0..800u32 {
        let from = 40 + u8::try_from(number % 4).unwrap();
        let peer = RawPeer::greeted(target, from, b"").await.unwrap();
        held.push(peer.into_sealed(ANN, &ask, target).await.unwrap());
    }
    let each = target.memory_bytes().saturating_sub(before) / 800;
    eprintln!(
        "the master with 100 sessions: {} KiB; each further one: {each} bytes",
        before >> 10
    );
    assert!(
        each < IDLE_SESSION_BYTES,
        "each idle session costs {each} bytes"
    );
}

async fn one_address(target: &Target) {
    // A stranger on the address from which the clients and nodes below come as well.
    let mut held = Vec::new();
    for number in 0..700u32 {
        let mut peer = RawPeer::connect(target, 1).await.unwrap();
        // What cannot be sent was evicted meanwhile.
        let _ = peer.send_raw(&teu_protocol::zmtp::greeting()).await;
        held.push(peer);
        if number % 100 == 99 {
            LinkedClient::dial(target, ANN, SessionAsk::New)
                .await
                .unwrap();
            LinkedNode::dial(target, NODE_1).await.unwrap();
        }
    }
    let mut closed = 0;
    for peer in &mut held[..400] {
        closed += u32::from(peer.is_closed_silently().await);
    }
    assert_eq!(closed, 400, "the oldest make room");
}

/// Connections of one account, each with a message of 8 MB that it does not finish.
const UNFINISHED: usize = 160;

/// One account's share (64 MiB), the sockets' tasks and a read of each.
const UNFINISHED_GROWTH_BYTES: u64 = 128 << 20;

/// What the allocator may keep when an attack is over.
const LEFT_OVER_BYTES: u64 = 24 << 20;

async fn unfinished(target: &Target) {
    let honest = Honest::begin(target).await;
    let ask = initiate(Role::Client, SessionAsk::New);
    let mut held = Vec::new();
    for number in 0..UNFINISHED {
        let from = 50 + u8::try_from(number % 4).unwrap();
        let peer = RawPeer::greeted(target, from, b"").await.unwrap();
        held.push(peer.into_sealed(BOB, &ask, target).await.unwrap());
    }
    let before = target.memory_bytes();
    let part = long_part();
    let sending = held.iter_mut().map(|client| async {
        for _ in 0..120 {
            // Who is not read any more waits: that is the point.
            let sent = client.peer.send_raw(&part);
            if tokio::time::timeout(Duration::from_secs(3), sent)
                .await
                .is_err()
            {
                return;
            }
        }
    });
    futures::future::join_all(sending).await;
    // Another account's message of the same size comes through.
    let begun = Instant::now();
    let mut other = RawPeer::greeted(target, 60, b"").await.unwrap();
    other = other.into_sealed(ANN, &ask, target).await.unwrap().peer;
    for _ in 0..120 {
        other.send_raw(&part).await.unwrap();
    }
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    let grown = target.most_memory_bytes().saturating_sub(before);
    assert!(
        grown < UNFINISHED_GROWTH_BYTES,
        "the master grew by {grown} bytes"
    );
    drop((held, other));
    returns_to(target, before + LEFT_OVER_BYTES).await;
    let served = honest.end().await;
    eprintln!("the master grew by {} MiB, {served:?}", grown >> 20);
}

/// The largest frame that a message may have, with another one to follow.
fn long_part() -> Vec<u8> {
    let bytes = teu_protocol::limits::MAX_SEALED_PART_BYTES;
    let mut part = vec![0b011];
    part.extend(u64::try_from(bytes).unwrap().to_be_bytes());
    part.resize(9 + bytes, 7);
    part
}

/// Memory is given back within a while.
async fn returns_to(target: &Target, bytes: u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while target.memory_bytes() > bytes {
        assert!(
            Instant::now() < deadline,
            "the master keeps {} bytes; {bytes} were expected",
            target.memory_bytes()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A message of 8 MB with its copy while it is opened; its eight million strings would take 190 MiB.
const STRINGS_GROWTH_BYTES: u64 = 64 << 20;

async fn empty_strings(target: &Target) {
    let honest = Honest::begin(target).await;
    let ask = initiate(Role::Client, SessionAsk::New);
    let before = target.memory_bytes();
    for _ in 0..4 {
        let peer = RawPeer::greeted(target, 61, b"").await.unwrap();
        let mut client = peer.into_sealed(BOB, &ask, target).await.unwrap();
        let sent = client.send(&vec![String::new(); 8_000_000]).await;
        // Closed while it still sends, perhaps.
        drop(sent);
        assert!(
            matches!(client.receive().await, Ok(None) | Err(_)),
            "closed"
        );
    }
    let grown = target.most_memory_bytes().saturating_sub(before);
    assert!(
        grown < STRINGS_GROWTH_BYTES,
        "the master grew by {grown} bytes"
    );
    honest.end().await;
}
