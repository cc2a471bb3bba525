//! One channel of a process's output, as bytes to be read.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::mpsc,
};

use super::pump::PumpTask;
use crate::stream::Chunk;

/// What the pump deals.
#[derive(Debug)]
pub(super) enum Dealt {
    Data(Chunk),
    End,
    Failed(String),
}

/// A process's standard output or error. It ends with `Ok(0)` only when the process has ended and every byte was
/// read; anything else is an error.
#[derive(Debug)]
pub struct ProcessOutput {
    dealt: Option<mpsc::UnboundedReceiver<Dealt>>,
    /// Being read; its bytes count as consumed when the last one is.
    chunk: Option<(Chunk, Bytes)>,
    pump: Option<Arc<PumpTask>>,
}

impl ProcessOutput {
    pub(super) const fn new(dealt: mpsc::UnboundedReceiver<Dealt>, pump: Arc<PumpTask>) -> Self {
        Self {
            dealt: Some(dealt),
            chunk: None,
            pump: Some(pump),
        }
    }

    /// A reader that is at its end.
    pub(super) const fn ended() -> Self {
        Self {
            dealt: None,
            chunk: None,
            pump: None,
        }
    }

    /// The bytes that are next, or `None` at the end.
    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<&mut Bytes>>> {
        loop {
            while let Some((chunk, part)) = &mut self.chunk
                && part.is_empty()
            {
                match chunk.next_part() {
                    Some(next) => *part = next,
                    None => self.chunk = None,
                }
            }
            if self.chunk.is_some() {
                return Poll::Ready(Ok(self.chunk.as_mut().map(|(_, part)| part)));
            }
            let Some(dealt) = &mut self.dealt else {
                return Poll::Ready(Ok(None));
            };
            if let Some(pump) = &self.pump {
                pump.begin();
            }
            match ready!(dealt.poll_recv(context)) {
                Some(Dealt::Data(chunk)) => self.chunk = Some((chunk, Bytes::new())),
                Some(Dealt::End) => self.dealt = None,
                Some(Dealt::Failed(why)) => return Poll::Ready(Err(io::Error::other(why))),
                // The pump is gone without a word: the runtime stops.
                None => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }
}

impl AsyncRead for ProcessOutput {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(part) = ready!(this.poll_part(context))? {
            let length = part.len().min(into.remaining());
            into.put_slice(part.get(..length).unwrap_or_default());
            part.advance(length);
        }
        Poll::Ready(Ok(()))
    }
}
