//! Volumes on this node: where they lie, who has them mounted, and their streams.
//!
//! Owner: the volume worker. Invariant: an answer leaves after what it says is durable.
//! Next: [`worker`] for who does what is asked, [`pool`] for the seam to the file systems, [`mounts`] for
//! volumes in containers, [`transfer`] for streams.

#[cfg(test)]
mod model;
pub mod mounts;
pub mod pool;
pub mod transfer;
pub mod worker;
