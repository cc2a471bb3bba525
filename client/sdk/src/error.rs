//! Why something did not work: one enum for the whole library.
//!
//! Owner: every public function of the crate. Invariant: a message says what happened, why, and,
//! where there is something to do, what to do. Refusals of the location keep their stable code.

use std::{io, time::Duration};

use teu_protocol::{
    ids::{ContainerId, ParseTagError, Tag},
    message::{Refusal, RefusalCode},
};

use crate::{config::ConfigError, image::ImageError, session::told};

/// What the library's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The client's own files.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The location could not be reached, or did not let us in.
    #[error("cannot connect to location `{location}` at {endpoint}")]
    Connect {
        /// Its name on this machine.
        location: String,
        /// Where it was dialled.
        endpoint: String,
        /// Why not.
        source: ConnectError,
    },
    /// The location said no.
    #[error("cannot {attempt}: {refusal}")]
    Refused {
        /// What was asked for.
        attempt: &'static str,
        /// The location's words, with their stable code.
        refusal: Refusal,
    },
    /// No answer in time. What was asked for may still happen, once.
    #[error("cannot {attempt}: no answer within {waited:?}")]
    Timeout {
        /// What was asked for.
        attempt: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The session is over; connect again to get a new one.
    #[error("the session is over: {0}")]
    Closed(CloseReason),
    /// The link to the location was lost in the middle of something that cannot be resumed.
    #[error("cannot {attempt}: the link to the location was lost")]
    LinkLost {
        /// What was under way.
        attempt: &'static str,
    },
    /// A stream ended before its end: what arrived is not the whole.
    #[error("cannot {attempt}: the stream ended before all of it had arrived; try again")]
    Cut {
        /// What was under way.
        attempt: &'static str,
    },
    /// Input that was sent to a process may not have arrived when the link was lost.
    #[error(
        "the link to the location was lost while input was on its way to the process, \
         so some of it may be missing"
    )]
    InputLost,
    /// Output of a process that can no longer be had: the process was further ahead than what is kept of
    /// its output, or its node's disk was full. What comes behind the gap can still be read.
    #[error("{bytes} bytes of the process's output are lost: its log did not keep them")]
    OutputLost {
        /// How many.
        bytes: u64,
    },
    /// The process wrote more than was to be collected.
    #[error(
        "the process wrote more than {limit} bytes; read it as a stream, or raise the limit with \
         `output_limit`"
    )]
    OutputTooLarge {
        /// Bytes of both channels together.
        limit: u64,
    },
    /// The container is destroyed.
    #[error("container {} is destroyed", .0.short())]
    Gone(ContainerId),
    /// The location ended the container because this program could not be reached.
    #[error(
        "the connection to the location was lost for {}, and the location ended container {} meanwhile; \
         start it again",
        told(*away), container.short()
    )]
    EndedByCut {
        /// The container.
        container: ContainerId,
        /// How long the connection was lost.
        away: Duration,
    },
    /// The container's first process ended while something else was waited for.
    #[error("container {} ended ({status}) while {waiting_for}", container.short())]
    Ended {
        /// The container.
        container: ContainerId,
        /// How it ended.
        status: teu_protocol::message::ExitStatus,
        /// What was waited for.
        waiting_for: &'static str,
    },
    /// The container did not get ready in time.
    #[error(
        "container {} did not get ready: {waiting_for} took longer than {waited:?} ({last})",
        container.short()
    )]
    NotReady {
        /// The container.
        container: ContainerId,
        /// What was waited for.
        waiting_for: &'static str,
        /// How long.
        waited: Duration,
        /// What was seen last.
        last: String,
    },
    /// Neither the location nor this machine has the image.
    #[error(
        "no image `{name}` in {asked}; \
         import it with `teu image import FILE`, or build or pull it with your container engine"
    )]
    NoImage {
        /// The image as it was named.
        name: String,
        /// Where it was looked for, and what came back.
        asked: String,
    },
    /// An image on this machine cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Not a name for a container, volume or snapshot.
    #[error(transparent)]
    Tag(#[from] ParseTagError),
    /// A local socket.
    #[error("cannot {attempt}")]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Not an address of this machine, such as `127.0.0.1:8080`.
    #[error("`{0}` is not an address to listen on; write it as 127.0.0.1:8080")]
    BadAddress(String),
    /// What was asked for contradicts a documented bound.
    #[error("cannot {attempt}: {why}")]
    Invalid {
        /// What was asked for.
        attempt: &'static str,
        /// Which bound.
        why: String,
    },
    /// The location answered another question than was asked.
    #[error("cannot {attempt}: the location's answer makes no sense; is its version the same?")]
    Nonsense {
        /// What was asked for.
        attempt: &'static str,
    },
}

impl Error {
    /// The location's own words, if it refused.
    #[must_use]
    pub const fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } | Self::Closed(CloseReason::Ended(refusal)) => {
                Some(refusal)
            }
            _ => None,
        }
    }

    /// The stable code of the location's refusal, if it refused, or `ImageMissing` for [`Error::NoImage`]: `Busy`, `NoSpace`, `Faulted`, ….
    #[must_use]
    pub const fn code(&self) -> Option<RefusalCode> {
        if let Self::NoImage { .. } = self {
            return Some(RefusalCode::ImageMissing);
        }
        match self.refusal() {
            Some(refusal) => Some(refusal.code),
            None => None,
        }
    }

    /// Whether the same call may succeed later without anything being changed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { refusal, .. } => refusal.retryable,
            Self::Connect { source, .. } => source.is_retryable(),
            Self::Timeout { .. }
            | Self::LinkLost { .. }
            | Self::Cut { .. }
            | Self::NotReady { .. } => true,
            Self::Config(_)
            | Self::Closed(_)
            | Self::InputLost
            | Self::OutputLost { .. }
            | Self::OutputTooLarge { .. }
            | Self::Gone(_)
            | Self::EndedByCut { .. }
            | Self::Ended { .. }
            | Self::NoImage { .. }
            | Self::Image(_)
            | Self::Tag(_)
            | Self::Io { .. }
            | Self::BadAddress(_)
            | Self::Invalid { .. }
            | Self::Nonsense { .. } => false,
        }
    }
}

/// Reading from and writing to processes, tunnels and exports fails with [`io::Error`]; `?` turns it
/// into this.
impl From<io::Error> for Error {
    fn from(source: io::Error) -> Self {
        Self::Io {
            attempt: "read or write a stream",
            source,
        }
    }
}

/// Why a location does not answer, or does not let us in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The link failed on its way: the network, or a master that is not (yet) there.
    #[error("{reason}; is the location running? (`teu dev --detach` starts one on this machine)")]
    Link {
        /// What happened.
        reason: String,
    },
    /// It hung up on our greeting.
    #[error("{reason}; compare its key with `teu location ls`")]
    NotRecognised {
        /// What happened.
        reason: String,
    },
    /// The location does not know our key.
    #[error(
        "the location did not accept this account (code {code}): its administrator enrols the key \
         that `teu account show` prints"
    )]
    NotAccepted {
        /// The stable code.
        code: u16,
    },
    /// The location let us in and then said no.
    #[error("{0}")]
    Refused(Refusal),
    /// What it said is not the protocol.
    #[error("the location does not speak this version of the protocol ({reason})")]
    Protocol {
        /// What was wrong.
        reason: String,
    },
}

impl ConnectError {
    /// Whether it is worth trying again.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Link { .. } => true,
            Self::Refused(refusal) => refusal.retryable,
            Self::NotRecognised { .. } | Self::NotAccepted { .. } | Self::Protocol { .. } => false,
        }
    }
}

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// This program closed it.
    #[error("this program closed it")]
    Closed,
    /// The location had ended it when the link came back.
    #[error(
        "the connection to the location was lost for {}, and the location ended the session meanwhile, \
         with what this program had started",
        told(*away)
    )]
    Expired {
        /// How long the connection was lost.
        away: Duration,
    },
    /// The location ended it, in these words.
    #[error("{0}")]
    Ended(Refusal),
    /// The location no longer accepts the account's key.
    #[error("the location no longer accepts this account (code {0})")]
    NotAccepted(u16),
    /// The location does not speak our protocol any more.
    #[error("the location broke the protocol: {0}")]
    Protocol(String),
    /// The program's tokio runtime is shutting down.
    #[error("the program's runtime is shutting down")]
    Shutdown,
}

/// A persistent session's, container's, volume's or snapshot's name.
pub(crate) fn parse_tag(text: &str) -> Result<Tag> {
    Ok(text.parse::<Tag>()?)
}
