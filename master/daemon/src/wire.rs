//! A TCP connection that speaks ZMTP, before its two directions part ways.
//!
//! Owner: the handshake; afterwards reader and writer. Invariant: before authentication the buffer
//! holds no more than one handshake message and one read. Next: [`crate::handshake`].

use std::io;

use bytes::{Bytes, BytesMut};
use teu_protocol::{
    limits::MAX_HANDSHAKE_MESSAGE_BYTES,
    zmtp::{self, Decoder, Event, Limits, SocketRole, ZmtpError},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Why nothing more can be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Zmtp(#[from] ZmtpError),
    #[error("the peer closed the connection")]
    Ended,
}

#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    pub(crate) decoder: Decoder,
    pub(crate) buffer: BytesMut,
}

impl Wire {
    /// Greets the peer.
    pub(crate) async fn greet(mut stream: TcpStream) -> Result<Self, WireError> {
        stream.write_all(&zmtp::greeting()).await?;
        let decoder = Decoder::new(SocketRole::Router, Limits::HANDSHAKE);
        Ok(Self {
            stream,
            decoder,
            buffer: BytesMut::new(),
        })
    }

    /// The peer's next message; ZMTP commands are answered on the way.
    pub(crate) async fn receive(&mut self) -> Result<Vec<Bytes>, WireError> {
        loop {
            match self.decoder.decode(&mut self.buffer)? {
                Some(Event::Message(parts)) => return Ok(parts),
                Some(Event::Reply(frame)) => self.stream.write_all(&frame).await?,
                Some(Event::Ready) => {}
                None => {
                    let missing = self.decoder.bytes_missing(self.buffer.len());
                    self.buffer
                        .reserve(missing.clamp(512, MAX_HANDSHAKE_MESSAGE_BYTES));
                    if self.stream.read_buf(&mut self.buffer).await? == 0 {
                        return Err(WireError::Ended);
                    }
                }
            }
        }
    }

    /// Sends a message in clear.
    pub(crate) async fn send(&mut self, parts: &[Bytes]) -> Result<(), WireError> {
        let mut bytes = BytesMut::new();
        zmtp::encode_message(parts, &mut bytes);
        self.stream.write_all(&bytes).await?;
        Ok(())
    }
}
