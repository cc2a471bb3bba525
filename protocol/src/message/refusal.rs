//! Refusals: expected ways not to succeed, as protocol values with stable codes.
//!
//! docs/errors.md lists each code with its cure; a test keeps the two together.

use serde::{Deserialize, Serialize};

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RefusalCode {
    /// No such object in this session (also: it is somebody else's).
    NotFound,
    /// The tag is taken by another object of the account.
    TagTaken,
    /// The object is in a state that does not allow it.
    WrongState,
    /// The request contradicts itself or a documented bound.
    BadRequest,
    /// A limit of the session or of the location is reached.
    LimitReached,
    /// No node can take it.
    NoCapacity,
    /// The image is not in the account's catalogue.
    ImageMissing,
    /// A layer is not in the location's cache for this account.
    LayerMissing,
    /// The blob's digest is not what was promised.
    DigestMismatch,
    /// The image cannot be unpacked or its config makes no sense.
    BadImage,
    /// The image is for another platform than the node's.
    WrongPlatform,
    /// The program is not in the container (exit code 127 at the command line).
    CommandNotFound,
    /// The program cannot be executed (exit code 126 at the command line).
    CommandNotExecutable,
    /// Nothing listens on that port in the container.
    PortClosed,
    /// The account may not do this.
    Forbidden,
    /// The node's link is down.
    NodeLost,
    /// Not now: starting, reconciling or overloaded.
    Unavailable,
    /// It took too long.
    Timeout,
    /// It is in use; the message says by whom.
    Busy,
    /// The node's pool of volumes has no room for it.
    NoSpace,
    /// The node's pool of volumes, or this volume, is out of order; `teu doctor` says more.
    Faulted,
    /// A defect or a broken machine; the message says what failed.
    Internal,
}

impl RefusalCode {
    /// All codes, in the order of the documentation.
    pub const ALL: [Self; 22] = [
        Self::NotFound,
        Self::TagTaken,
        Self::WrongState,
        Self::BadRequest,
        Self::LimitReached,
        Self::NoCapacity,
        Self::ImageMissing,
        Self::LayerMissing,
        Self::DigestMismatch,
        Self::BadImage,
        Self::WrongPlatform,
        Self::CommandNotFound,
        Self::CommandNotExecutable,
        Self::PortClosed,
        Self::Forbidden,
        Self::NodeLost,
        Self::Unavailable,
        Self::Timeout,
        Self::Busy,
        Self::NoSpace,
        Self::Faulted,
        Self::Internal,
    ];

    /// Whether the same request may succeed later without anything being changed by the caller.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::NodeLost | Self::Unavailable | Self::Timeout => true,
            Self::NotFound
            | Self::TagTaken
            | Self::WrongState
            | Self::BadRequest
            | Self::LimitReached
            | Self::NoCapacity
            | Self::ImageMissing
            | Self::LayerMissing
            | Self::DigestMismatch
            | Self::BadImage
            | Self::WrongPlatform
            | Self::CommandNotFound
            | Self::CommandNotExecutable
            | Self::PortClosed
            | Self::Forbidden
            | Self::Busy
            | Self::NoSpace
            | Self::Faulted
            | Self::Internal => false,
        }
    }
}

/// An expected "no", for the program (`code`) and for a person (`message`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Stable.
    pub code: RefusalCode,
    /// What happened, why, what to do. Never holds a secret or another session's names.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
}

impl Refusal {
    /// A refusal; retryable if its code is.
    #[must_use]
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retryable: code.is_retryable(),
        }
    }
}
