//! One stream's sending side.
//!
//! Owner: the stream's task. Invariant: frames of one stream leave in the order of these calls.

use bytes::Bytes;
use teu_link::LinkError;
use teu_protocol::{
    ids::StreamId,
    message::{Channel, StreamEnd, StreamFrame},
};

use crate::link::LinkHandle;

/// Sends on one stream.
#[derive(Debug, Clone)]
pub struct Outlet {
    link: LinkHandle,
    stream: StreamId,
}

impl Outlet {
    /// The sending side of `stream` on `link`.
    #[must_use]
    pub const fn new(link: LinkHandle, stream: StreamId) -> Self {
        Self { link, stream }
    }

    /// Bytes. The caller has the credit for them.
    ///
    /// # Errors
    /// The link's.
    pub async fn data(
        &self,
        channel: Channel,
        cursor: u64,
        bulk: Vec<Bytes>,
    ) -> Result<(), LinkError> {
        self.send_data(channel, None, cursor, bulk).await
    }

    /// Output of a process between these cursors. The caller has the credit for it.
    ///
    /// # Errors
    /// The link's.
    pub async fn output(
        &self,
        channel: Channel,
        (from, cursor): (u64, u64),
        bulk: Vec<Bytes>,
    ) -> Result<(), LinkError> {
        self.send_data(channel, Some(from), cursor, bulk).await
    }

    async fn send_data(
        &self,
        channel: Channel,
        from: Option<u64>,
        cursor: u64,
        bulk: Vec<Bytes>,
    ) -> Result<(), LinkError> {
        let stream = self.stream;
        self.link
            .send(
                StreamFrame::Data {
                    stream,
                    channel,
                    cursor,
                    from,
                },
                bulk,
            )
            .await
    }

    /// May be sent more.
    ///
    /// # Errors
    /// The link's.
    pub async fn credit(&self, bytes: u64) -> Result<(), LinkError> {
        let stream = self.stream;
        self.link
            .send(StreamFrame::Credit { stream, bytes }, Vec::new())
            .await
    }

    /// No more from here on this channel.
    ///
    /// # Errors
    /// The link's.
    pub async fn eof(&self, channel: Channel) -> Result<(), LinkError> {
        let stream = self.stream;
        self.link
            .send(
                StreamFrame::Eof {
                    stream,
                    channel,
                    cursor: 0,
                },
                Vec::new(),
            )
            .await
    }

    /// The end.
    ///
    /// # Errors
    /// The link's.
    pub async fn close(&self, end: StreamEnd) -> Result<(), LinkError> {
        let stream = self.stream;
        self.link
            .send(StreamFrame::Close { stream, end }, Vec::new())
            .await
    }
}
