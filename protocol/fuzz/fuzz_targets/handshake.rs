//! Each stage of the handshake, and an opener, given parts of any content: no panic, and nothing that
//! was not made by the other side is accepted.
#![no_main]

use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use teu_protocol::{
    header::{Header, MessageType},
    noise::{
        ClientHandshake, ClientStep, HandshakeError, HelloCheck, LocationIdentity, ServerHandshake,
        StaticKey, Suite,
    },
};

const NOW: Duration = Duration::ZERO;

// First byte: the stage. Second: the suite, and whether the header is a proper one. Then parts, each
// preceded by its length in one byte, times four.
fuzz_target!(|input: &[u8]| {
    let [stage, choice, rest @ ..] = input else {
        return;
    };
    let suite = if choice & 1 == 0 {
        Suite::AesGcmSha256
    } else {
        Suite::ChaChaPolyBlake2s
    };
    let proper = choice & 2 != 0;
    let parts = |kind| {
        let header = Header::new(kind, suite).encode();
        let header = proper.then(|| Bytes::copy_from_slice(&header));
        header.into_iter().chain(split(rest)).collect::<Vec<_>>()
    };
    match stage % 4 {
        0 => drop(door().check(&parts(MessageType::Hello))),
        1 => {
            let (client, _, _) = hello(suite);
            let kind = if choice & 4 == 0 {
                MessageType::Welcome
            } else {
                MessageType::Cookie
            };
            let outcome = client.on_message(&parts(kind));
            assert!(outcome.is_err(), "a forged answer passes");
        }
        2 => {
            let (_, server, _) = hello(suite);
            let outcome = server.on_initiate(&parts(MessageType::Initiate), NOW);
            assert!(outcome.is_err(), "a forged INITIATE passes");
        }
        _ => {
            let (client, server, welcome) = hello(suite);
            let Ok(ClientStep::Welcomed(welcomed)) = client.on_message(&welcome) else {
                panic!("a proper WELCOME fails");
            };
            let Ok((initiate, _, mut opener)) = welcomed.initiate(b"", NOW) else {
                panic!("INITIATE fails");
            };
            assert!(
                opener.open(parts(MessageType::Ready)).is_err(),
                "a forged READY passes"
            );
            let Ok(mut accepted) = server.on_initiate(&initiate, NOW) else {
                panic!("a proper INITIATE fails");
            };
            let outcome = accepted.opener.open(parts(MessageType::Data));
            assert!(outcome.is_err(), "a forged DATA passes");
        }
    }
});

fn split(mut rest: &[u8]) -> Vec<Bytes> {
    let mut parts = Vec::new();
    while let Some((&length, after)) = rest.split_first() {
        let (part, after) = after.split_at(after.len().min(usize::from(length) * 4));
        parts.push(Bytes::copy_from_slice(part));
        rest = after;
    }
    parts
}

fn key(byte: u8) -> StaticKey {
    StaticKey::from_bytes([byte; 32]).unwrap_or_else(|error| panic!("{error}"))
}

fn location() -> LocationIdentity {
    LocationIdentity::new("x.example.org", key(1).public(), 1)
        .unwrap_or_else(|error| panic!("{error}"))
}

fn door() -> HelloCheck {
    HelloCheck::new(vec![(location(), key(1))])
}

/// Both sides after a proper HELLO, and the WELCOME.
fn hello(suite: Suite) -> (ClientHandshake, ServerHandshake, Vec<Bytes>) {
    let begin = || -> Result<_, HandshakeError> {
        let (client, hello) = ClientHandshake::new(&location(), &key(2), suite, [3; 32])?;
        let checked = door()
            .check(&hello)
            .map_err(|_| HandshakeError::Unexpected)?;
        let (server, welcome) = ServerHandshake::accept(&checked, [4; 32], b"welcome")?;
        Ok((client, server, welcome))
    };
    begin().unwrap_or_else(|error| panic!("{error}"))
}
