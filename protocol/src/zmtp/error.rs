//! What a peer can get wrong in ZMTP. Every one of these ends the connection.

/// A violation of ZMTP, or of the bounds that this side set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZmtpError {
    /// The first bytes are not a ZMTP 3 signature: some other protocol knocks here.
    #[error("the peer does not speak ZMTP")]
    Signature,
    /// A ZMTP version before 3.0.
    #[error("the peer speaks ZMTP {0}; 3.0 or later is needed")]
    Version(u8),
    /// A security mechanism other than NULL.
    #[error("the peer asks for a ZMTP security mechanism other than NULL")]
    Mechanism,
    /// A flags byte with reserved bits, or a command that claims to continue.
    #[error("a ZMTP frame has flags {0:#04x}, which mean nothing")]
    Flags(u8),
    /// A message where READY was due.
    #[error("the peer sent a message before its READY")]
    NotReady,
    /// A command between the frames of one message.
    #[error("the peer sent a command inside a message")]
    CommandInsideMessage,
    /// A command that cannot be parsed.
    #[error("a ZMTP command is malformed")]
    MalformedCommand,
    /// A command that is not due, or not known.
    #[error("the peer sent a ZMTP command that is not expected now")]
    UnexpectedCommand,
    /// The peer's ERROR command.
    #[error("the peer refused the ZMTP connection")]
    RefusedByPeer,
    /// READY names a socket type that does not go with ours.
    #[error("the peer's socket type does not fit")]
    SocketType,
    /// A command longer than [`super::MAX_COMMAND_BYTES`].
    #[error("a ZMTP command claims {0} bytes, more than are allowed")]
    CommandTooLong(u64),
    /// A frame longer than allowed.
    #[error("a frame claims {claimed} bytes; {max} are allowed")]
    FrameTooLong {
        /// What its header says.
        claimed: u64,
        /// The bound.
        max: usize,
    },
    /// A message longer than allowed.
    #[error("a message grows to {claimed} bytes; {max} are allowed")]
    MessageTooLong {
        /// The parts received and the one announced.
        claimed: u64,
        /// The bound.
        max: usize,
    },
    /// A message of more parts than allowed.
    #[error("a message has more than {max} parts")]
    TooManyParts {
        /// The bound.
        max: usize,
    },
    /// The decoder was used again after it had failed.
    #[error("the connection has already failed")]
    AlreadyFailed,
}
