//! The bytes of every message under fixed seeds: whoever changes one of these changes the protocol.

use std::net::{IpAddr, Ipv4Addr};

use sha2::{Digest, Sha256};

use super::*;
use crate::noise::{ConnectionOrigin, CookieJar, encode_refusal};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Short parts as they are, long ones by length and digest.
fn show(parts: &[Bytes]) -> String {
    let show = |part: &Bytes| match part.len() {
        0..=80 => hex(part),
        long => format!("[{long}] sha256 {}", hex(&Sha256::digest(part))),
    };
    parts.iter().map(show).collect::<Vec<_>>().join("\n")
}

fn transcript(suite: Suite) -> String {
    let (_, hello) = hello(suite);
    let checked = door().check(&hello).unwrap();
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let origin = ConnectionOrigin {
        connection: 1,
        address,
    };
    let cookie = CookieJar::new([21; 32], NOW)
        .issue(&checked, origin, [31; 12])
        .unwrap();
    let (_, _, welcome) = welcome(suite);
    let mut ends = connected(suite);
    let ready = ends.server.0.seal(b"ready", &[], NOW).unwrap();
    let late = NOW + Duration::from_secs(120);
    let bulk = [Bytes::from_static(b"bulk")];
    let rekeyed = ends
        .client
        .0
        .seal(b"with the first key", &bulk, late)
        .unwrap();
    let after = ends
        .client
        .0
        .seal(b"with the second key", &[], late)
        .unwrap();
    let error = encode_refusal(suite, 401);
    let messages = [
        ("HELLO", hello),
        ("COOKIE", cookie),
        ("WELCOME", welcome),
        ("INITIATE", ends.initiate),
        ("READY", ready),
        ("DATA, the last before a rekey", rekeyed),
        ("DATA, the first after it", after),
        ("ERROR", error),
    ];
    messages
        .map(|(name, parts)| format!("{name}\n{}\n", show(&parts)))
        .concat()
}

#[test]
fn wire_frames_of_suite_1() {
    insta::assert_snapshot!(transcript(Suite::AesGcmSha256));
}

#[test]
fn wire_frames_of_suite_2() {
    insta::assert_snapshot!(transcript(Suite::ChaChaPolyBlake2s));
}
