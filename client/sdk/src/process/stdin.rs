//! Input to a process, which moves to a new stream after a reconnect.
//!
//! ```text
//! write ─▶ kept ─▶ stream ─▶ node: "has n bytes" (as credit, or when a stream is opened)
//!           └── what the node does not have yet is sent again on the next stream
//! ```
//! Owner: a [`super::Process`]. Invariant: the process gets each byte once, in order, or the writer (or, when
//! the end of input was said already, the reader of the output) gets an error.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf as _, Bytes};
use teu_protocol::message::Channel;
use tokio::io::AsyncWrite;

use super::pump::PumpTask;
use crate::{
    error::{Error, Result},
    stream::{StreamOver, StreamWriter},
};

/// A process's standard input. Shutting it down is the end of input; dropping it is not.
///
/// After a reconnect it goes on from the byte that the node has. Where that cannot be known (a node
/// of an older version), writing fails with `ConnectionReset` instead of going on with a gap. While the
/// link is away, writing waits; the output has to be read (or waited for) meanwhile, for whoever reads it
/// opens the next stream.
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
    kept: Kept,
    /// To be sent again on the present stream, before anything else.
    again: VecDeque<Bytes>,
    /// The end of input was asked for.
    eof: bool,
    /// …and still has to be said on the present stream.
    eof_due: bool,
    writer: Option<Waker>,
}

/// What was given to a stream and that the node may not have. As much as the stream's window at most.
#[derive(Debug, Default)]
struct Kept {
    parts: VecDeque<Bytes>,
    /// Of the first byte in `parts`.
    from: u64,
    /// Behind the last one.
    to: u64,
}

#[derive(Debug)]
enum Line {
    /// The next stream is being opened.
    Waiting,
    Open(OpenLine),
    /// Bytes may be missing.
    Broken,
    /// The process has ended, or nobody reads its output any more.
    Ended,
}

#[derive(Debug)]
struct OpenLine {
    writer: StreamWriter,
    /// The first byte that went over this stream.
    from: u64,
    first_grant: u64,
}

impl Stdin {
    pub(super) fn new(tty: bool) -> Self {
        let state = SlotState {
            line: Line::Waiting,
            kept: Kept::default(),
            again: VecDeque::new(),
            eof: false,
            eof_due: false,
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

impl Kept {
    fn add(&mut self, bytes: Bytes) {
        self.to += bytes.len() as u64;
        self.parts.push_back(bytes);
    }

    /// The node has everything before `to`.
    fn drop_before(&mut self, to: u64) {
        while self.from < to
            && let Some(first) = self.parts.front_mut()
        {
            let length = first.len() as u64;
            let now = length.min(to - self.from);
            self.from += now;
            if now == length {
                self.parts.pop_front();
            } else {
                first.advance(usize::try_from(now).unwrap_or(usize::MAX));
            }
        }
    }
}

impl StdinSlot {
    fn lock(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Input goes here from now on; the node says how much of it there is.
    ///
    /// # Errors
    /// [`Error::InputLost`] if input is missing that was followed by its end: nobody is there any more
    /// to be told by a failing write.
    pub(super) fn opened(
        &self,
        mut writer: StreamWriter,
        first_grant: u64,
        has: Option<u64>,
    ) -> Result<()> {
        let mut state = self.lock();
        if matches!(state.line, Line::Broken | Line::Ended) {
            return Ok(());
        }
        let known = state.kept.from..=state.kept.to;
        let from = match has {
            Some(has) if known.contains(&has) => has,
            // Typing goes on: a lost key is seen.
            None if state.kept.parts.is_empty() || self.tty => state.kept.to,
            _ => {
                state.line = Line::Broken;
                state.wake();
                return if state.eof {
                    Err(Error::InputLost)
                } else {
                    Ok(())
                };
            }
        };
        state.kept.drop_before(from);
        let missing = state.kept.parts.clone();
        state.again = missing;
        writer.begin_at(from);
        state.line = Line::Open(OpenLine {
            writer,
            from,
            first_grant,
        });
        state.eof_due = state.eof;
        state.wake();
        Ok(())
    }

    /// Says again what the last stream did not bring there. To be called by whoever reads the output,
    /// whenever it looks.
    pub(super) fn drive(&self, context: &mut Context<'_>) {
        let mut state = self.lock();
        if state.again.is_empty() && !state.eof_due {
            return;
        }
        let writer = state.writer.take();
        // The reader itself sees that a stream is over.
        let _ = state.poll_eof(context);
        state.writer = writer;
        if state.again.is_empty() {
            state.wake();
        }
    }

    /// The stream is gone with its link.
    pub(super) fn link_lost(&self) {
        let mut state = self.lock();
        if matches!(state.line, Line::Open(_)) {
            state.trim();
            state.line = Line::Waiting;
        }
        state.wake();
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

    /// Forgets what the node has by now.
    fn trim(&mut self) {
        if let Line::Open(line) = &self.line {
            let has = line.from + line.writer.taken_of(line.first_grant);
            self.kept.drop_before(has);
        }
    }

    /// Ready when the next byte may be written.
    fn poll_line(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.trim();
        let line = match &mut self.line {
            Line::Open(line) => line,
            Line::Waiting => {
                self.writer = Some(context.waker().clone());
                return Poll::Pending;
            }
            Line::Broken => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Line::Ended => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        };
        while !self.again.is_empty() {
            let sent = line
                .writer
                .poll_send(context, Channel::Stdin, &mut self.again);
            ready!(settle(&mut self.writer, context, sent))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_line(context))?;
        let Line::Open(line) = &mut self.line else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let written = line.writer.poll_write(context, Channel::Stdin, bytes);
        let written = ready!(settle(&mut self.writer, context, written))?;
        let given = bytes.get(..written).unwrap_or_default();
        self.kept.add(Bytes::copy_from_slice(given));
        Poll::Ready(Ok(written))
    }

    fn poll_eof(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.line, Line::Waiting | Line::Ended) {
            // Said when the next stream is open, or pointless.
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_line(context))?;
        let Line::Open(line) = &mut self.line else {
            return Poll::Ready(Ok(()));
        };
        if !self.eof_due {
            return Poll::Ready(Ok(()));
        }
        let said = line.writer.poll_eof(context, Channel::Stdin);
        ready!(settle(&mut self.writer, context, said))?;
        self.eof_due = false;
        Poll::Ready(Ok(()))
    }
}

/// A stream that was lost is waited for; one that ended is a broken pipe.
fn settle<T>(
    writer: &mut Option<Waker>,
    context: &Context<'_>,
    outcome: Poll<Result<T, StreamOver>>,
) -> Poll<io::Result<T>> {
    match outcome {
        Poll::Ready(Ok(done)) => Poll::Ready(Ok(done)),
        Poll::Ready(Err(StreamOver::Ended)) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        Poll::Ready(Err(StreamOver::Lost)) | Poll::Pending => {
            *writer = Some(context.waker().clone());
            Poll::Pending
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

    /// What was written is on its way already, and is sent again if it gets lost there.
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
