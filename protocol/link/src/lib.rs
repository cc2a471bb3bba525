//! The dialling side of a TEU connection, shared by clients and nodes.
//!
//! A [`Dialer`] makes one [`Connection`]: TCP, ZMTP as a DEALER, the Noise
//! handshake, READY. It splits into a [`LinkSender`], cheap to clone, and a [`LinkReceiver`]. A lost
//! link is not mended: whoever owns it dials again, at the pace of a [`Backoff`], and resumes its
//! session.
//!
//! ```text
//!   LinkSender ─┐ bytes' worth of      ┌ writer task ┐
//!   LinkSender ─┴ permits, then queue ─▶ Sealer      ├─▶ socket ─▶ TCP
//!   LinkReceiver::recv ◀── Opener ◀── heartbeats ◀───┴─── socket ◀─┘
//! ```
//!
//! Invariants: a message is sent sealed, once, in order; what waits to be sent is bounded in bytes,
//! and so is what a peer can make us hold; a dead peer is noticed at once if its TCP connection ends, else
//! within [`teu_protocol::limits::LINK_LOST_AFTER`]. Knows nothing of what messages mean.
//! Next: [`teu_protocol::noise`] for the bytes.

mod backoff;
mod budget;
mod connection;
mod dial;
mod error;
mod pulse;
mod receiver;
mod sender;
mod socket;

pub use backoff::Backoff;
pub use connection::Connection;
pub use dial::{Dialer, RandomSource};
pub use error::{Awaited, DialError, LinkError};
pub use receiver::LinkReceiver;
pub use sender::LinkSender;
