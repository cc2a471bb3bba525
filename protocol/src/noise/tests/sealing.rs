//! Sealed messages.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    header::{Header, MessageType},
    limits::{
        MAX_MESSAGE_BYTES, MAX_MESSAGE_PARTS, MAX_PART_CONTENT_BYTES, REKEY_AFTER,
        REKEY_AFTER_MESSAGES,
    },
    noise::{OpenError, SealError, encode_refusal, seal},
};

/// A direction whose READY is done with.
fn client_to_master(suite: Suite) -> (Sealer, Opener) {
    let ends = connected(suite);
    (ends.client.0, ends.server.1)
}

fn bulk_of(sizes: &[usize]) -> Vec<Bytes> {
    sizes
        .iter()
        .zip((1..=9).cycle())
        .map(|(size, fill)| Bytes::from(vec![fill; *size]))
        .collect()
}

#[test]
fn control_and_bulk_arrive_whatever_their_sizes() {
    let full = MAX_PART_CONTENT_BYTES;
    for suite in SUITES {
        let (mut sealer, mut opener) = client_to_master(suite);
        for control in [0, 1, full - 1, full, full + 1, 3 * full] {
            for sizes in [&[][..], &[1], &[0, 5, 0], &[full, full + 1, 2 * full]] {
                let control = vec![3; control];
                let bulk = bulk_of(sizes);
                let parts = sealer.seal(&control, &bulk, NOW).unwrap();
                assert!(parts.iter().all(|part| part.len() <= full + 17));
                let opened = opener.open(parts).unwrap();
                assert_eq!(opened.control, control);
                assert_eq!(opened.bulk.concat(), bulk.concat());
            }
        }
    }
}

#[test]
fn framed_and_in_parts_are_the_same_bytes_and_open_in_place() {
    use crate::zmtp::{Decoder, Event, Limits, SocketRole, encode_message, greeting};
    let (mut in_parts, mut opener) = client_to_master(Suite::AesGcmSha256);
    let (mut framed, _) = client_to_master(Suite::AesGcmSha256);
    let mut decoder = Decoder::new(SocketRole::Router, Limits::AUTHENTICATED);
    let mut received = BytesMut::from(&greeting()[..]);
    received.extend_from_slice(b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06DEALER");
    while decoder.decode(&mut received).unwrap().is_some() {}
    let (mut expected, mut out) = (BytesMut::new(), BytesMut::new());
    for sizes in [&[][..], &[1, 300], &[MAX_PART_CONTENT_BYTES + 1, 7]] {
        let bulk = bulk_of(sizes);
        let parts = in_parts.seal(b"control", &bulk, NOW).unwrap();
        expected.clear();
        out.clear();
        encode_message(&parts, &mut expected);
        framed
            .seal_framed(b"control", &bulk, NOW, &mut out)
            .unwrap();
        assert_eq!(out, expected);
        received.extend_from_slice(&out);
        let Some(Event::Message(parts)) = decoder.decode_mut(&mut received).unwrap() else {
            panic!("not a message");
        };
        let places: Vec<_> = parts.iter().skip(2).map(|part| part.as_ptr()).collect();
        let opened = opener.open(parts).unwrap();
        assert_eq!(opened.bulk.concat(), bulk.concat());
        let opened_at: Vec<_> = opened.bulk.iter().map(|part| part.as_ptr()).collect();
        assert_eq!(opened_at, places, "copied");
    }
}

#[test]
fn a_message_too_large_is_refused_and_leaves_the_sealer_as_it_was() {
    let (mut sealer, mut opener) = client_to_master(Suite::AesGcmSha256);
    let error = sealer
        .seal(&vec![0; MAX_MESSAGE_BYTES], &[], NOW)
        .unwrap_err();
    assert!(matches!(error, SealError::TooLong(_)));
    let crumbs = bulk_of(&[1; MAX_MESSAGE_PARTS]);
    let error = sealer.seal(b"", &crumbs, NOW).unwrap_err();
    assert!(matches!(error, SealError::TooManyParts(_)));
    let parts = sealer.seal(b"still in order", &[], NOW).unwrap();
    assert_eq!(
        opener.open(parts).unwrap().control.as_ref(),
        b"still in order"
    );
}

#[test]
fn the_largest_message_passes_the_zmtp_limits_too() {
    let (mut sealer, mut opener) = client_to_master(Suite::AesGcmSha256);
    let overhead = 8 + 129 * 17;
    let parts = sealer
        .seal(&vec![1; MAX_MESSAGE_BYTES - overhead], &[], NOW)
        .unwrap();
    assert!(parts.len() <= MAX_MESSAGE_PARTS);
    assert!(opener.open(parts).is_ok());
}

#[test]
fn damage_anywhere_is_noticed_and_final() {
    let (mut sealer, _) = client_to_master(Suite::AesGcmSha256);
    let message = sealer.seal(b"control", &bulk_of(&[9, 4]), NOW).unwrap();
    for (part, byte, damaged) in every_damage(&message) {
        let (_, mut opener) = client_to_master(Suite::AesGcmSha256);
        assert!(opener.open(damaged).is_err(), "byte {byte} of part {part}");
        assert_eq!(
            opener.open(message.clone()).unwrap_err(),
            OpenError::AlreadyFailed
        );
    }
    for reshaped in every_reshape(&message) {
        let (_, mut opener) = client_to_master(Suite::AesGcmSha256);
        assert!(opener.open(reshaped).is_err());
    }
}

#[test]
fn a_replay_a_gap_and_a_swap_are_noticed() {
    let seal_two = || {
        let (mut sealer, opener) = client_to_master(Suite::ChaChaPolyBlake2s);
        let first = sealer.seal(b"first", &[], NOW).unwrap();
        (first, sealer.seal(b"second", &[], NOW).unwrap(), opener)
    };
    let (first, _, mut opener) = seal_two();
    assert!(opener.open(first.clone()).is_ok());
    assert_eq!(opener.open(first).unwrap_err(), OpenError::Unauthentic);
    let (_, second, mut opener) = seal_two();
    assert_eq!(opener.open(second).unwrap_err(), OpenError::Unauthentic);

    let (mut sealer, mut opener) = client_to_master(Suite::AesGcmSha256);
    let mut swapped = sealer.seal(b"", &bulk_of(&[5, 5]), NOW).unwrap();
    swapped.swap(2, 3);
    assert_eq!(opener.open(swapped).unwrap_err(), OpenError::Unauthentic);
}

#[test]
fn one_direction_does_not_open_the_other() {
    let mut ends = connected(Suite::AesGcmSha256);
    let parts = ends.client.0.seal(b"to the master", &[], NOW).unwrap();
    let mut mirrored = parts;
    let ready = Header::new(MessageType::Ready, Suite::AesGcmSha256).encode();
    mirrored[0] = Bytes::copy_from_slice(&ready);
    assert_eq!(
        ends.client.1.open(mirrored).unwrap_err(),
        OpenError::Unauthentic
    );
}

#[test]
fn ready_comes_first_and_once() {
    let mut ends = connected(Suite::AesGcmSha256);
    let mut ready = ends.server.0.seal(b"ready", &[], NOW).unwrap();
    let data = Header::new(MessageType::Data, Suite::AesGcmSha256).encode();
    ready[0] = Bytes::copy_from_slice(&data);
    assert_eq!(
        ends.client.1.open(ready).unwrap_err(),
        OpenError::Unexpected
    );
}

#[test]
fn the_master_may_end_a_connection_and_a_client_may_not_say_error() {
    let mut ends = connected(Suite::AesGcmSha256);
    let refusal = encode_refusal(Suite::AesGcmSha256, 410);
    assert_eq!(
        ends.client.1.open(refusal.clone()).unwrap_err(),
        OpenError::Refused(410)
    );
    assert_eq!(
        ends.server.1.open(refusal).unwrap_err(),
        OpenError::Unexpected
    );
}

#[test]
fn trailers_that_contradict_the_message_are_refused() {
    use seal::{TRAILER_BULK, TRAILER_LAST, TRAILER_REKEY};
    let bad: [&[u8]; 7] = [
        &[0],                             // nothing says last
        &[TRAILER_LAST, TRAILER_LAST],    // two last parts
        &[TRAILER_LAST | TRAILER_BULK],   // no control
        &[0, TRAILER_BULK, TRAILER_LAST], // control after bulk
        &[TRAILER_REKEY, TRAILER_LAST],   // rekey before the last part
        &[TRAILER_LAST | 1 << 2],         // a flag that nobody knows
        &[TRAILER_LAST | 1 << 6],
    ];
    for trailers in bad {
        let (mut sealer, mut opener) = client_to_master(Suite::AesGcmSha256);
        let parts = sealer.seal_trailers_for_test(trailers);
        assert_eq!(
            opener.open(parts).unwrap_err(),
            OpenError::Trailer,
            "{trailers:?}"
        );
    }
    let good: &[u8] = &[
        0,
        0,
        TRAILER_BULK,
        TRAILER_BULK | TRAILER_LAST | TRAILER_REKEY,
    ];
    let (mut sealer, mut opener) = client_to_master(Suite::AesGcmSha256);
    assert!(opener.open(sealer.seal_trailers_for_test(good)).is_ok());
}

#[test]
fn keys_change_by_count_in_both_directions() {
    for suite in SUITES {
        let mut ends = connected(suite);
        for (sealer, opener) in [
            (&mut ends.client.0, &mut ends.server.1),
            (&mut ends.server.0, &mut ends.client.1),
        ] {
            for number in 0..2 * REKEY_AFTER_MESSAGES + 3 {
                let control = number.to_be_bytes();
                let parts = sealer.seal(&control, &[], NOW).unwrap();
                assert_eq!(opener.open(parts).unwrap().control.as_ref(), control);
            }
            assert_eq!(sealer.messages_with_key_for_test(), 3);
        }
    }
}

#[test]
fn keys_change_by_time() {
    let (mut sealer, mut opener) = client_to_master(Suite::AesGcmSha256);
    let mut with_key = Vec::new();
    for seconds in [0, 119, 120, 121, 239, 240, 1000] {
        let now = NOW + Duration::from_secs(seconds);
        let parts = sealer.seal(b"tick", &bulk_of(&[3]), now).unwrap();
        assert!(opener.open(parts).is_ok());
        with_key.push(sealer.messages_with_key_for_test());
    }
    assert_eq!(with_key, [1, 2, 0, 1, 2, 0, 0]);
    assert_eq!(REKEY_AFTER.as_secs(), 120);
}

#[test]
fn a_peer_that_never_changes_its_key_is_cut_off() {
    let (mut sealer, mut opener) = client_to_master(Suite::AesGcmSha256);
    for _ in 1..REKEY_AFTER_MESSAGES {
        opener
            .open(sealer.seal_trailers_for_test(&[seal::TRAILER_LAST]))
            .unwrap();
    }
    let parts = sealer.seal_trailers_for_test(&[seal::TRAILER_LAST]);
    assert_eq!(opener.open(parts).unwrap_err(), OpenError::RekeyOverdue);
}

proptest! {
    #[test]
    fn garbage_never_opens(parts in vec(vec(any::<u8>(), 0..80), 0..6)) {
        let (_, mut opener) = client_to_master(Suite::AesGcmSha256);
        let parts = parts.into_iter().map(Bytes::from).collect();
        prop_assert!(opener.open(parts).is_err());
    }

    #[test]
    fn any_message_survives(
        control in vec(any::<u8>(), 0..2000),
        bulk in vec(vec(any::<u8>(), 0..3000), 0..5),
    ) {
        let (mut sealer, mut opener) = client_to_master(Suite::ChaChaPolyBlake2s);
        let bulk: Vec<Bytes> = bulk.into_iter().map(Bytes::from).collect();
        let opened = opener.open(sealer.seal(&control, &bulk, NOW).unwrap()).unwrap();
        prop_assert_eq!(&opened.control[..], &control[..]);
        prop_assert_eq!(opened.bulk.concat(), bulk.concat());
    }
}
