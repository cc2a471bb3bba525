//! All that can wake the core: a closed list.

use bytes::Bytes;
use teu_protocol::{
    ids::{Digest, PublicKey, RequestId, StreamId},
    message::{ClientToMaster, Initiate, NodeToMaster, Refusal},
};

/// The listener's own name for a connection; never reused. It is not authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// The time, as the daemon reads it before each input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Milliseconds since the daemon started; never goes back. All deadlines use it.
    pub monotonic_ms: u64,
    /// Milliseconds since 1970; only for records that people read.
    pub unix_ms: u64,
}

/// Something happened.
#[derive(Debug)]
pub enum Input {
    /// A peer proved that it holds `key`'s secret and sent INITIATE. The core answers with
    /// [`Effect::Send`](crate::Effect::Send) of READY or with [`Effect::Reject`](crate::Effect::Reject).
    Connected {
        /// The connection.
        connection: ConnectionId,
        /// Proven by the Noise handshake.
        key: PublicKey,
        /// What it asks for.
        initiate: Initiate,
        /// Fresh random bytes: the session's id, if one is made.
        random: [u8; 16],
    },
    /// A client said something (never a heartbeat or a stream frame: those stay in the daemon,
    /// but for `Close`, see [`Input::StreamClosed`]).
    Client {
        /// The connection.
        connection: ConnectionId,
        /// What.
        message: ClientToMaster,
        /// The message's bulk parts.
        bulk: Vec<Bytes>,
    },
    /// A node said something (likewise).
    Node {
        /// The connection.
        connection: ConnectionId,
        /// What.
        message: NodeToMaster,
        /// The message's bulk parts.
        bulk: Vec<Bytes>,
    },
    /// The connection is gone, without Goodbye unless one came before.
    Disconnected {
        /// The connection.
        connection: ConnectionId,
    },
    /// Either side of a routed stream sent `Close` (already forwarded), or broke its rules (the
    /// daemon closed it on both sides). The daemon has removed the route.
    StreamClosed {
        /// One side.
        connection: ConnectionId,
        /// Its number there.
        stream: StreamId,
    },
    /// Answers [`Effect::ReceiveLayer`](crate::Effect::ReceiveLayer): the cache is ready to receive.
    UploadReady {
        /// The client.
        connection: ConnectionId,
        /// Its request.
        request: RequestId,
        /// Bytes that are there already (fewer than the blob's length), and the credit for the
        /// client; or why not.
        result: Result<(u64, u64), Refusal>,
    },
    /// An upload ended: the blob is verified, durable and in the cache; or it is not. The daemon
    /// closes the stream after the core has had this input and its effects were performed.
    UploadEnded {
        /// The client.
        connection: ConnectionId,
        /// The stream.
        stream: StreamId,
        /// Which blob.
        digest: Digest,
        /// The blob's length, or why it is not there.
        result: Result<u64, Refusal>,
    },
    /// Time passed: at least every 250 ms.
    Tick,
}
