//! The session: one task that owns the connection and all that is under way on it.
//!
//! Owner: [`task::SessionTask`]; everybody else holds a [`SessionHandle`] and asks over a bounded
//! channel. Invariants: a request keeps its id over reconnects, so it has its effect once; nothing
//! here waits for a slow reader; when the session is over, everybody who waits is told why.
//!
//! ```text
//!            ┌── link lost ──▶ Reconnecting ── READY ──┐
//! Connected ─┤  (▲│ Unanswered)    │                   └──▶ Connected (snapshot replaced,
//!            └── close/Closing ─▶ Closed ◀── NotFound …          requests sent again)
//! ```
//! Next: [`transport`] is the seam to `teu-link`; [`crate::stream`] is what streams are made of.

mod command;
mod cut;
#[cfg(test)]
pub(crate) mod fake;
mod handle;
mod link;
mod link_state;
mod liveness;
mod outbox;
mod pending;
mod reconnect;
mod streams;
mod task;
#[cfg(test)]
mod tests;
mod transport;
mod view;

pub(crate) use command::{Claim, StreamAsk};
pub(crate) use cut::told;
pub(crate) use handle::{Patience, SessionHandle};
pub(crate) use link::TeuLink;
pub use link_state::LinkState;
pub(crate) use task::start;
pub(crate) use transport::Transport;
pub(crate) use view::ContainerView;
