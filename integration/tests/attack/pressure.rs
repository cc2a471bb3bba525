//! Too many, too slow, too much: what each may cost.

use std::time::{Duration, Instant};

use teu_integration::attack::{
    ANN, BOB, Honest, LinkedClient, RawPeer, STRANGER, Target, initiate, key,
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
    ("an_address_cannot_take_all_places", |t| {
        Box::pin(one_address(t))
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
    let mut held = Vec::new();
    let mut closed = 0;
    for _ in 0..400 {
        let mut peer = RawPeer::connect(target, 30).await.unwrap();
        if peer
            .send_raw(&teu_protocol::zmtp::greeting())
            .await
            .is_err()
        {
            closed += 1;
        }
        held.push(peer);
    }
    for peer in held.iter_mut().skip(300) {
        closed += u32::from(peer.is_closed_silently().await);
    }
    assert!(
        closed >= 100,
        "only {closed} of one address were turned away"
    );
    LinkedClient::dial(target, ANN, SessionAsk::New)
        .await
        .unwrap();
}
