//! How the link to the location fares.

use std::time::Instant;

use crate::error::CloseReason;

/// How the link to the location fares; see [`crate::Location::link_state`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// It is up.
    Connected,
    /// It is up, but the location has not answered for some seconds: the network may be cut. What was
    /// asked waits.
    Unanswered {
        /// Since when.
        since: Instant,
    },
    /// It was lost and is being made again; requests wait, handles stay valid.
    Reconnecting {
        /// When it was lost.
        since: Instant,
    },
    /// The session is over. Nothing works any more on its handles.
    Closed(CloseReason),
}
