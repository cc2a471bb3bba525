//! Handshakes and sealed messages, as intended and attacked. Each file takes one stage.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod cookie;
mod handshake;
mod sealing;
mod vectors;

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{
    Accepted, ClientHandshake, ClientStep, HelloCheck, LocationIdentity, Opener, Sealer,
    ServerHandshake, StaticKey, Suite, Welcomed,
};

const SUITES: [Suite; 2] = [Suite::AesGcmSha256, Suite::ChaChaPolyBlake2s];
const NOW: Duration = Duration::from_secs(1_000);

fn key(byte: u8) -> StaticKey {
    StaticKey::from_bytes([byte; 32]).unwrap()
}

fn location() -> LocationIdentity {
    LocationIdentity::new("Rack1.Example.ORG.", key(1).public(), 7).unwrap()
}

fn door() -> HelloCheck {
    HelloCheck::new(vec![(location(), key(1))])
}

fn hello(suite: Suite) -> (ClientHandshake, Vec<Bytes>) {
    ClientHandshake::new(&location(), &key(2), suite, [11; 32]).unwrap()
}

fn welcome(suite: Suite) -> (ClientHandshake, ServerHandshake, Vec<Bytes>) {
    let (client, message) = hello(suite);
    let checked = door().check(&message).unwrap();
    let (server, welcome) = ServerHandshake::accept(&checked, [12; 32], b"welcome").unwrap();
    (client, server, welcome)
}

fn welcomed(step: ClientStep) -> Welcomed {
    match step {
        ClientStep::Welcomed(welcomed) => welcomed,
        ClientStep::SendHello(..) => panic!("a cookie was not asked for"),
    }
}

struct Connected {
    initiate: Vec<Bytes>,
    client: (Sealer, Opener),
    server: (Sealer, Opener),
}

fn initiate(suite: Suite) -> (Initiated, Vec<Bytes>) {
    let (client, server, welcome) = welcome(suite);
    let welcomed = welcomed(client.on_message(&welcome).unwrap());
    assert_eq!(welcomed.payload().as_ref(), b"welcome");
    let (message, sealer, opener) = welcomed.initiate(b"initiate", NOW).unwrap();
    (
        Initiated {
            server,
            sealer,
            opener,
        },
        message,
    )
}

/// Between INITIATE being made and being read.
struct Initiated {
    server: ServerHandshake,
    sealer: Sealer,
    opener: Opener,
}

fn connected(suite: Suite) -> Connected {
    let (half, initiate) = initiate(suite);
    let Accepted {
        peer,
        payload,
        sealer,
        opener,
    } = half.server.on_initiate(&initiate, NOW).unwrap();
    assert_eq!(peer, key(2).public());
    assert_eq!(payload.as_ref(), b"initiate");
    Connected {
        initiate,
        client: (half.sealer, half.opener),
        server: (sealer, opener),
    }
}

/// The message with one bit of one byte changed, for every byte of every part.
fn every_damage(parts: &[Bytes]) -> impl Iterator<Item = (usize, usize, Vec<Bytes>)> + '_ {
    parts.iter().enumerate().flat_map(move |(part, bytes)| {
        (0..bytes.len()).map(move |byte| {
            let mut damaged = parts.to_vec();
            let mut bytes = bytes.to_vec();
            bytes[byte] ^= 1 << (byte % 8);
            damaged[part] = bytes.into();
            (part, byte, damaged)
        })
    })
}

/// The message with one part missing, doubled, or one byte shorter or longer.
fn every_reshape(parts: &[Bytes]) -> Vec<Vec<Bytes>> {
    let mut reshaped = Vec::new();
    for index in 0..parts.len() {
        let mut missing = parts.to_vec();
        missing.remove(index);
        let mut doubled = parts.to_vec();
        doubled.insert(index, parts[index].clone());
        let mut longer = parts.to_vec();
        longer[index] = [&parts[index][..], &[0]].concat().into();
        reshaped.extend([missing, doubled, longer]);
        if let Some((_, shorter)) = parts[index].split_last() {
            let mut cut = parts.to_vec();
            cut[index] = Bytes::copy_from_slice(shorter);
            reshaped.push(cut);
        }
    }
    reshaped
}
