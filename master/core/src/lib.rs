//! The broker's decisions: who may do what, where it runs, who hears of it.
//!
//! Pure: `Core::handle(input, now) -> effects`. No sockets, files, clock or randomness; the daemon
//! (`teu-master`) owns a [`Core`], feeds it [`Input`]s and performs the [`Effect`]s in their order
//! (persisting before sending). Bulk data never comes here: the core keeps the table of streams,
//! the daemon's connections follow it.

pub mod effect;
pub mod input;
pub mod record;

pub use effect::{Effect, Outbound};
pub use input::{ConnectionId, Input, Now};
