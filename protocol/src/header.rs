//! F0, the eight-byte header that is part 0 of every message.
//!
//! Owner: both sides' transports. Invariant: `decode(encode(h)) == h`, and nothing but the canonical
//! eight bytes decodes. It is cleartext and steers no authority: HELLO's header is bound into the
//! handshake's prologue, and everything later is authenticated by its sealed parts.
//! Next: [`crate::noise`] for what the bodies are.

use std::fmt;

use crate::noise::Suite;

/// The length of F0.
pub const HEADER_BYTES: usize = 8;

const MAGIC: [u8; 4] = *b"TEU1";

/// What a message is. READY is the first `Data` message that the master sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageType {
    /// Client to master: noise message 1.
    Hello = 1,
    /// Master to client, only under load: repeat HELLO with this cookie.
    Cookie = 2,
    /// Master to client: noise message 2.
    Welcome = 3,
    /// Client to master: noise message 3.
    Initiate = 4,
    /// Master to client: the first sealed message, which tells that INITIATE was accepted.
    Ready = 5,
    /// Both ways: a sealed message.
    Data = 6,
    /// Master to peer: a code (two bytes, big endian), then the connection is closed.
    Error = 7,
}

impl MessageType {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::Cookie,
            3 => Self::Welcome,
            4 => Self::Initiate,
            5 => Self::Ready,
            6 => Self::Data,
            7 => Self::Error,
            _ => return None,
        })
    }
}

/// F0: `"TEU1" · type · suite · 0 · 0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// What the message is.
    pub kind: MessageType,
    /// The suite that the connection uses: every message of a connection names the same one.
    pub suite: Suite,
}

impl Header {
    /// A header.
    #[must_use]
    pub const fn new(kind: MessageType, suite: Suite) -> Self {
        Self { kind, suite }
    }

    /// The eight bytes.
    #[must_use]
    pub const fn encode(self) -> [u8; HEADER_BYTES] {
        let [m0, m1, m2, m3] = MAGIC;
        [m0, m1, m2, m3, self.kind as u8, self.suite as u8, 0, 0]
    }

    /// Reads part 0 of a message.
    ///
    /// # Errors
    /// [`HeaderError`] for anything that [`Header::encode`] does not make.
    pub fn decode(part: &[u8]) -> Result<Self, HeaderError> {
        let bytes: &[u8; HEADER_BYTES] = part
            .try_into()
            .map_err(|_| HeaderError::Length(part.len()))?;
        let [m0, m1, m2, m3, kind, suite, r0, r1] = *bytes;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(HeaderError::Magic);
        }
        let kind = MessageType::from_byte(kind).ok_or(HeaderError::Type(kind))?;
        let suite = Suite::from_byte(suite).ok_or(HeaderError::Suite(suite))?;
        if [r0, r1] != [0, 0] {
            return Err(HeaderError::Reserved);
        }
        Ok(Self { kind, suite })
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} (suite {})", self.kind, self.suite as u8)
    }
}

/// Why part 0 is not an F0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It has another length.
    #[error("the message header has {0} bytes instead of 8")]
    Length(usize),
    /// It does not begin with "TEU1".
    #[error("the message header does not begin with TEU1")]
    Magic,
    /// A type that this version does not know.
    #[error("message type {0} is unknown")]
    Type(u8),
    /// A suite that this version does not know.
    #[error("cipher suite {0} is unknown")]
    Suite(u8),
    /// The two reserved bytes are not zero.
    #[error("the reserved bytes of the message header are not zero")]
    Reserved,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_header_survives_a_round_trip_and_no_other_bytes_decode() {
        let mut accepted = 0;
        for kind in 0..=255u8 {
            for suite in 0..=255u8 {
                let bytes = [b'T', b'E', b'U', b'1', kind, suite, 0, 0];
                if let Ok(header) = Header::decode(&bytes) {
                    assert_eq!(header.encode(), bytes);
                    accepted += 1;
                }
            }
        }
        assert_eq!(accepted, 7 * 2);
    }

    #[test]
    fn damage_is_named() {
        let good = Header::new(MessageType::Data, Suite::AesGcmSha256).encode();
        assert_eq!(Header::decode(&good[..7]), Err(HeaderError::Length(7)));
        let mut bad = good;
        bad[0] = b'X';
        assert_eq!(Header::decode(&bad), Err(HeaderError::Magic));
        let mut bad = good;
        bad[7] = 1;
        assert_eq!(Header::decode(&bad), Err(HeaderError::Reserved));
    }
}
