//! Streams: bulk data with credit. Opened by a request, closed by either side.
//!
//! ```text
//! open ──Data/Eof*──▶ Close          Each receiver grants a window in bytes when the stream is
//!      ◀──Credit*───                 opened and more by Credit; a sender never exceeds it.
//! ```
//! A stream that ends without its Close (the link was lost) is an error, never a success.

use serde::{Deserialize, Serialize};

use super::{Refusal, Termination};
use crate::ids::{ReaderId, StreamId};

/// Says something on a stream. Data's bytes are the message's bulk parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamFrame {
    /// Bytes.
    Data {
        /// On which stream.
        stream: StreamId,
        /// Which of its channels.
        channel: Channel,
        /// Process output: how many bytes of output the process had written up to the end of this.
        /// Standard input: how many bytes the client gave the process before this. Else 0.
        cursor: u64,
        /// Process output: where this begins. If that is behind where the last `Data` ended, the bytes
        /// in between are lost (the log no longer keeps them, or could not be written).
        #[serde(default)]
        from: Option<u64>,
    },
    /// The receiver may be sent this many further bytes.
    Credit {
        /// On which stream.
        stream: StreamId,
        /// How many.
        bytes: u64,
    },
    /// No more Data from this side on this channel (half-close); the other direction goes on.
    Eof {
        /// On which stream.
        stream: StreamId,
        /// Which of its channels.
        channel: Channel,
        /// Standard input: how many bytes the client gave the process in all. Else 0.
        #[serde(default)]
        cursor: u64,
    },
    /// The stream is over, both ways.
    Close {
        /// Which stream.
        stream: StreamId,
        /// How.
        end: StreamEnd,
    },
}

impl StreamFrame {
    /// The stream that this is about.
    #[must_use]
    pub const fn stream(&self) -> StreamId {
        match self {
            Self::Data { stream, .. }
            | Self::Credit { stream, .. }
            | Self::Eof { stream, .. }
            | Self::Close { stream, .. } => *stream,
        }
    }

    /// The same about another stream: the master renumbers as it routes.
    #[must_use]
    pub fn renumbered(self, to: StreamId) -> Self {
        match self {
            Self::Data {
                channel,
                cursor,
                from,
                ..
            } => Self::Data {
                stream: to,
                channel,
                cursor,
                from,
            },
            Self::Credit { bytes, .. } => Self::Credit { stream: to, bytes },
            Self::Eof {
                channel, cursor, ..
            } => Self::Eof {
                stream: to,
                channel,
                cursor,
            },
            Self::Close { end, .. } => Self::Close { stream: to, end },
        }
    }
}

/// A client's place at a process, as the stream that takes it over names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The place.
    pub reader: ReaderId,
    /// Grows with each stream of the place: what an older stream still says is not heard.
    pub generation: u64,
}

/// Which of a stream's byte sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Channel {
    /// A tunnel's or a blob's bytes.
    Main,
    /// Towards a process.
    Stdin,
    /// From a process (all output, if it has a terminal).
    Stdout,
    /// From a process.
    Stderr,
}

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamEnd {
    /// All that was to be said was said.
    Done,
    /// The process that this stream was attached to ended, and all its output came before this.
    Exited(Termination),
    /// The far end reset its TCP connection.
    Reset,
    /// It could not go on.
    Failed(Refusal),
}
