//! A connection that the location has accepted.

use bytes::Bytes;

use crate::{LinkReceiver, LinkSender};

/// What a successful dial yields: READY and the two halves of the link.
#[derive(Debug)]
pub struct Connection<Out, In> {
    pub(crate) welcome: Bytes,
    pub(crate) ready: In,
    pub(crate) sender: LinkSender<Out>,
    pub(crate) receiver: LinkReceiver<Out, In>,
}

impl<Out, In> Connection<Out, In> {
    /// WELCOME's payload, as it came: MessagePack of [`teu_protocol::message::Welcome`].
    #[must_use]
    pub const fn welcome(&self) -> &Bytes {
        &self.welcome
    }

    /// The first sealed message: what the location says on accepting us.
    #[must_use]
    pub const fn ready(&self) -> &In {
        &self.ready
    }

    /// The two halves, for two tasks. READY is lost; see [`Connection::into_parts`].
    #[must_use]
    pub fn split(self) -> (LinkSender<Out>, LinkReceiver<Out, In>) {
        (self.sender, self.receiver)
    }

    /// READY and the two halves.
    #[must_use]
    pub fn into_parts(self) -> (In, LinkSender<Out>, LinkReceiver<Out, In>) {
        (self.ready, self.sender, self.receiver)
    }
}
