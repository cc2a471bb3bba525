//! What can be said, typed by who says it to whom.
//!
//! Four enums, one a direction, so that a message that its sender may not send cannot be parsed.
//! All are MessagePack with named fields (`rmp_serde::to_vec_named`); unknown fields are ignored,
//! unknown variants refused. To add a request: a variant of [`RequestBody`] and of [`ReplyBody`],
//! and, if a node serves it, of [`NodeRequestBody`].

mod decode;
mod handshake;
mod image;
mod node;
mod offer;
mod refusal;
mod request;
mod spec;
mod state;
mod stream;
mod time;
mod volume;

pub use decode::{Bounds, DecodeError, count_values, decode, decode_record, decode_within};
pub use handshake::{Initiate, Ready, Role, SessionAsk, SessionLimits, Topology, Welcome};
pub use image::{Compression, ImageInfo, ImageManifest, LayerRef};
pub use node::{
    MAX_REMOVED_LAYERS, NodeContainer, NodeEvent, NodeReplyBody, NodeReport, NodeRequest,
    NodeRequestBody, NodeSpawn, NodeVolume, VolumeOrder,
};
pub use offer::{NodeCapacity, NodeOffer, NodeState, NodeUsage, Offer};
pub use refusal::{Refusal, RefusalCode};
pub use request::{
    ContainerDetail, DoctorReport, EnrolledAccount, Finding, ImportTarget, LogStart, Reply,
    ReplyBody, Request, RequestBody, SessionInfo, Severity,
};
pub use spec::{
    Lifetime, PreBootFile, ProcessSpec, ResourceLimits, SpawnSpec, TermSize, default_grace_ms,
};
pub use state::{
    Cause, ContainerInfo, ContainerState, ExitStatus, ProcessInfo, ProcessState, Termination,
};
pub use stream::{Channel, Place, StreamEnd, StreamFrame};
pub use volume::{
    RollBack, SCHEDULED_PREFIX, SnapshotInfo, SnapshotSchedule, TransferKey, VolumeInfo,
    VolumeMount, VolumeOrigin, VolumeRecord, VolumeSpec, VolumeState, VolumeUsage,
};

use serde::{Deserialize, Serialize};

use crate::{
    heartbeat::{Heartbeat, LinkMessage},
    ids::RequestId,
};

/// What a client says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ClientToMaster {
    /// Asks for something; answered by exactly one [`MasterToClient::Reply`].
    Request(Box<Request>),
    /// Bulk on an open stream.
    Stream(StreamFrame),
    /// Ends the attachment: what it owns is destroyed at once.
    Goodbye,
    /// Are you there?
    Ping(u64),
    /// Yes.
    Pong(u64),
}

/// What the master says to a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum MasterToClient {
    /// The first sealed message: the session as it stands.
    Ready(Box<Ready>),
    /// Answers a request.
    Reply(Box<Reply>),
    /// Something changed.
    Event(Event),
    /// Bulk on an open stream.
    Stream(StreamFrame),
    /// The connection is about to be closed, and why.
    Closing(Refusal),
    /// Are you there?
    Ping(u64),
    /// Yes.
    Pong(u64),
}

/// What the master says to a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum MasterToNode {
    /// The first sealed message: who the node is and which addresses it may hand out.
    Ready(Topology),
    /// Orders something; answered by exactly one [`NodeToMaster::Reply`].
    Request(Box<NodeRequest>),
    /// Answers [`NodeToMaster::FetchLayer`]: the window granted for the stream's Credit
    /// frames is not needed (a layer flows one way), so success carries nothing.
    LayerReply {
        /// The fetch that is answered.
        id: RequestId,
        /// `Ok`: the blob follows on the stream.
        result: Result<(), Refusal>,
    },
    /// Bulk on an open stream.
    Stream(StreamFrame),
    /// The connection is about to be closed, and why.
    Closing(Refusal),
    /// Are you there?
    Ping(u64),
    /// Yes.
    Pong(u64),
}

/// What a node says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum NodeToMaster {
    /// The first message after READY: everything that the node runs.
    Report(Box<NodeReport>),
    /// Answers an order.
    Reply {
        /// The order that is answered.
        id: RequestId,
        /// What came of it.
        result: Result<NodeReplyBody, Refusal>,
    },
    /// Something changed on the node.
    Event(Box<NodeEvent>),
    /// Asks for a layer's blob from `offset` on, streamed on `stream` (numbered by the node with
    /// the top bit set, so that it cannot meet a number of the master's).
    FetchLayer {
        /// Names this fetch.
        id: RequestId,
        /// Which blob.
        digest: crate::ids::Digest,
        /// Where to start, in bytes.
        offset: u64,
        /// The stream to send it on.
        stream: crate::ids::StreamId,
        /// Bytes that the master may send before the first Credit.
        window: u64,
    },
    /// Bulk on an open stream.
    Stream(StreamFrame),
    /// The agent stops on purpose; its containers go on.
    Goodbye,
    /// Are you there?
    Ping(u64),
    /// Yes.
    Pong(u64),
}

/// A change, numbered within its session without gaps: who has seen `seq` has seen all before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Counts from 1 in each session; [`Ready::seq`] is the last one that READY's content includes.
    pub seq: u64,
    /// What changed.
    pub body: EventBody,
}

/// What can change in a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum EventBody {
    /// A node is new or changed; replaces what was known of it.
    Node(NodeOffer),
    /// A node left the offer.
    NodeGone(crate::ids::NodeId),
    /// A container of this session is new or changed; replaces what was known of it.
    Container(Box<ContainerInfo>),
    /// A container of this session is destroyed; its id is never used again.
    ContainerGone(crate::ids::ContainerId),
    /// A process (exec) ended.
    Process(ProcessInfo),
    /// A volume of the account is new or changed; replaces what was known of it.
    Volume(Box<VolumeInfo>),
    /// A volume of the account is destroyed; its id is never used again.
    VolumeGone(crate::ids::VolumeId),
    /// For people.
    Warning(String),
}

macro_rules! heartbeats {
    ($($message:ident),*) => {$(
        impl LinkMessage for $message {
            fn ping(nonce: u64) -> Self {
                Self::Ping(nonce)
            }

            fn pong(nonce: u64) -> Self {
                Self::Pong(nonce)
            }

            fn heartbeat(&self) -> Option<Heartbeat> {
                match self {
                    Self::Ping(nonce) => Some(Heartbeat::Ping(*nonce)),
                    Self::Pong(nonce) => Some(Heartbeat::Pong(*nonce)),
                    _ => None,
                }
            }
        }
    )*};
}

heartbeats!(ClientToMaster, MasterToClient, MasterToNode, NodeToMaster);

/// A message that cannot be written as MessagePack (only by a defect: all of them can).
#[derive(Debug, thiserror::Error)]
#[error("a message could not be written as MessagePack")]
pub struct EncodeError(#[from] rmp_serde::encode::Error);

/// Writes a message as MessagePack with named fields.
///
/// # Errors
/// Never for this crate's types; the serializer's signature has it.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, EncodeError> {
    Ok(rmp_serde::to_vec_named(message)?)
}

#[cfg(test)]
mod tests;
