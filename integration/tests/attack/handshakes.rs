//! Handshakes that are cut, changed, repeated and out of order.

use std::time::Duration;

use bytes::Bytes;
use teu_integration::attack::{ANN, BOB, Honest, RawPeer, Target, initiate, key};
use teu_protocol::{
    ids::RequestId,
    message::{
        ClientToMaster, MasterToClient, Reply, ReplyBody, Request, RequestBody, Role, SessionAsk,
    },
    noise::{Suite, read_refusal},
};

use crate::Attack;

pub(crate) const TRIALS: &[(&str, Attack)] = &[
    ("a_truncated_hello_is_dropped_without_a_word", |t| {
        Box::pin(truncated(t))
    }),
    (
        "a_hello_with_any_bit_flipped_is_dropped_without_a_word",
        |t| Box::pin(flipped_hello(t)),
    ),
    ("an_initiate_with_any_bit_flipped_is_refused", |t| {
        Box::pin(flipped_initiate(t))
    }),
    ("a_recorded_handshake_opens_nothing", |t| {
        Box::pin(recorded(t))
    }),
    ("messages_out_of_order_are_turned_away", |t| {
        Box::pin(reordered(t))
    }),
    ("the_same_zmtp_identity_takes_over_nothing", |t| {
        Box::pin(duplicate_identities(t))
    }),
];

async fn truncated(target: &Target) {
    let honest = Honest::begin(target).await;
    let (_, hello) = RawPeer::hello(target, &key(ANN), 1);
    for parts in 1..hello.len() {
        let mut peer = RawPeer::greeted(target, 2, b"").await.unwrap();
        peer.send(&hello[..parts]).await.unwrap();
        assert!(peer.is_closed_silently().await, "{parts} parts");
    }
    for part in 0..hello.len() {
        if hello[part].is_empty() {
            continue;
        }
        let mut cut = hello.clone();
        cut[part] = cut[part].slice(1..);
        let mut peer = RawPeer::greeted(target, 2, b"").await.unwrap();
        peer.send(&cut).await.unwrap();
        assert!(peer.is_closed_silently().await, "part {part} is shorter");
    }
    honest.end().await;
}

fn flip(parts: &[Bytes], part: usize, bit: usize) -> Vec<Bytes> {
    let mut parts = parts.to_vec();
    let mut bytes = parts[part].to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    parts[part] = bytes.into();
    parts
}

async fn flipped_hello(target: &Target) {
    let honest = Honest::begin(target).await;
    let (_, hello) = RawPeer::hello(target, &key(ANN), 1);
    for part in 0..hello.len() {
        // Every bit of header, key and mac; some of the padding.
        let step = if hello[part].len() > 64 { 997 } else { 3 };
        for bit in (0..hello[part].len() * 8).step_by(step) {
            let mut peer = RawPeer::greeted(target, 2, b"").await.unwrap();
            peer.send(&flip(&hello, part, bit)).await.unwrap();
            assert!(peer.is_closed_silently().await, "part {part}, bit {bit}");
        }
    }
    honest.end().await;
}

async fn flipped_initiate(target: &Target) {
    let honest = Honest::begin(target).await;
    let ask = initiate(Role::Client, SessionAsk::New);
    // Refusals wait a second each: all at once.
    let mut waiting = Vec::new();
    for bit in (0..1500).step_by(61) {
        let mut peer = RawPeer::greeted(target, 2, b"").await.unwrap();
        let hello = RawPeer::hello(target, &key(ANN), 1);
        let welcomed = peer.welcomed(hello).await.unwrap();
        let (message, _, _) = welcomed.initiate(&ask, Duration::ZERO).unwrap();
        let bit = bit % (message[1].len() * 8);
        peer.send(&flip(&message, 1, bit)).await.unwrap();
        waiting.push((bit, peer));
    }
    for (bit, mut peer) in waiting {
        let answer = peer.receive().await.unwrap();
        let code = answer.and_then(|parts| read_refusal(Suite::fastest(), &parts));
        assert_eq!(code, Some(1), "bit {bit}");
        assert!(peer.is_closed_silently().await);
    }
    honest.end().await;
}

async fn recorded(target: &Target) {
    let honest = Honest::begin(target).await;
    let ask = initiate(Role::Client, SessionAsk::New);
    let mut peer = RawPeer::greeted(target, 2, b"").await.unwrap();
    let (state, hello) = RawPeer::hello(target, &key(ANN), 1);
    let recorded_hello = hello.clone();
    let welcomed = peer.welcomed((state, hello)).await.unwrap();
    let (recorded_initiate, _, _) = welcomed.initiate(&ask, Duration::ZERO).unwrap();
    peer.send(&recorded_initiate).await.unwrap();
    assert!(
        peer.receive().await.unwrap().is_some(),
        "the original is let in"
    );

    // Somebody who saw it all repeats it.
    let mut thief = RawPeer::greeted(target, 3, b"").await.unwrap();
    thief.send(&recorded_hello).await.unwrap();
    assert!(
        thief.receive().await.unwrap().is_some(),
        "WELCOME proves nothing"
    );
    thief.send(&recorded_initiate).await.unwrap();
    let answer = thief.receive().await.unwrap().unwrap();
    assert_eq!(read_refusal(Suite::fastest(), &answer), Some(1));
    assert!(thief.is_closed_silently().await);

    // HELLO twice on one connection; INITIATE twice.
    let mut twice = RawPeer::greeted(target, 3, b"").await.unwrap();
    twice.send(&recorded_hello).await.unwrap();
    assert!(twice.receive().await.unwrap().is_some());
    twice.send(&recorded_hello).await.unwrap();
    let answer = twice.receive().await.unwrap().unwrap();
    assert_eq!(read_refusal(Suite::fastest(), &answer), Some(1));
    peer.send(&recorded_initiate).await.unwrap();
    while let Ok(Some(_)) = peer.receive().await {}
    honest.end().await;
}

async fn reordered(target: &Target) {
    let honest = Honest::begin(target).await;
    let ask = initiate(Role::Client, SessionAsk::New);
    let mut peer = RawPeer::greeted(target, 2, b"").await.unwrap();
    let welcomed = peer
        .welcomed(RawPeer::hello(target, &key(ANN), 1))
        .await
        .unwrap();
    let (first, mut sealer, _) = welcomed.initiate(&ask, Duration::ZERO).unwrap();
    let data = sealer.seal(b"\xc0", &[], Duration::ZERO).unwrap();

    for message in [&first, &data] {
        let mut other = RawPeer::greeted(target, 2, b"").await.unwrap();
        other.send(message).await.unwrap();
        assert!(other.is_closed_silently().await, "instead of HELLO");
    }
    // DATA where INITIATE is due, and INITIATE only then.
    peer.send(&data).await.unwrap();
    let _ = peer.send(&first).await;
    let answer = peer.receive().await.unwrap().unwrap();
    assert_eq!(read_refusal(Suite::fastest(), &answer), Some(1));
    honest.end().await;
}

async fn duplicate_identities(target: &Target) {
    let named = |name: &str| initiate(Role::Client, SessionAsk::Named(name.parse().unwrap()));
    let peer = RawPeer::greeted(target, 2, b"same").await.unwrap();
    let mut ann = peer.into_sealed(ANN, &named("ann"), target).await.unwrap();
    let peer = RawPeer::greeted(target, 3, b"same").await.unwrap();
    let mut bob = peer.into_sealed(BOB, &named("bob"), target).await.unwrap();
    // Neither one in a handshake, nor one that says nothing, disturbs the others.
    let _silent = RawPeer::greeted(target, 4, b"same").await.unwrap();
    for round in 1..20u8 {
        for (client, name, who) in [(&mut ann, "ann", ANN), (&mut bob, "bob", BOB)] {
            let id = RequestId::from_bytes([round; 16]);
            let request = Request {
                id,
                body: RequestBody::Sessions,
            };
            client
                .send(&ClientToMaster::Request(Box::new(request)))
                .await
                .unwrap();
            let Some(MasterToClient::Reply(reply)) = client.receive().await.unwrap() else {
                panic!("no reply for {who}");
            };
            let Reply {
                id: answered,
                result: Ok(ReplyBody::Sessions(sessions)),
            } = *reply
            else {
                panic!("not its sessions");
            };
            assert_eq!(answered, id);
            let names: Vec<_> = sessions.iter().filter_map(|s| s.name.as_ref()).collect();
            assert_eq!(names, [&name.parse().unwrap()]);
        }
    }
}
