//! Below the handshake: ZMTP that claims, repeats and never ends.

use teu_integration::attack::{ANN, Honest, RawPeer, Target, initiate};
use teu_protocol::{
    message::{Role, SessionAsk},
    zmtp,
};

use crate::Attack;

/// What all of these may make the master grow by: some hundred connections' buffers.
const GROWTH_BYTES: u64 = 24 << 20;

pub(crate) const TRIALS: &[(&str, Attack)] = &[
    ("a_frame_that_claims_a_terabyte_is_not_believed", |t| {
        Box::pin(terabyte(t))
    }),
    (
        "an_authenticated_peer_cannot_claim_a_terabyte_either",
        |t| Box::pin(sealed_terabyte(t)),
    ),
    ("a_message_without_end_is_ended", |t| Box::pin(endless(t))),
    ("other_protocols_are_turned_away", |t| {
        Box::pin(other_protocols(t))
    }),
    ("commands_out_of_turn_are_turned_away", |t| {
        Box::pin(commands(t))
    }),
    (
        "pings_that_nobody_reads_the_answers_of_do_not_add_up",
        |t| Box::pin(pings(t)),
    ),
];

fn claim(bytes: u64) -> Vec<u8> {
    let mut frame = vec![0x02];
    frame.extend_from_slice(&bytes.to_be_bytes());
    frame
}

async fn terabyte(target: &Target) {
    let honest = Honest::begin(target).await;
    let before = target.memory_bytes();
    for claimed in [1 << 40, u64::MAX, 1 << 63, 4097] {
        for _ in 0..50 {
            let mut peer = RawPeer::greeted(target, 2, b"").await.unwrap();
            peer.send_raw(&claim(claimed)).await.unwrap();
            assert!(peer.is_closed_silently().await, "{claimed}");
        }
    }
    // 73 bytes: a greeting and the frame, without READY.
    for _ in 0..50 {
        let mut peer = RawPeer::connect(target, 2).await.unwrap();
        peer.send_raw(&zmtp::greeting()).await.unwrap();
        peer.send_raw(&claim(1 << 40)).await.unwrap();
        assert!(peer.is_closed_silently().await);
    }
    let grown = target.most_memory_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES, "the master grew by {grown} bytes");
    honest.end().await;
}

async fn sealed_terabyte(target: &Target) {
    let honest = Honest::begin(target).await;
    let ask = initiate(Role::Client, SessionAsk::New);
    for claimed in [1 << 40, 65_536] {
        let peer = RawPeer::greeted(target, 2, b"").await.unwrap();
        let mut client = peer.into_sealed(ANN, &ask, target).await.unwrap();
        client.peer.send_raw(&claim(claimed)).await.unwrap();
        assert!(matches!(client.receive().await, Ok(None)), "{claimed}");
    }
    honest.end().await;
}

async fn endless(target: &Target) {
    let honest = Honest::begin(target).await;
    let before = target.memory_bytes();
    for part in [
        vec![0x01, 0],
        vec![0x01, 1, b'x'],
        [vec![0x01, 255], vec![b'x'; 255]].concat(),
    ] {
        let mut peer = RawPeer::greeted(target, 2, b"").await.unwrap();
        for _ in 0..100_000 {
            if peer.send_raw(&part).await.is_err() {
                break;
            }
        }
        assert!(peer.receive().await.ok().flatten().is_none());
    }
    let grown = target.most_memory_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES, "the master grew by {grown} bytes");
    honest.end().await;
}

async fn other_protocols(target: &Target) {
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let zmtp_1 = b"\x01\x00";
    let mut curve = zmtp::greeting();
    curve[12..17].copy_from_slice(b"CURVE");
    let mut version_2 = zmtp::greeting();
    version_2[10] = 2;
    let openings: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"SSH-2.0-x\r\n",
        tls,
        zmtp_1,
        &curve,
        &version_2,
    ];
    for bytes in openings {
        let mut peer = RawPeer::connect(target, 2).await.unwrap();
        peer.send_raw(bytes).await.unwrap();
        assert!(peer.is_closed_silently().await, "{bytes:?}");
    }
    Honest::begin(target).await.end().await;
}

async fn commands(target: &Target) {
    let command = |body: &[u8]| [&[0x04, body.len() as u8], body].concat();
    let huge = [vec![0x06], 1_000_000u64.to_be_bytes().to_vec()].concat();
    let bodies = [
        command(b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"),
        command(b"\x09SUBSCRIBE"),
        command(b"\x05ERROR\x00"),
        command(b""),
        command(b"\xffPING"),
        [vec![0x01, 1, b'x'], command(b"\x04PING\x00\x00")].concat(),
        [0x05, 0].to_vec(),
        [0xf8, 0].to_vec(),
        huge,
    ];
    for bytes in bodies {
        let mut peer = RawPeer::greeted(target, 2, b"").await.unwrap();
        peer.send_raw(&bytes).await.unwrap();
        assert!(peer.is_closed_silently().await, "{bytes:?}");
    }
    Honest::begin(target).await.end().await;
}

async fn pings(target: &Target) {
    let honest = Honest::begin(target).await;
    let before = target.memory_bytes();
    let ping = b"\x04\x17\x04PING\x00\x000123456789abcdef".repeat(1000);
    let mut peers = Vec::new();
    for _ in 0..20 {
        peers.push(RawPeer::greeted(target, 2, b"").await.unwrap());
    }
    for peer in &mut peers {
        for _ in 0..200 {
            let sent =
                tokio::time::timeout(std::time::Duration::from_millis(200), peer.send_raw(&ping));
            if !matches!(sent.await, Ok(Ok(()))) {
                break;
            }
        }
    }
    let grown = target.most_memory_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES, "the master grew by {grown} bytes");
    honest.end().await;
}
