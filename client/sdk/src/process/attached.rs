//! Output that is read over as many connections as it takes.
//!
//! Owner: a [`super::Process`], its pump or [`crate::Logs`]. Invariant: each byte is handed out once, in
//! order, and a gap is told: after a reconnect, of ours or of the node, the stream is opened again at the
//! cursor behind the last byte that arrived. A process waits for its reader until the reader leaves.

use std::{future::poll_fn, sync::Arc, time::Duration};

use teu_protocol::{
    ids::{ContainerId, ProcessId, ReaderId},
    message::{LogStart, RefusalCode, ReplyBody, StreamEnd},
};
use tokio::time::sleep;

use super::stdin::StdinSlot;
use crate::{
    error::{Error, Result},
    session::{Claim, Patience, SessionHandle, StreamAsk},
    stream::{Chunk, RecvWindow, Stream, StreamItem, StreamReader},
};

/// A reader that is far behind when the link is lost opens its new stream only when it has
/// caught up by half; it looks this often.
const CATCH_UP_LOOK: Duration = Duration::from_millis(20);

/// What is read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    Attach {
        container: ContainerId,
        process: Option<ProcessId>,
        lossless: bool,
    },
    Logs {
        container: ContainerId,
        follow: bool,
    },
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Item {
    Data(Chunk),
    /// So many bytes are missing here.
    Lost(u64),
    End(StreamEnd),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct AttachedReader {
    session: SessionHandle,
    source: Source,
    from: LogStart,
    claim: Claim,
    /// Where the next byte is due; `None`: wherever the location begins.
    at: Option<u64>,
    /// What comes behind a gap that was just told.
    behind: Option<Chunk>,
    stream: Option<StreamReader>,
    /// The window of the stream that was lost.
    lost: Option<Arc<RecvWindow>>,
    stdin: Option<Arc<StdinSlot>>,
    /// The location has a place for it, for which the process waits.
    has_place: bool,
}

impl AttachedReader {
    pub(crate) fn new(session: SessionHandle, source: Source, from: LogStart) -> Self {
        let at = match from {
            LogStart::Cursor(cursor) => Some(cursor),
            LogStart::Oldest | LogStart::Now | LogStart::Tail(_) => None,
        };
        Self {
            session,
            source,
            from,
            claim: Claim::new(Claim::fresh_reader()),
            at,
            behind: None,
            stream: None,
            lost: None,
            stdin: None,
            has_place: false,
        }
    }

    /// The place that was given to this name when the process was started.
    pub(super) fn at_place(mut self, reader: ReaderId) -> Self {
        self.claim = Claim::new(reader);
        self.has_place = true;
        self
    }

    pub(super) fn with_stdin(mut self, slot: Arc<StdinSlot>) -> Self {
        self.stdin = Some(slot);
        self
    }

    const fn attempt(&self) -> &'static str {
        match self.source {
            Source::Attach { .. } => "attach to the process",
            Source::Logs { .. } => "read the output",
        }
    }

    fn ask(&self) -> StreamAsk {
        match self.source {
            Source::Attach {
                container,
                process,
                lossless,
            } => StreamAsk::Attach {
                container,
                process,
                from: self.from,
                lossless,
                claim: self.claim.clone(),
            },
            Source::Logs { container, follow } => StreamAsk::Logs {
                container,
                from: self.from,
                follow,
            },
        }
    }

    /// Opens the stream, on the present or the next connection. Cancel-safe.
    pub(crate) async fn open(&mut self) -> Result<()> {
        while self
            .lost
            .as_ref()
            .is_some_and(|window| window.held() > window.size() / 2)
        {
            sleep(CATCH_UP_LOOK).await;
        }
        let attempt = self.attempt();
        let (stream, reply) = self
            .session
            .open(attempt, self.ask(), Patience::USUAL)
            .await?;
        let ReplyBody::Opened { window, input } = reply else {
            return Err(Error::Nonsense { attempt });
        };
        let Stream { reader, writer } = stream;
        self.stream = Some(reader);
        self.lost = None;
        self.has_place = matches!(self.source, Source::Attach { .. });
        match &self.stdin {
            Some(slot) => slot.opened(writer, window, input),
            None => Ok(()),
        }
    }

    /// The next bytes, or the end. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Item> {
        if let Some(chunk) = self.behind.take() {
            return Ok(Item::Data(chunk));
        }
        loop {
            let Some(stream) = &mut self.stream else {
                self.reopen().await?;
                continue;
            };
            let stdin = self.stdin.as_ref();
            let next = poll_fn(|context| {
                if let Some(slot) = stdin {
                    slot.drive(context);
                }
                stream.poll_next(context)
            });
            match next.await {
                StreamItem::Data(chunk) => {
                    if let Some(item) = self.arrived(chunk)? {
                        return Ok(item);
                    }
                }
                StreamItem::Eof => {}
                // The node's link broke, or its agent restarts: the process goes on.
                StreamItem::End(StreamEnd::Failed(why)) if why.code == RefusalCode::NodeLost => {
                    self.lose();
                }
                StreamItem::End(end) => {
                    self.has_place = false;
                    if let Some(slot) = &self.stdin {
                        slot.ended();
                    }
                    return Ok(Item::End(end));
                }
                StreamItem::Lost => self.lose(),
            }
        }
    }

    /// Follows the cursors: what begins behind the byte that is due leaves a gap.
    fn arrived(&mut self, chunk: Chunk) -> Result<Option<Item>> {
        let lost = match (self.at, chunk.from) {
            (Some(due), Some(from)) => from.checked_sub(due).ok_or(Error::Nonsense {
                attempt: self.attempt(),
            })?,
            _ => 0,
        };
        self.at = Some(chunk.cursor);
        self.from = LogStart::Cursor(chunk.cursor);
        let chunk = Some(chunk).filter(|chunk| !chunk.is_empty());
        if lost > 0 {
            self.behind = chunk;
            return Ok(Some(Item::Lost(lost)));
        }
        Ok(chunk.map(Item::Data))
    }

    /// The stream is gone, and will be opened again.
    fn lose(&mut self) {
        self.lost = self.stream.take().map(|reader| Arc::clone(reader.window()));
        if let Some(slot) = &self.stdin {
            slot.link_lost();
        }
    }

    /// A stream that is closed lets the process go on. Without one, a last one is opened for that.
    fn leave(&self) {
        if self.stream.is_some() || !self.has_place {
            return;
        }
        let (session, ask) = (self.session.clone(), self.ask());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                session
                    .open("leave the process", ask, Patience::USUAL)
                    .await
            });
        }
    }

    /// As [`AttachedReader::open`], but for as long as the session lives: a link that is away for
    /// long is no reason to give up.
    async fn reopen(&mut self) -> Result<()> {
        loop {
            match self.open().await {
                Err(error) if error.is_retryable() => {}
                Err(error) => {
                    if let Some(slot) = &self.stdin {
                        slot.ended();
                    }
                    return Err(error);
                }
                Ok(()) => return Ok(()),
            }
        }
    }
}

impl Drop for AttachedReader {
    fn drop(&mut self) {
        if let Some(slot) = &self.stdin {
            slot.ended();
        }
        self.leave();
    }
}
