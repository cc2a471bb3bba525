//! Followers: the small machine behind each stream of a process's output.
//!
//! Owner: each stream's task in the agent has its own. Invariant: a follower of a log sends every byte
//! exactly once before it closes, and never more than was granted. Credit is
//! [`teu_protocol::flow`]'s.

mod follower;

pub use follower::{ACKNOWLEDGED_WITHIN, FollowStep, Follower, LogProgress};
