//! The node agent: link to the master, workers, launcher and keepers.
//!
//! Owned by the node. Invariant: decisions are made in `teu-node-core`; what is specific to Linux
//! lives in `sys` and nowhere else. Next: `agent` for the event loop, `sys` for Linux.

pub mod agent;
pub mod containers;
pub mod doctor;
pub mod keeper;
pub mod launcher;
pub mod layers;
pub mod link;
pub mod purge;
pub mod scratch;
pub mod slots;
pub mod state;
pub mod streams;
pub mod sys;
pub mod usage;
pub mod volumes;
