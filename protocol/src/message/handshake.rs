//! What is said while connecting: the payloads of WELCOME, INITIATE and READY.

use serde::{Deserialize, Serialize};

use super::{ContainerInfo, Offer};
use crate::ids::{AttachmentId, NodeId, SessionId, Tag};

/// Payload of WELCOME.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The protocol's version: 1.
    pub version: u16,
    /// Optional abilities of the master, by name.
    pub features: Vec<String>,
}

/// As what the peer connects. The master grants it only if the peer's key is enrolled as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A client program of an account.
    Client,
    /// A node's agent.
    Node,
}

/// Payload of INITIATE (at most 3 KiB).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Initiate {
    /// As what.
    pub role: Role,
    /// Optional abilities of the peer, by name.
    pub features: Vec<String>,
    /// For people: a program's or a host's name, at most 64 bytes.
    pub name: String,
    /// Which session (clients; nodes say `New`).
    pub session: SessionAsk,
    /// The client process, the same over its reconnects.
    pub attachment: AttachmentId,
}

/// Which session a client wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionAsk {
    /// A fresh one that ends with its attachment.
    New,
    /// The one it was in. Refused as `NotFound` if it ended or is another account's.
    Resume(SessionId),
    /// The account's persistent session of that name, made if there is none.
    Named(Tag),
}

/// READY for clients: the session as it stands. A reconnecting client replaces what it knew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// The session.
    pub session: SessionId,
    /// The session's name, if it is a persistent one.
    pub name: Option<Tag>,
    /// What the peer must keep to.
    pub limits: SessionLimits,
    /// What the session may use.
    pub offer: Offer,
    /// The session's containers.
    pub containers: Vec<ContainerInfo>,
    /// The last event that the above includes.
    pub seq: u64,
}

/// What the master lets one session have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionLimits {
    /// Open streams on one connection.
    pub streams: u32,
    /// Sum of the windows that the peer may grant on one connection, in bytes.
    pub window_bytes: u64,
    /// Containers in one session.
    pub containers: u32,
    /// Volumes of one account.
    #[serde(default)]
    pub volumes: u32,
    /// Requests that may wait for their replies on one connection.
    pub requests: u32,
}

/// READY for nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// Who the node is.
    pub node: NodeId,
    /// The addresses that it may give to containers: network address and prefix length.
    pub subnet: (std::net::Ipv4Addr, u8),
    /// All of the location's container addresses.
    pub range: (std::net::Ipv4Addr, u8),
}
