//! Flow control of streams: what may be sent, what was promised, and when more is granted.
//!
//! ```text
//! sender: SendWindow ── Data ──▶ ReceiveWindow: receiver
//!         grant(n)   ◀─ Credit ── consumed(n)
//! ```
//! The same types serve the SDK, a node and the master's daemon; each owner keeps one for each
//! direction of a stream, behind whatever lock it needs. Pure: time is an input.
//!
//! Invariants: a sender never holds more credit than its receiver has promised; `size` of a
//! [`ReceiveWindow`] is always what is outstanding, held and not yet granted again, together; the
//! sizes of all [`GrowingWindow`]s of one [`Growth`] are their bases and what was taken from it.

mod growing;
mod receive;
mod send;
mod shares;

pub use growing::{GrowingWindow, Growth};
pub use receive::{Overrun, ReceiveWindow};
pub use send::{Overgrant, SendWindow};
pub use shares::Shares;

/// What each stream is promised when it is opened, and keeps: one full part and its frame. At 10 ms of
/// round trip it is 52 Mbit/s until the window has grown, four round trips later.
pub const BASE_WINDOW_BYTES: u64 = 64 * 1024;

/// What one stream's window may grow to: at 10 ms of round trip 800 Mbit/s, in a LAN no limit at all.
pub const GROWN_WINDOW_BYTES: u64 = 1024 * 1024;

/// Credit that may be outstanding on one stream in one direction. More than any receiver of this version
/// promises; a peer that grants beyond it breaks the stream's rules.
pub const MAX_WINDOW_BYTES: u64 = 64 * 1024 * 1024;
