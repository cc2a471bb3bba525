//! The Noise XK handshake and the sealing of messages, without I/O, clock or randomness.
//!
//! Owner: the transport of either side. The dialling side runs [`ClientHandshake`], the master
//! [`HelloCheck`], [`CookieJar`] and [`ServerHandshake`]; both end with a [`Sealer`] and an
//! [`Opener`], one per direction, which share nothing and may live in different tasks.
//!
//! ```text
//!   client                                  master
//!   ClientHandshake::new      ──HELLO──▶    HelloCheck::check, ServerHandshake::accept
//!   on_message                ◀─WELCOME──
//!   Welcomed::initiate        ──INITIATE─▶  ServerHandshake::on_initiate: who it is
//!   Opener                    ◀──READY───   Sealer's first message
//!   Sealer, Opener            ◀──DATA──▶    Sealer, Opener
//! ```
//!
//! Invariant: no public-key work is done for a peer that does not know the location's key (mac1),
//! and after [`crate::header::MessageType::Initiate`] every byte is authenticated, in order, once. `docs/protocol.md`
//! describes the same bytes in prose. Next: [`crate::message`] for what the plaintext says.

mod cipher;
mod client;
mod cookie;
mod error;
mod hello;
mod key;
mod location;
mod open;
mod refusal;
mod resolver;
mod seal;
mod server;
mod suite;
#[cfg(test)]
mod tests;

pub use client::{ClientHandshake, ClientStep, Welcomed};
pub use cookie::{ConnectionOrigin, CookieJar};
pub use error::{HandshakeError, HelloError, OpenError, SealError};
pub use hello::{CheckedHello, HelloCheck};
pub use key::StaticKey;
pub use location::LocationIdentity;
pub use open::{Opened, Opener};
pub use refusal::{encode_refusal, read_refusal};
pub use seal::Sealer;
pub use server::{Accepted, ServerHandshake};
pub use suite::Suite;
