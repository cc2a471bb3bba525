//! The codec against itself, against the RFC's bytes, and against rubbish.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod hostile;
mod round_trip;

use bytes::{Bytes, BytesMut};

use super::{Decoder, Event, Limits, SocketRole, ZmtpError, greeting};

const TIGHT: Limits = Limits {
    max_frame_bytes: 1000,
    max_parts: 4,
    max_message_bytes: 2000,
};

/// A DEALER's READY as libzmq 4.3 sends it, identity included.
const LIBZMQ_READY: &[u8] = b"\x04\x29\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\0";

fn everything(decoder: &mut Decoder, bytes: &[u8]) -> Result<Vec<Event>, ZmtpError> {
    let mut buffer = BytesMut::from(bytes);
    let mut events = Vec::new();
    while let Some(event) = decoder.decode(&mut buffer)? {
        events.push(event);
    }
    Ok(events)
}

/// A router's decoder whose peer is ready.
fn ready(limits: Limits) -> Decoder {
    let mut decoder = Decoder::new(SocketRole::Router, limits);
    let events = everything(&mut decoder, &greeting()).unwrap();
    assert!(matches!(&events[..], [Event::Reply(_)]));
    assert_eq!(
        everything(&mut decoder, LIBZMQ_READY).unwrap(),
        [Event::Ready]
    );
    decoder
}
