//! The node agent: link to the master, workers, launcher and keepers.
//!
//! Owned by the node. Invariant: decisions are made in `teu-node-core`; what is specific to Linux
//! lives in `sys` and nowhere else. Next: `sys`.

pub mod keeper;
pub mod launcher;
pub mod layers;
pub mod sys;
