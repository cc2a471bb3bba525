//! One connection to a port in a container, without a listener.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use teu_protocol::message::{Channel, StreamEnd};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    Container,
    stream::{Stream, StreamItem, StreamOver, Unread},
};

/// A TCP connection to a port in a container; see [`Container::connect`].
///
/// Shutting it down is a half-close: reading goes on. Dropping it closes it, as a socket. It does
/// not survive the loss of the link: then reading and writing fail with `ConnectionReset`.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    unread: Unread,
    end: Option<End>,
    shut_down: bool,
    /// Keeps the session alive.
    _container: Container,
}

/// How reading ended.
#[derive(Debug, Clone, Copy)]
enum End {
    Whole,
    Reset,
}

impl Connection {
    pub(super) fn new(stream: Stream, container: Container) -> Self {
        Self {
            stream,
            unread: Unread::default(),
            end: None,
            shut_down: false,
            _container: container,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.unread.has_bytes() {
                this.unread.read(into);
                return Poll::Ready(Ok(()));
            }
            match this.end {
                Some(End::Whole) => return Poll::Ready(Ok(())),
                Some(End::Reset) => {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                None => {}
            }
            match ready!(this.stream.reader.poll_next(context)) {
                StreamItem::Data(chunk) => this.unread.put(chunk),
                StreamItem::Eof | StreamItem::End(StreamEnd::Done | StreamEnd::Exited(_)) => {
                    this.end = Some(End::Whole);
                }
                StreamItem::End(StreamEnd::Reset | StreamEnd::Failed(_)) | StreamItem::Lost => {
                    this.end = Some(End::Reset);
                }
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.shut_down {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.stream
            .writer
            .poll_write(context, Channel::Main, bytes)
            .map_err(broken)
    }

    /// What was written is on its way already.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut_down {
            ready!(self.stream.writer.poll_eof(context, Channel::Main)).map_err(broken)?;
            self.shut_down = true;
        }
        Poll::Ready(Ok(()))
    }
}

fn broken(over: StreamOver) -> io::Error {
    match over {
        StreamOver::Ended => io::ErrorKind::BrokenPipe.into(),
        StreamOver::Lost => io::ErrorKind::ConnectionReset.into(),
    }
}
