//! The resource offer: what a session may use now.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::VolumeInfo;
use crate::ids::NodeId;

/// What a session may use now. Pushed with READY and kept up to date by events.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// The location's nodes.
    pub nodes: Vec<NodeOffer>,
    /// The account's volumes.
    #[serde(default)]
    pub volumes: Vec<VolumeInfo>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeOffer {
    /// The node.
    pub id: NodeId,
    /// Its host name.
    pub name: String,
    /// Whether it takes containers.
    pub state: NodeState,
    /// `linux/amd64` and the like.
    pub platform: String,
    /// The node's container addresses: network address and prefix length.
    pub subnet: (Ipv4Addr, u8),
    /// How many containers it can have at once: as many as its subnet and its bridge allow.
    #[serde(default)]
    pub containers_max: u32,
    /// What it has.
    pub capacity: NodeCapacity,
    /// What of it is in use.
    pub usage: NodeUsage,
}

/// Whether a node takes containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// Yes.
    Up,
    /// Its link is down; what it runs goes on and comes back with it.
    Lost,
}

/// What a node has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCapacity {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of the file system that holds containers and layers.
    pub disk_bytes: u64,
    /// Bytes of the pool that holds volumes; 0: it takes none.
    #[serde(default)]
    pub pool_bytes: u64,
}

/// What of a node is in use, measured over the last second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeUsage {
    /// Thousandths of a core in use.
    pub cpu_used_millis: u64,
    /// Bytes of memory that a new program could have (Linux: MemAvailable).
    pub memory_free_bytes: u64,
    /// Bytes free on the file system.
    pub disk_free_bytes: u64,
    /// Bytes free in the pool.
    #[serde(default)]
    pub pool_free_bytes: u64,
    /// Bytes a second read from block devices.
    pub disk_read_bytes_per_s: u64,
    /// Bytes a second written to block devices.
    pub disk_write_bytes_per_s: u64,
    /// Containers there (of all sessions).
    pub containers: u32,
    /// Memory promised to containers by their limits, in bytes.
    pub memory_promised_bytes: u64,
    /// CPU promised to containers by their limits, in thousandths of a core.
    pub cpu_promised_millis: u64,
}
