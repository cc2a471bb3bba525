//! What a peer must know of a location before it dials: the prologue binds all of it, so none of it
//! can be swapped on the way.

use crate::{
    header::{HEADER_BYTES, Header, MessageType},
    ids::PublicKey,
    limits::MAX_FQDN_BYTES,
};

use super::{HandshakeError, Suite};

/// A location as its DNS record (or a pinned file) names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LocationIdentity {
    fqdn: String,
    key: PublicKey,
    serial: u64,
}

impl LocationIdentity {
    /// A location. The name is lower-cased and a final dot dropped, so both sides mean the same.
    ///
    /// # Errors
    /// [`HandshakeError::NameTooLong`].
    pub fn new(fqdn: &str, key: PublicKey, serial: u64) -> Result<Self, HandshakeError> {
        let fqdn = fqdn.strip_suffix('.').unwrap_or(fqdn).to_ascii_lowercase();
        if fqdn.len() > MAX_FQDN_BYTES {
            return Err(HandshakeError::NameTooLong);
        }
        Ok(Self { fqdn, key, serial })
    }

    /// The name, in lower case.
    #[must_use]
    pub fn fqdn(&self) -> &str {
        &self.fqdn
    }

    /// The location's static key `k`.
    #[must_use]
    pub const fn key(&self) -> PublicKey {
        self.key
    }

    /// The serial number of the record.
    #[must_use]
    pub const fn serial(&self) -> u64 {
        self.serial
    }

    /// The Noise prologue: F0 of HELLO · length of the name (1 byte) · name · k · serial (8 bytes,
    /// big endian).
    pub(super) fn prologue(&self, suite: Suite) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + 1 + self.fqdn.len() + 32 + 8);
        bytes.extend_from_slice(&Header::new(MessageType::Hello, suite).encode());
        // The constructor bounds the name to 253 bytes.
        bytes.push(u8::try_from(self.fqdn.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(self.fqdn.as_bytes());
        bytes.extend_from_slice(self.key.as_bytes());
        bytes.extend_from_slice(&self.serial.to_be_bytes());
        bytes
    }
}
