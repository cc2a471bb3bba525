//! Why dialling failed, and why a link ended.

use std::{io, time::Duration};

use teu_protocol::{
    noise::{HandshakeError, OpenError, SealError},
    zmtp::ZmtpError,
};

/// Why no connection came about. [`DialError::is_retryable`] says whether to try again.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The TCP connection could not be made.
    #[error("cannot reach {endpoint}")]
    Unreachable {
        /// Host and port.
        endpoint: String,
        /// What the system says.
        source: io::Error,
    },
    /// Something answers there, but not with ZMTP, or not as a location's master does.
    #[error("{endpoint} does not speak ZMTP as a location does")]
    NotZmtp {
        /// Host and port.
        endpoint: String,
        /// What it got wrong.
        source: ZmtpError,
    },
    /// `host:port` was expected.
    #[error("`{endpoint}` is not an address: host:port is expected")]
    Endpoint {
        /// What was given.
        endpoint: String,
    },
    /// The deadline passed.
    #[error("{endpoint} did not {awaited} within {deadline:?}")]
    TimedOut {
        /// Host and port.
        endpoint: String,
        /// What was waited for.
        awaited: Awaited,
        /// The time given.
        deadline: Duration,
    },
    /// The location hung up on our HELLO without a word, twice in a row, as it does when the key, the name or the
    /// serial that we believe it has is not (or no longer) its own.
    #[error(
        "{endpoint} hung up on our greeting: it is not the location whose key we hold, or its key \
         has changed"
    )]
    NotRecognised {
        /// Host and port.
        endpoint: String,
    },
    /// The connection ended during the handshake.
    #[error("{endpoint} hung up during the handshake")]
    HungUp {
        /// Host and port.
        endpoint: String,
    },
    /// The location refused, with a code of docs/errors.md.
    #[error("the location refused the connection (code {0})")]
    Refused(u16),
    /// The handshake failed: the peer does not hold the location's key, or somebody meddles.
    #[error("the handshake failed")]
    Handshake(#[source] HandshakeError),
    /// READY was not acceptable.
    #[error("the location's first message is not acceptable")]
    Ready(#[source] LinkError),
    /// The system has no random bytes.
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
}

/// What a dial was waiting for when its time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// The TCP and ZMTP connection.
    Connection,
    /// WELCOME.
    Welcome,
    /// READY.
    Ready,
}

impl std::fmt::Display for Awaited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connection => "accept the connection",
            Self::Welcome => "answer the handshake",
            Self::Ready => "accept our key",
        })
    }
}

impl DialError {
    /// Whether the same attempt may succeed later. A wrong key or a refusal does not mend itself.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::HungUp { .. }
            | Self::NotZmtp { .. }
            | Self::Random(_) => true,
            Self::Endpoint { .. }
            | Self::NotRecognised { .. }
            | Self::Refused(_)
            | Self::Handshake(_)
            | Self::Ready(_) => false,
        }
    }
}

/// Why a link ended, or why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The connection is closed.
    #[error("the connection to the location is closed")]
    Closed,
    /// The peer has not been heard for too long.
    #[error("the location has not answered for {0:?}")]
    Silent(Duration),
    /// The location ended the connection, with a code of docs/errors.md. Not authenticated.
    #[error("the location ended the connection (code {0})")]
    Refused(u16),
    /// The peer broke ZMTP or its bounds: somebody meddles.
    #[error("what came from the location is no ZMTP")]
    Framing(#[source] ZmtpError),
    /// A message from the peer is not authentic or not in order.
    #[error("a message from the location is not acceptable")]
    Open(#[source] OpenError),
    /// A message from the peer cannot be read: it speaks another version.
    #[error("a message from the location cannot be read")]
    Decode(#[source] teu_protocol::message::DecodeError),
    /// This message cannot be written. The link goes on.
    #[error("a message cannot be written")]
    Encode(#[source] rmp_serde::encode::Error),
    /// This message is too long to be sent. The link goes on.
    #[error("a message is too long to be sent")]
    Seal(#[source] SealError),
}

impl From<OpenError> for LinkError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Refused(code) => Self::Refused(code),
            other => Self::Open(other),
        }
    }
}
