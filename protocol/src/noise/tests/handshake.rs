//! From HELLO to INITIATE.

use super::*;
use crate::{
    header::{Header, HeaderError, MessageType},
    limits::{HELLO_MIN_BYTES, MAX_INITIATE_PAYLOAD_BYTES, MAX_WELCOME_PAYLOAD_BYTES},
    noise::{HandshakeError, HelloError, encode_refusal},
};

fn size(parts: &[Bytes]) -> usize {
    parts.iter().map(Bytes::len).sum()
}

#[test]
fn both_suites_agree_on_keys() {
    for suite in SUITES {
        let mut ends = connected(suite);
        let ready = ends.server.0.seal(b"ready", &[], NOW).unwrap();
        assert_eq!(Header::decode(&ready[0]).unwrap().kind, MessageType::Ready);
        assert_eq!(
            ends.client.1.open(ready).unwrap().control.as_ref(),
            b"ready"
        );
        let data = ends.client.0.seal(b"data", &[], NOW).unwrap();
        assert_eq!(Header::decode(&data[0]).unwrap().kind, MessageType::Data);
        assert_eq!(ends.server.1.open(data).unwrap().control.as_ref(), b"data");
        assert_eq!(ends.initiate.len(), 2);
    }
}

#[test]
fn no_reply_is_larger_than_its_hello() {
    for suite in SUITES {
        let (_, message) = hello(suite);
        assert_eq!(size(&message), HELLO_MIN_BYTES);
        let checked = door().check(&message).unwrap();
        let payload = vec![0; MAX_WELCOME_PAYLOAD_BYTES];
        let (_, welcome) = ServerHandshake::accept(&checked, [0; 32], &payload).unwrap();
        assert!(size(&welcome) <= size(&message));
    }
}

#[test]
fn payloads_are_bounded() {
    let (_, message) = hello(Suite::AesGcmSha256);
    let checked = door().check(&message).unwrap();
    let long = vec![0; MAX_WELCOME_PAYLOAD_BYTES + 1];
    let refused = ServerHandshake::accept(&checked, [0; 32], &long);
    assert!(matches!(
        refused,
        Err(HandshakeError::PayloadTooLong { .. })
    ));

    let (client, _, welcome) = welcome(Suite::AesGcmSha256);
    let long = vec![0; MAX_INITIATE_PAYLOAD_BYTES + 1];
    let refused = welcomed(client.on_message(&welcome).unwrap()).initiate(&long, NOW);
    assert!(matches!(
        refused,
        Err(HandshakeError::PayloadTooLong { .. })
    ));
}

#[test]
fn a_damaged_hello_is_dropped_before_public_key_work() {
    for suite in SUITES {
        let (_, message) = hello(suite);
        for (part, byte, damaged) in every_damage(&message) {
            assert!(
                door().check(&damaged).is_err(),
                "byte {byte} of part {part}"
            );
        }
        for reshaped in every_reshape(&message) {
            // A longer padding is as good as the one we make; nothing else is.
            if reshaped.len() == 5 && reshaped[..4] == message[..4] && reshaped[4].len() > 900 {
                continue;
            }
            assert!(door().check(&reshaped).is_err(), "{reshaped:?}");
        }
    }
}

#[test]
fn a_damaged_welcome_ends_the_handshake() {
    for suite in SUITES {
        let (_, _, message) = welcome(suite);
        for (part, byte, damaged) in every_damage(&message) {
            let (client, _) = hello(suite);
            assert!(
                client.on_message(&damaged).is_err(),
                "byte {byte} of part {part}"
            );
        }
        for reshaped in every_reshape(&message) {
            let (client, _) = hello(suite);
            assert!(client.on_message(&reshaped).is_err(), "{reshaped:?}");
        }
    }
}

#[test]
fn a_damaged_initiate_ends_the_handshake() {
    for suite in SUITES {
        let (_, message) = initiate(suite);
        for (part, byte, damaged) in every_damage(&message) {
            let (half, _) = initiate(suite);
            let outcome = half.server.on_initiate(&damaged, NOW);
            assert!(outcome.is_err(), "byte {byte} of part {part}");
        }
        for reshaped in every_reshape(&message) {
            let (half, _) = initiate(suite);
            assert!(
                half.server.on_initiate(&reshaped, NOW).is_err(),
                "{reshaped:?}"
            );
        }
    }
}

#[test]
fn an_initiate_of_another_handshake_is_not_accepted() {
    let (_, old) = initiate(Suite::AesGcmSha256);
    let (_, message) = hello(Suite::AesGcmSha256);
    let checked = door().check(&message).unwrap();
    let (server, _) = ServerHandshake::accept(&checked, [99; 32], b"welcome").unwrap();
    assert_eq!(
        server.on_initiate(&old, NOW).unwrap_err(),
        HandshakeError::Unauthentic
    );
}

#[test]
fn who_means_another_key_name_or_serial_is_dropped() {
    let others = [
        LocationIdentity::new("rack1.example.org", key(3).public(), 7),
        LocationIdentity::new("rack2.example.org", key(1).public(), 7),
        LocationIdentity::new("rack1.example.org", key(1).public(), 8),
    ];
    for other in others.map(Result::unwrap) {
        for suite in SUITES {
            let (_, message) = ClientHandshake::new(&other, &key(2), suite, [11; 32]).unwrap();
            assert_eq!(
                door().check(&message).unwrap_err(),
                HelloError::Mac1,
                "{other:?}"
            );
        }
    }
}

#[test]
fn a_name_means_the_same_in_any_case_and_with_a_final_dot() {
    let plain = LocationIdentity::new("rack1.example.org", key(1).public(), 7).unwrap();
    assert_eq!(plain, location());
    let too_long = LocationIdentity::new(&"x".repeat(254), key(1).public(), 7);
    assert_eq!(too_long.unwrap_err(), HandshakeError::NameTooLong);
}

#[test]
fn a_rotated_key_is_found_among_several() {
    let next = LocationIdentity::new("rack1.example.org", key(4).public(), 8).unwrap();
    let check = HelloCheck::new(vec![(next.clone(), key(4)), (location(), key(1))]);
    let (_, old) = hello(Suite::AesGcmSha256);
    assert_eq!(check.check(&old).unwrap().location(), &location());
    let (_, new) = ClientHandshake::new(&next, &key(2), SUITES[1], [1; 32]).unwrap();
    assert_eq!(check.check(&new).unwrap().location(), &next);
}

#[test]
fn an_impostor_without_the_secret_key_is_not_believed() {
    // It knows the public key, so it passes mac1, but cannot make WELCOME.
    let check = HelloCheck::new(vec![(location(), key(66))]);
    let (client, message) = hello(Suite::AesGcmSha256);
    let checked = check.check(&message).unwrap();
    match ServerHandshake::accept(&checked, [12; 32], b"welcome") {
        Err(error) => assert_eq!(error, HandshakeError::Unauthentic),
        Ok((_, welcome)) => {
            let error = client.on_message(&welcome).unwrap_err();
            assert_eq!(error, HandshakeError::Unauthentic);
        }
    }
}

#[test]
fn a_suite_cannot_be_swapped_on_the_way() {
    let [first, second] = SUITES;
    let (_, mut message) = hello(first);
    message[0] = Bytes::copy_from_slice(&Header::new(MessageType::Hello, second).encode());
    assert_eq!(door().check(&message).unwrap_err(), HelloError::Mac1);

    let (client, _, mut message) = welcome(first);
    message[0] = Bytes::copy_from_slice(&Header::new(MessageType::Welcome, second).encode());
    assert_eq!(
        client.on_message(&message).unwrap_err(),
        HandshakeError::Unexpected
    );

    let (half, mut message) = initiate(first);
    message[0] = Bytes::copy_from_slice(&Header::new(MessageType::Initiate, second).encode());
    let error = half.server.on_initiate(&message, NOW).unwrap_err();
    assert_eq!(error, HandshakeError::Unexpected);
}

#[test]
fn an_unknown_suite_is_named() {
    let (client, _) = hello(Suite::AesGcmSha256);
    let message = [Bytes::from_static(b"TEU1\x03\x09\0\0"), Bytes::new()];
    let error = client.on_message(&message).unwrap_err();
    assert_eq!(error, HandshakeError::Header(HeaderError::Suite(9)));
}

#[test]
fn a_refusal_carries_its_code() {
    let (client, _) = hello(Suite::AesGcmSha256);
    let error = client
        .on_message(&encode_refusal(Suite::AesGcmSha256, 401))
        .unwrap_err();
    assert_eq!(error, HandshakeError::Refused(401));
}

#[test]
fn points_of_low_order_are_refused() {
    // A peer whose static key is the point 0 would share the secret 0 with everybody.
    let nobody = LocationIdentity::new("x", crate::ids::PublicKey::from_bytes([0; 32]), 1).unwrap();
    let refused = ClientHandshake::new(&nobody, &key(2), Suite::AesGcmSha256, [11; 32]);
    assert_eq!(refused.err().unwrap(), HandshakeError::Unauthentic);
}

#[test]
fn secrets_are_not_shown() {
    let secret = StaticKey::from_bytes(*b"a secret of thirty-two bytes ok!").unwrap();
    let shown = format!("{secret:?} {:?}", connected(Suite::AesGcmSha256).client);
    assert!(
        !shown.contains("97, 32, 115") && !shown.contains("a secret"),
        "{shown}"
    );
}
