//! Heartbeats: what a message enum offers so that a link can tell a quiet peer from a dead one.
//!
//! Owner: the message enums implement [`LinkMessage`]; the link layer (teu-link on the dialling
//! side, the master's listener on the other) sends and answers. Invariant: a Ping is answered with
//! a Pong that carries the same nonce, and neither reaches the application.
//! Next: the periods are in [`crate::limits`].

/// What a heartbeat message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// "Are you there?": answer with a [`Heartbeat::Pong`] of the same nonce.
    Ping(u64),
    /// The answer to a [`Heartbeat::Ping`].
    Pong(u64),
}

/// A message enum that has room for heartbeats.
pub trait LinkMessage: Sized {
    /// The variant that asks "are you there?".
    fn ping(nonce: u64) -> Self;

    /// The variant that answers.
    fn pong(nonce: u64) -> Self;

    /// `Some` if this message is a heartbeat, which the link then keeps to itself.
    fn heartbeat(&self) -> Option<Heartbeat>;
}
