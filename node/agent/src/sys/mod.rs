//! The only code of TEU that knows Linux: namespaces, links, firewall, cgroups, mounts.
//!
//! Owned by the node agent. Invariant: nothing above this module makes a system call for a
//! container's sake, and nothing in here decides; plans come from `teu-node-core`.
//! Next: `names` for what everything is called, `net` for the network.

pub mod names;
pub mod net;
