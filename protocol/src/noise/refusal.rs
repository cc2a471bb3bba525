//! ERROR: the master's last word to a peer. F0 · code (2 bytes, big endian).
//!
//! It travels in clear, so it is a hint about why the connection ends, and proof of nothing.

use bytes::Bytes;

use super::Suite;
use crate::header::{Header, MessageType};

/// The ERROR message of a stable code.
#[must_use]
pub fn encode_refusal(suite: Suite, code: u16) -> Vec<Bytes> {
    let header = Header::new(MessageType::Error, suite).encode();
    vec![
        Bytes::copy_from_slice(&header),
        Bytes::copy_from_slice(&code.to_be_bytes()),
    ]
}

/// The code, if the message is an ERROR of this suite.
#[must_use]
pub fn read_refusal(suite: Suite, parts: &[impl AsRef<[u8]>]) -> Option<u16> {
    let [header, code] = parts else { return None };
    let is_error = Header::decode(header.as_ref()).ok()? == Header::new(MessageType::Error, suite);
    let code = code.as_ref().try_into().ok()?;
    is_error.then(|| u16::from_be_bytes(code))
}
