//! The pure firewall of a node: which addresses exist, who has them, which pairs may talk.
//!
//! Owned by the node's network worker, which turns changes into kernel set elements. Invariant:
//! default deny; see `policy`. Next: `policy`, then the agent's `sys/net`.

mod decision;
mod policy;
mod pool;
mod reserved;
mod subnet;
#[cfg(test)]
mod tests;

pub use decision::{DNS_PORT, Opening, Origin, Surroundings};
pub use policy::{Change, Element, Firewall, FirewallRefusal, Pair};
pub use pool::{AddressPool, PoolError};
pub use reserved::{RESERVED, Reserved, is_reserved};
pub use subnet::{Ipv4Subnet, SubnetError};
