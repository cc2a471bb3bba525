//! What can go wrong in a handshake and afterwards. Whoever gets one of these closes the connection.

use crate::header::HeaderError;

/// Why a HELLO is dropped. The peer is told nothing: it may not even know the location's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// Part 0 is not the header of a HELLO.
    #[error("the first message is not a HELLO")]
    NotHello,
    /// The number or the lengths of its parts are wrong.
    #[error("HELLO is malformed")]
    Malformed,
    /// It is shorter than [`crate::limits::HELLO_MIN_BYTES`], so a reply could be larger.
    #[error("HELLO is not padded")]
    Unpadded,
    /// mac1 fits none of the location's keys: the peer does not know the key, the name or the
    /// serial.
    #[error("HELLO was not made for this location's key")]
    Mac1,
}

/// Why a handshake failed.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum HandshakeError {
    /// Part 0 is no header.
    #[error("a handshake message has no proper header")]
    Header(#[from] HeaderError),
    /// A message that is not due, or that names another suite.
    #[error("the peer sent a handshake message that is not due")]
    Unexpected,
    /// Wrong number or length of parts.
    #[error("a handshake message is malformed")]
    Malformed,
    /// The message does not authenticate: it was changed on its way, or the peer holds another key
    /// than expected.
    #[error("a handshake message does not authenticate")]
    Unauthentic,
    /// A second cookie: one is enough.
    #[error("the master asked for a cookie twice")]
    CookieTwice,
    /// A payload of ours that would not fit; `max` bytes do.
    #[error("a handshake payload of {length} bytes is too long; {max} are allowed")]
    PayloadTooLong {
        /// What was to be sent.
        length: usize,
        /// The bound.
        max: usize,
    },
    /// The location's name is longer than a DNS name can be.
    #[error("the location's name is too long")]
    NameTooLong,
    /// The location refused, with this code.
    #[error("the location refused the connection (code {0})")]
    Refused(u16),
    /// The Noise library failed in a way that no input should cause.
    #[error("the handshake failed: {0}")]
    Noise(snow::Error),
}

impl From<snow::Error> for HandshakeError {
    fn from(error: snow::Error) -> Self {
        match error {
            snow::Error::Decrypt | snow::Error::Dh => Self::Unauthentic,
            snow::Error::Input => Self::Malformed,
            other => Self::Noise(other),
        }
    }
}

/// Why a message cannot be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It would be longer than [`crate::limits::MAX_MESSAGE_BYTES`] once sealed.
    #[error("a message of {0} bytes is too long to send")]
    TooLong(usize),
    /// It would have more than [`crate::limits::MAX_MESSAGE_PARTS`] parts.
    #[error("a message of {0} parts is too long to send")]
    TooManyParts(usize),
    /// The cipher refused to work.
    #[error("a message cannot be encrypted")]
    Cipher,
}

/// Why a sealed message is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Part 0 is no header.
    #[error("a sealed message has no proper header")]
    Header(#[from] HeaderError),
    /// A type or suite that is not due.
    #[error("the peer sent a message that is not due")]
    Unexpected,
    /// It has no sealed part, or too many.
    #[error("a sealed message has {0} parts")]
    Parts(usize),
    /// It is longer than [`crate::limits::MAX_MESSAGE_BYTES`].
    #[error("a sealed message is too long")]
    TooLong,
    /// A part does not authenticate: changed, replayed, reordered or lost.
    #[error("a sealed message does not authenticate")]
    Unauthentic,
    /// Its trailers contradict each other or the number of parts.
    #[error("the parts of a sealed message do not fit together")]
    Trailer,
    /// The peer went on with one key for longer than [`crate::limits::REKEY_AFTER_MESSAGES`].
    #[error("the peer did not change its key in time")]
    RekeyOverdue,
    /// The location ended the connection, with this code. It is not authenticated: believe it
    /// only as far as "the connection is over".
    #[error("the location ended the connection (code {0})")]
    Refused(u16),
    /// The direction has already failed.
    #[error("the connection has already failed")]
    AlreadyFailed,
}
