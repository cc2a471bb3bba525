//! Input to a process, which moves to a new stream after a reconnect.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use teu_protocol::{limits::LINK_LOST_AFTER, message::Channel};
use tokio::io::AsyncWrite;

use super::pump::PumpTask;
use crate::{
    error::{Error, Result},
    stream::{StreamOver, StreamWriter},
};

/// A process's standard input. Shutting it down is the end of input; dropping it is not.
///
/// After a reconnect it goes on. But if bytes were on their way when the link was lost, they may
/// be missing: then, unless the process has a terminal, writing fails with `ConnectionReset` instead of
/// going on with a gap.
#[derive(Debug)]
pub struct Stdin {
    slot: Arc<StdinSlot>,
    /// What reads the output, if nobody else does.
    _pump: Option<Arc<PumpTask>>,
}

/// Shared by [`Stdin`] and the reader of the output, which opens streams. Never locked across an
/// await.
#[derive(Debug)]
pub(super) struct StdinSlot {
    tty: bool,
    state: Mutex<SlotState>,
}

#[derive(Debug)]
struct SlotState {
    line: Line,
    /// The end of input was asked for.
    eof: bool,
    /// …and still has to be said on the present stream.
    eof_due: bool,
    first_grant: u64,
    writer: Option<Waker>,
}

#[derive(Debug)]
enum Line {
    /// The next stream is being opened.
    Waiting,
    Open(StreamWriter),
    /// Bytes may be missing.
    Broken,
    /// The process has ended, or nobody reads its output any more.
    Ended,
}

impl Stdin {
    pub(super) fn new(tty: bool) -> Self {
        let state = SlotState {
            line: Line::Waiting,
            eof: false,
            eof_due: false,
            first_grant: 0,
            writer: None,
        };
        Self {
            slot: Arc::new(StdinSlot {
                tty,
                state: Mutex::new(state),
            }),
            _pump: None,
        }
    }

    pub(super) fn slot(&self) -> Arc<StdinSlot> {
        Arc::clone(&self.slot)
    }

    pub(super) fn keeping(mut self, pump: Arc<PumpTask>) -> Self {
        self._pump = Some(pump);
        self
    }
}

impl StdinSlot {
    fn lock(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Input goes here from now on.
    pub(super) fn opened(&self, writer: StreamWriter, first_grant: u64) {
        let mut state = self.lock();
        if matches!(state.line, Line::Broken | Line::Ended) {
            return;
        }
        state.line = Line::Open(writer);
        state.first_grant = first_grant;
        state.eof_due = state.eof;
        if state.eof_due {
            // There is room for a first frame unless others hog the link; if not, the end of input
            // is said on the next call.
            let mut context = Context::from_waker(Waker::noop());
            let _ = state.poll_eof(&mut context);
        }
        state.wake();
    }

    /// The stream is gone with its link.
    ///
    /// # Errors
    /// [`Error::InputLost`] if input that may be missing was followed by its end: nobody is there
    /// any more to be told by a failing write.
    pub(super) fn link_lost(&self) -> Result<()> {
        let mut state = self.lock();
        let line = std::mem::replace(&mut state.line, Line::Waiting);
        let uncertain = match &line {
            Line::Open(writer) => {
                !self.tty && writer.is_uncertain(state.first_grant, LINK_LOST_AFTER)
            }
            Line::Waiting => false,
            Line::Broken | Line::Ended => {
                state.line = line;
                return Ok(());
            }
        };
        if uncertain {
            state.line = Line::Broken;
        }
        let told = !state.eof || !uncertain;
        state.wake();
        if told { Ok(()) } else { Err(Error::InputLost) }
    }

    /// No more input is wanted.
    pub(super) fn ended(&self) {
        let mut state = self.lock();
        if !matches!(state.line, Line::Broken) {
            state.line = Line::Ended;
        }
        state.wake();
    }
}

impl SlotState {
    fn wake(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = match &mut self.line {
            Line::Open(writer) => writer.poll_write(context, Channel::Stdin, bytes),
            Line::Waiting => Poll::Ready(Err(StreamOver::Lost)),
            Line::Broken => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Line::Ended => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        };
        self.settle(context, outcome)
    }

    fn poll_eof(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.eof_due {
            return Poll::Ready(Ok(()));
        }
        let outcome = match &mut self.line {
            Line::Open(writer) => writer.poll_eof(context, Channel::Stdin),
            // Said when the next stream is open, or pointless.
            Line::Waiting | Line::Ended => return Poll::Ready(Ok(())),
            Line::Broken => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        };
        let outcome = self.settle(context, outcome);
        if matches!(outcome, Poll::Ready(Ok(()))) {
            self.eof_due = false;
        }
        outcome
    }

    /// A stream that was lost is waited for; one that ended is a broken pipe.
    fn settle<T>(
        &mut self,
        context: &Context<'_>,
        outcome: Poll<Result<T, StreamOver>>,
    ) -> Poll<io::Result<T>> {
        match outcome {
            Poll::Ready(Ok(done)) => Poll::Ready(Ok(done)),
            Poll::Ready(Err(StreamOver::Ended)) => {
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            }
            Poll::Ready(Err(StreamOver::Lost)) | Poll::Pending => {
                self.writer = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Stdin {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.slot.lock();
        if state.eof {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        state.poll_write(context, bytes)
    }

    /// What was written is on its way already.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.slot.lock();
        if !state.eof {
            (state.eof, state.eof_due) = (true, true);
        }
        state.poll_eof(context)
    }
}
