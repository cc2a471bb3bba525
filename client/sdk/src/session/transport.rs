//! The seam under the session: what it needs of a link, and no more.
//!
//! Owner: the session. [`super::link`] implements it over `teu-link`; tests implement it over
//! channels.

use std::future::Future;

use bytes::Bytes;
use teu_protocol::message::{ClientToMaster, Initiate, MasterToClient, Ready};

use crate::error::ConnectError;

/// The connection is gone, and why (for the log).
#[derive(Debug)]
pub(crate) struct LinkGone(pub(crate) String);

/// Makes connections to one location.
pub(crate) trait Transport: Send + Sync + 'static {
    type Sender: LinkSend;
    type Receiver: LinkReceive;

    /// One attempt: dial, shake hands, wait for READY.
    fn dial(
        &self,
        initiate: Initiate,
    ) -> impl Future<Output = Result<Dialled<Self::Sender, Self::Receiver>, ConnectError>> + Send;

    /// How long to wait before attempt number `attempt` (from 0) of a reconnect.
    fn pause(&self, attempt: u32) -> std::time::Duration;
}

/// A connection on which READY has been received.
#[derive(Debug)]
pub(crate) struct Dialled<S, R> {
    pub(crate) sender: S,
    pub(crate) receiver: R,
    pub(crate) ready: Ready,
}

/// The sending half.
pub(crate) trait LinkSend: Send + 'static {
    /// Hands a message to the network. Not cancel-safe: dropped midway, the link is unusable.
    fn send(
        &mut self,
        message: ClientToMaster,
        bulk: Vec<Bytes>,
    ) -> impl Future<Output = Result<(), LinkGone>> + Send;
}

/// The receiving half.
pub(crate) trait LinkReceive: Send + 'static {
    /// The next message that is not a heartbeat. Must be cancel-safe.
    fn receive(
        &mut self,
    ) -> impl Future<Output = Result<(MasterToClient, Vec<Bytes>), LinkGone>> + Send;

    /// Asks the location whether it is there, if it has said nothing for `quiet`. How long it has not
    /// answered a question, if it has not.
    fn probe(&mut self, quiet: std::time::Duration) -> Option<std::time::Duration>;
}
