//! Volumes on this node: where they lie, who has them mounted, and their streams.
//!
//! Owner: the volume worker. Invariant: an answer leaves after what it says is durable.
//! Next: [`pool`] for the seam to the file systems.

pub mod mounts;
pub mod pool;
