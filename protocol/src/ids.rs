//! Names for things: a newtype for every id, key and digest, so none can stand in for another.
//!
//! Ids are 16 raw bytes on the wire (MessagePack `bin`), keys and digests 32.
//! Shown to people as hex; keys as base64.

mod digest;
mod key;
mod tag;

pub use digest::{Digest, ParseDigestError};
pub use key::{ParseKeyError, PublicKey};
pub use tag::{ParseTagError, Tag};

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Text that should have been an id of 32 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an id: 32 hexadecimal digits are expected")]
pub struct ParseIdError(pub String);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Wraps 16 raw bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// The first 12 hex digits: what lists show.
            #[must_use]
            pub fn short(&self) -> String {
                hex(&self.0[..6])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0; 16];
                unhex(text, &mut bytes).ok_or_else(|| ParseIdError(text.to_owned()))?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    serde_bytes::ByteArray::<16>::deserialize(deserializer)
                        .map(|bytes| Self(bytes.into_array()))
                }
            }
        }
    };
}

id!(
    /// One connected client program's scope of ownership. 128 random bits: knowing it is not
    /// authority (the Noise static key is), but it cannot be guessed either.
    SessionId
);
id!(
    /// One client process within a session; made once by the SDK, kept across reconnects.
    AttachmentId
);
id!(
    /// A machine that runs the agent. Given by the master at enrolment.
    NodeId
);
id!(
    /// A spawned image. See [`ContainerId::derive`].
    ContainerId
);
id!(
    /// A persistent copy-on-write tree. See [`VolumeId::derive`].
    VolumeId
);
id!(
    /// A process inside a container; the container's first process has the container's own bytes.
    ProcessId
);
id!(
    /// A client's place at a process: where it stands in the output, and how much input it has given. Random,
    /// chosen by the client, good within its attachment.
    ReaderId
);
id!(
    /// Chosen by whoever asks (UUIDv7). Asking again with the same id has the effect once.
    RequestId
);

impl ContainerId {
    /// The id of the container that `request` of `session` spawns: the first 16 bytes of
    /// SHA-256(`"teu container"`, session, request). A spawn that is retried, even after the
    /// master restarted, therefore names the same container, and nobody else can name it.
    #[must_use]
    pub fn derive(session: &SessionId, request: &RequestId) -> Self {
        Self(derive16(b"teu container", session, request))
    }

    /// The id of the container's first process.
    #[must_use]
    pub const fn main_process(&self) -> ProcessId {
        ProcessId(self.0)
    }
}

impl VolumeId {
    /// The id of the volume that `request` of `session` makes; see [`ContainerId::derive`].
    #[must_use]
    pub fn derive(session: &SessionId, request: &RequestId) -> Self {
        Self(derive16(b"teu volume", session, request))
    }
}

impl ProcessId {
    /// The id of the process that `request` of `session` starts; see [`ContainerId::derive`].
    #[must_use]
    pub fn derive(session: &SessionId, request: &RequestId) -> Self {
        Self(derive16(b"teu process", session, request))
    }
}

impl RequestId {
    /// The id that the master uses towards a node for `request` of `session`: two sessions that
    /// choose the same request id do not collide there.
    #[must_use]
    pub fn forwarded(&self, session: &SessionId) -> Self {
        Self(derive16(b"teu forward", session, self))
    }
}

fn derive16(label: &[u8], session: &SessionId, request: &RequestId) -> [u8; 16] {
    use sha2::{Digest as _, Sha256};
    let hash = Sha256::new()
        .chain_update(label)
        .chain_update(session.as_bytes())
        .chain_update(request.as_bytes())
        .finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    bytes
}

/// Names a stream on one connection. Chosen by whoever opens it: clients count up from 1; the
/// master translates to its own numbers towards the node, so neither side sees the other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamId(pub u64);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Fills `into` from exactly twice as many hex digits.
pub(crate) fn unhex(text: &str, into: &mut [u8]) -> Option<()> {
    let digits = text.as_bytes();
    if digits.len() != into.len() * 2 {
        return None;
    }
    for (byte, pair) in into.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_from_its_text_and_its_bytes() {
        let id = ContainerId::from_bytes(*b"0123456789abcdef");
        assert_eq!(id.to_string().parse(), Ok(id));
        let packed = rmp_serde::to_vec_named(&id).unwrap();
        assert_eq!(packed.len(), 18, "bin 8, length, 16 bytes");
        assert_eq!(rmp_serde::from_slice::<ContainerId>(&packed).unwrap(), id);
        assert!("0123".parse::<ContainerId>().is_err());
        assert!("zz".repeat(16).parse::<ContainerId>().is_err());
    }

    #[test]
    fn derived_ids_depend_on_session_request_and_kind() {
        let (a, b) = (
            SessionId::from_bytes([1; 16]),
            SessionId::from_bytes([2; 16]),
        );
        let (r, s) = (
            RequestId::from_bytes([3; 16]),
            RequestId::from_bytes([4; 16]),
        );
        assert_eq!(ContainerId::derive(&a, &r), ContainerId::derive(&a, &r));
        assert_ne!(ContainerId::derive(&a, &r), ContainerId::derive(&b, &r));
        assert_ne!(ContainerId::derive(&a, &r), ContainerId::derive(&a, &s));
        assert_ne!(
            ContainerId::derive(&a, &r).as_bytes(),
            ProcessId::derive(&a, &r).as_bytes()
        );
    }
}
