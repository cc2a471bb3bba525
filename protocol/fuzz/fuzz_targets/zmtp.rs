//! The ZMTP decoder, fed with anything in any pieces: no panic, and nothing hoarded beyond its bounds.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use teu_protocol::zmtp::{Decoder, Limits, MAX_COMMAND_BYTES, SocketRole, greeting};

const FRAME_HEADER_BYTES: usize = 9;
const READY: &[u8] = b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06DEALER";

// The first byte chooses how far the peer has got and how large the pieces are.
fuzz_target!(|input: &[u8]| {
    let Some((&choice, rest)) = input.split_first() else {
        return;
    };
    let limits = Limits::HANDSHAKE;
    let mut decoder = Decoder::new(SocketRole::Router, limits);
    let mut buffer = BytesMut::new();
    if choice & 1 != 0 {
        buffer.extend_from_slice(&greeting());
    }
    if choice & 3 == 3 {
        buffer.extend_from_slice(READY);
    }
    let piece = 1 + usize::from(choice >> 2) * 5;
    let bound = limits.max_message_bytes.max(MAX_COMMAND_BYTES) + FRAME_HEADER_BYTES;
    for chunk in rest.chunks(piece) {
        buffer.extend_from_slice(chunk);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => {
                    assert!(
                        decoder.decode(&mut buffer).is_err(),
                        "a failed decoder goes on"
                    );
                    return;
                }
            }
        }
        assert!(buffer.len() + decoder.bytes_held() <= bound, "hoards");
        assert!(
            decoder.bytes_missing(buffer.len()) <= bound,
            "wants too much"
        );
    }
});
