//! All that the core can want done: a closed list, performed in order.

use bytes::Bytes;
use teu_protocol::{
    ids::{Digest, PublicKey, RequestId, StreamId},
    message::{MasterToClient, MasterToNode, Refusal},
};

use crate::{ConnectionId, record::StoreOp};

/// Something to do. A daemon may batch the `Persist`s of several inputs into one commit if it
/// holds back every later effect until that commit is durable.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make it durable before any later effect is performed.
    Persist(StoreOp),
    /// Send it.
    Send {
        /// To whom.
        connection: ConnectionId,
        /// What.
        message: Outbound,
        /// The message's bulk parts.
        bulk: Vec<Bytes>,
    },
    /// Answer INITIATE with ERROR, after the same delay for every reason, and close: the peer's key
    /// is not enrolled for the role that it asked for.
    Reject {
        /// Whom.
        connection: ConnectionId,
    },
    /// Send `Closing`, then close the connection. The peer's key is enrolled. May come instead of
    /// READY (the session to resume is gone, a limit is reached). The core forgets the connection
    /// with this effect: its `Disconnected` may still come and is harmless.
    Close {
        /// Whose.
        connection: ConnectionId,
        /// Why.
        reason: Refusal,
    },
    /// Forward the frames of these two to each other, renumbered. Comes before the reply that lets
    /// either side send. The windows are what each side granted to the other when opening.
    Route {
        /// The client's side, and the credit in bytes that the client granted.
        client: StreamEndpoint,
        /// The node's side, and the credit in bytes that the node granted.
        node: StreamEndpoint,
    },
    /// Stop forwarding; send `Close` with this refusal to whichever sides are still connected.
    Unroute {
        /// Either side.
        connection: ConnectionId,
        /// Its number there.
        stream: StreamId,
        /// Why.
        reason: Refusal,
    },
    /// Prepare to receive a blob on the stream; answer with `Input::UploadReady`. If the cache has
    /// the blob, this account has not proved it: receive and verify it all the same. What arrived
    /// before an interruption may be used to go on only for the same account (else knowing a digest
    /// would be enough to possess the blob).
    ReceiveLayer {
        /// Whose upload: the key under which to keep what has arrived.
        account: PublicKey,
        /// From whom.
        connection: ConnectionId,
        /// The request to answer.
        request: RequestId,
        /// The stream.
        stream: StreamId,
        /// Which blob.
        digest: Digest,
        /// Its length.
        size: u64,
    },
    /// Send a blob to a node: `LayerReply`, then the bytes from `offset` on within the node's
    /// credit, then `Close`.
    SendLayer {
        /// To whom.
        connection: ConnectionId,
        /// The fetch to answer.
        request: RequestId,
        /// The stream.
        stream: StreamId,
        /// Which blob.
        digest: Digest,
        /// Where to start.
        offset: u64,
        /// Credit granted by the node.
        window: u64,
    },
    /// Nothing uses this blob any more.
    DeleteLayer(Digest),
}

/// One side of a routed stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamEndpoint {
    /// The connection.
    pub connection: ConnectionId,
    /// The stream's number on it.
    pub stream: StreamId,
    /// Bytes that this side may be sent before it grants more.
    pub window: u64,
}

/// A message, by whom it is for.
#[derive(Debug, Clone, PartialEq)]
pub enum Outbound {
    /// For a client.
    Client(MasterToClient),
    /// For a node.
    Node(MasterToNode),
}
