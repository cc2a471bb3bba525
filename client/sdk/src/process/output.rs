//! One channel of a process's output, as bytes to be read.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::mpsc,
};

use super::pump::PumpTask;
use crate::stream::{Chunk, Unread};

/// What the pump deals.
#[derive(Debug)]
pub(super) enum Dealt {
    Data(Chunk),
    /// So many bytes (of either channel) are missing here.
    Lost(u64),
    End,
    Failed(String),
}

/// A process's standard output or error. It ends with `Ok(0)` only when the process has ended and every byte was
/// read; anything else is an error. After an error that holds [`crate::Error::OutputLost`] it goes on
/// behind the gap.
#[derive(Debug)]
pub struct ProcessOutput {
    dealt: Option<mpsc::UnboundedReceiver<Dealt>>,
    unread: Unread,
    pump: Option<Arc<PumpTask>>,
}

impl ProcessOutput {
    pub(super) fn new(dealt: mpsc::UnboundedReceiver<Dealt>, pump: Arc<PumpTask>) -> Self {
        Self {
            dealt: Some(dealt),
            unread: Unread::default(),
            pump: Some(pump),
        }
    }

    /// A reader that is at its end.
    pub(super) fn ended() -> Self {
        Self {
            dealt: None,
            unread: Unread::default(),
            pump: None,
        }
    }

    /// Whether there are bytes to be read, or the end was reached.
    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while !self.unread.has_bytes() {
            let Some(dealt) = &mut self.dealt else {
                return Poll::Ready(Ok(false));
            };
            if let Some(pump) = &self.pump {
                pump.begin();
            }
            match ready!(dealt.poll_recv(context)) {
                Some(Dealt::Data(chunk)) => self.unread.put(chunk),
                Some(Dealt::Lost(bytes)) => {
                    let lost = crate::Error::OutputLost { bytes };
                    return Poll::Ready(Err(io::Error::other(lost)));
                }
                Some(Dealt::End) => self.dealt = None,
                Some(Dealt::Failed(why)) => return Poll::Ready(Err(io::Error::other(why))),
                // The pump is gone without a word: the runtime stops.
                None => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            }
        }
        Poll::Ready(Ok(true))
    }
}

impl AsyncRead for ProcessOutput {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if ready!(this.poll_bytes(context))? {
            this.unread.read(into);
        }
        Poll::Ready(Ok(()))
    }
}
