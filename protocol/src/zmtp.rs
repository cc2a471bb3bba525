//! ZMTP 3.x framing (RFC 23 and 37), NULL mechanism, without I/O.
//!
//! Owner: whoever owns the TCP connection, on both sides of it. Feed received bytes to a
//! [`Decoder`], send what it answers, and encode messages with [`encode_message`] or
//! [`encode_chunks`].
//!
//! ```text
//!   send greeting() at once
//!   Decoder: Greeting ──Reply(READY)──▶ AwaitReady ──Ready──▶ Traffic ──Message / Reply(PONG)──▶ …
//!                 └───────────────┴──── any violation: ZmtpError, close the connection ────┘
//! ```
//!
//! Invariant: nothing that a peer sends panics or makes the decoder hold more than its
//! [`Limits`]; a length that a frame merely claims allocates nothing. The ZMTP identity is read and
//! thrown away: it is never authority. Next: [`crate::noise`] for what the messages are.

mod command;
mod decode;
mod encode;
mod error;
mod greeting;

#[cfg(test)]
mod tests;

pub use command::{MAX_COMMAND_BYTES, MAX_PING_CONTEXT_BYTES, SocketRole};
pub use decode::{Decoder, Event, Limits};
pub use encode::{MAX_FRAME_HEADER_BYTES, encode_chunks, encode_message, frame_header};
pub use error::ZmtpError;
pub use greeting::{GREETING_BYTES, greeting};
