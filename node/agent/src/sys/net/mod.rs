//! The node's network: a bridge, a veth and an address for each slot, NAT, and a firewall that
//! denies by default.
//!
//! Owned by the agent through `NetworkHandle`. Invariants: nothing of the host's own network is
//! touched but `net.ipv4.ip_forward`; nothing reaches a container unless allowed, whoever asks;
//! what `teu_node_core::firewall` decides is what the kernel does.
//!
//! Map: `handle` (face) → `worker` (owner) → `ruleset` (nftables text), `elements` (set elements by
//! netlink), `link` (bridge, veths), `slot` (inside), `sysctl`; `watch` wakes the worker
//! when somebody flushes its rules, `repair` restores them; `connect` makes sockets inside containers; `channel` and `wire` are
//! netlink. Why it is so: docs/decisions/0003-isolated-bridge-ports.md.

mod channel;
mod command;
mod config;
mod connect;
mod elements;
mod error;
mod handle;
mod link;
mod neighbour;
mod netns;
mod problem;
mod repair;
mod ruleset;
mod slot;
mod sysctl;
mod watch;
mod wire;
mod worker;

pub use config::{Adopted, DEFAULT_ADDRESS_REST, NetConfig, SlotNet};
pub use error::NetError;
pub use handle::NetworkHandle;
pub use netns::Netns;
pub use problem::NetProblem;
