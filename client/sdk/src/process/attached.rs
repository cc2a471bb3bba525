//! Output that is read over as many connections as it takes.
//!
//! Owner: a [`super::Process`], its pump or [`crate::Logs`]. Invariant: each byte is handed out once, in
//! order: after a reconnect, of ours or of the node, the stream is opened again at the cursor behind
//! the last byte that arrived.

use std::{sync::Arc, time::Duration};

use teu_protocol::{
    ids::{ContainerId, ProcessId},
    message::{LogStart, RefusalCode, ReplyBody, StreamEnd},
};
use tokio::time::sleep;

use super::stdin::StdinSlot;
use crate::{
    error::{Error, Result},
    session::{Patience, SessionHandle, StreamAsk},
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
    End(StreamEnd),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct AttachedReader {
    session: SessionHandle,
    source: Source,
    from: LogStart,
    stream: Option<StreamReader>,
    /// The window of the stream that was lost.
    lost: Option<Arc<RecvWindow>>,
    stdin: Option<Arc<StdinSlot>>,
}

impl AttachedReader {
    pub(crate) const fn new(session: SessionHandle, source: Source, from: LogStart) -> Self {
        Self {
            session,
            source,
            from,
            stream: None,
            lost: None,
            stdin: None,
        }
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

    const fn ask(&self) -> StreamAsk {
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
        let ReplyBody::Opened { window } = reply else {
            return Err(Error::Nonsense { attempt });
        };
        let Stream { reader, writer } = stream;
        self.stream = Some(reader);
        self.lost = None;
        if let Some(slot) = &self.stdin {
            slot.opened(writer, window);
        }
        Ok(())
    }

    /// The next bytes, or the end. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Item> {
        loop {
            let Some(stream) = &mut self.stream else {
                self.reopen().await?;
                continue;
            };
            match stream.next().await {
                StreamItem::Data(chunk) => {
                    self.from = LogStart::Cursor(chunk.cursor);
                    return Ok(Item::Data(chunk));
                }
                StreamItem::Eof => {}
                // The node's link broke, or its agent restarts: the process goes on.
                StreamItem::End(StreamEnd::Failed(why)) if why.code == RefusalCode::NodeLost => {
                    self.lose()?;
                }
                StreamItem::End(end) => {
                    if let Some(slot) = &self.stdin {
                        slot.ended();
                    }
                    return Ok(Item::End(end));
                }
                StreamItem::Lost => self.lose()?,
            }
        }
    }

    /// The stream is gone, and will be opened again.
    fn lose(&mut self) -> Result<()> {
        self.lost = self.stream.take().map(|reader| Arc::clone(reader.window()));
        self.stdin.as_ref().map_or(Ok(()), |slot| slot.link_lost())
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
    }
}
