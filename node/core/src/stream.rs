//! Credit and followers: the small machines behind each open stream.
//!
//! Owner: each stream's task in the agent has its own. Invariant: a sender never sends more than
//! it was granted, a receiver knows when it was sent more than it granted, and a follower of a
//! log sends every byte exactly once before it closes.

mod credit;
mod follower;

pub use credit::{Overrun, ReceiveWindow, SendCredit};
pub use follower::{ACKNOWLEDGED_WITHIN, FollowStep, Follower, LogProgress};

/// What a node grants on a stream towards it, and tops up to: at 10 ms of round trip this is
/// 800 Mbit/s, at a LAN's 0.2 ms no limit at all; it bounds what a slow container makes us hold.
pub const WINDOW_BYTES: u64 = 1024 * 1024;
