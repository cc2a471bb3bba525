//! Peers that break the rules.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::zmtp::MAX_COMMAND_BYTES;

fn fresh_error(bytes: &[u8]) -> ZmtpError {
    everything(&mut Decoder::new(SocketRole::Router, TIGHT), bytes).unwrap_err()
}

fn ready_error(bytes: &[u8]) -> ZmtpError {
    everything(&mut ready(TIGHT), bytes).unwrap_err()
}

#[test]
fn other_protocols_are_turned_away_at_once() {
    assert_eq!(fresh_error(b"G"), ZmtpError::Signature);
    assert_eq!(fresh_error(b"\xff12345678\x00"), ZmtpError::Signature);
    assert_eq!(fresh_error(b"\xff12345678\x7f\x01"), ZmtpError::Version(1));
    let mut plain = greeting();
    plain[12..17].copy_from_slice(b"PLAIN");
    assert_eq!(fresh_error(&plain), ZmtpError::Mechanism);
    plain[12..17].copy_from_slice(b"NULLX");
    assert_eq!(fresh_error(&plain), ZmtpError::Mechanism);
}

#[test]
fn ready_must_come_first_and_once_and_from_a_dealer() {
    let after_greeting = |bytes: &[u8]| fresh_error(&[&greeting()[..], bytes].concat());
    assert_eq!(after_greeting(b"\0\x01x"), ZmtpError::NotReady);
    assert_eq!(
        after_greeting(b"\x04\x07\x04PING\0\0"),
        ZmtpError::UnexpectedCommand
    );
    assert_eq!(
        after_greeting(b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06ROUTER"),
        ZmtpError::SocketType
    );
    assert_eq!(after_greeting(b"\x04\x06\x05READY"), ZmtpError::SocketType);
    assert_eq!(ready_error(LIBZMQ_READY), ZmtpError::UnexpectedCommand);
    assert_eq!(
        ready_error(b"\x04\x07\x05ERROR\0"),
        ZmtpError::RefusedByPeer
    );
    assert_eq!(
        ready_error(b"\x04\x05\x04JUMP"),
        ZmtpError::UnexpectedCommand
    );
}

#[test]
fn a_tebibyte_is_refused_by_its_header_and_allocates_nothing() {
    let mut decoder = ready(TIGHT);
    let mut buffer = BytesMut::from(&b"\x02\0\0\x01\0\0\0\0\0"[..]);
    let before = buffer.capacity();
    let error = decoder.decode(&mut buffer).unwrap_err();
    assert_eq!(
        error,
        ZmtpError::FrameTooLong {
            claimed: 1 << 40,
            max: 1000
        }
    );
    assert_eq!(buffer.capacity(), before);
    assert_eq!(decoder.bytes_missing(0), 0);
    assert_eq!(decoder.decode(&mut buffer), Err(ZmtpError::AlreadyFailed));
}

#[test]
fn every_bound_is_enforced_one_beyond_it() {
    assert!(everything(&mut ready(TIGHT), b"\x02\0\0\0\0\0\0\x03\xe8").is_ok());
    assert!(matches!(
        ready_error(b"\x02\0\0\0\0\0\0\x03\xe9"),
        ZmtpError::FrameTooLong { .. }
    ));
    assert_eq!(
        ready_error(b"\x01\0\x01\0\x01\0\x01\0\0\0"),
        ZmtpError::TooManyParts { max: 4 }
    );
    let part = [&b"\x03\0\0\0\0\0\0\x03\xe8"[..], &[0; 1000]].concat();
    let error = ready_error(&[&part[..], &part, b"\0\x01"].concat());
    assert_eq!(
        error,
        ZmtpError::MessageTooLong {
            claimed: 2001,
            max: 2000
        }
    );
    let long = u64::try_from(MAX_COMMAND_BYTES).unwrap() + 1;
    let command = [&[6][..], &long.to_be_bytes()].concat();
    assert_eq!(ready_error(&command), ZmtpError::CommandTooLong(long));
    assert_eq!(
        ready_error(b"\x04\x18\x04PING\0\0seventeen bytes !"),
        ZmtpError::MalformedCommand
    );
}

#[test]
fn flags_and_order_are_strict() {
    assert_eq!(ready_error(b"\x08"), ZmtpError::Flags(8));
    assert_eq!(ready_error(b"\x05"), ZmtpError::Flags(5));
    assert_eq!(
        ready_error(b"\x01\0\x04\x05\x04PONG"),
        ZmtpError::CommandInsideMessage
    );
}

#[test]
fn malformed_properties_are_refused() {
    let ready = |properties: &[u8]| {
        let body = [b"\x05READY", properties].concat();
        let frame = [&[4, u8::try_from(body.len()).unwrap()][..], &body].concat();
        fresh_error(&[&greeting()[..], &frame].concat())
    };
    let dealer = b"\x0bSocket-Type\0\0\0\x06DEALER";
    assert_eq!(
        ready(&[&dealer[..], b"\x08Ident"].concat()),
        ZmtpError::MalformedCommand
    );
    assert_eq!(
        ready(&[&dealer[..], b"\x01x\xff\xff\xff\xff"].concat()),
        ZmtpError::MalformedCommand
    );
    assert_eq!(
        ready(&[&dealer[..], dealer].concat()),
        ZmtpError::MalformedCommand
    );
    assert_eq!(
        ready(&[&dealer[..], b"\0"].concat()),
        ZmtpError::MalformedCommand
    );
    let many = [&dealer[..], &b"\x01x\0\0\0\0".repeat(16)].concat();
    assert_eq!(ready(&many), ZmtpError::MalformedCommand);
}

/// Feeds `pieces` as they would arrive; answers the most that the decoder held back at any time.
fn largest_hoard(decoder: &mut Decoder, pieces: &[Vec<u8>]) -> usize {
    let mut buffer = BytesMut::new();
    let mut largest = 0;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return largest,
            }
        }
        largest = largest.max(buffer.len() + decoder.bytes_held());
    }
    largest
}

/// Bytes that are likely to get far: small flags and lengths among anything at all.
fn plausible() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        Just(0u8),
        Just(1),
        Just(2),
        Just(3),
        Just(4),
        0u8..40,
        any::<u8>()
    ];
    vec(byte, 0..200)
}

proptest! {
    #[test]
    fn rubbish_never_panics_and_is_never_hoarded(
        pieces in vec(plausible(), 0..30),
        is_ready in any::<bool>(),
    ) {
        let fresh = || Decoder::new(SocketRole::Router, TIGHT);
        let mut decoder = if is_ready { ready(TIGHT) } else { fresh() };
        let header = 9;
        let bound = TIGHT.max_message_bytes.max(MAX_COMMAND_BYTES) + header;
        prop_assert!(largest_hoard(&mut decoder, &pieces) <= bound);
    }

    #[test]
    fn a_damaged_opening_never_panics(at in 0usize..104, value in any::<u8>()) {
        let mut wire = [&greeting()[..], LIBZMQ_READY].concat();
        wire[at] = value;
        let _ = everything(&mut Decoder::new(SocketRole::Router, TIGHT), &wire);
    }
}
