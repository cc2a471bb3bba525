//! What a container wrote, as a stream that survives reconnects.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{Stream, stream};
use teu_protocol::message::{Channel, LogStart, StreamEnd};

use crate::{
    Container,
    error::{Error, Result},
    process::{AttachedReader, Item, Source},
    stream::Chunk,
};

const ATTEMPT: &str = "read the output";

/// Bytes that a process wrote together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputChunk {
    /// `Stdout` or `Stderr`. (All is `Stdout` if the process has a terminal.)
    pub channel: Channel,
    /// What it wrote. Not cut at line ends, nor at characters.
    pub bytes: Bytes,
    /// Where its first byte is: how many bytes the process wrote before it.
    pub start: u64,
    /// Where the next byte is: [`LogStart::Cursor`] with this goes on behind this chunk.
    pub cursor: u64,
}

impl OutputChunk {
    pub(crate) fn from_chunk(chunk: &Chunk) -> Self {
        let bytes = chunk.joined();
        let length = bytes.len() as u64;
        Self {
            channel: chunk.channel,
            bytes,
            start: chunk.from.unwrap_or(chunk.cursor.saturating_sub(length)),
            cursor: chunk.cursor,
        }
    }
}

/// A stream of [`OutputChunk`]s; see [`Container::logs`]. It ends when all was read (and, if
/// following, the process has ended). [`Error::OutputLost`] says that bytes are missing here, and what is
/// behind them follows; any other `Err` is the last item.
pub struct Logs {
    chunks: Pin<Box<dyn Stream<Item = Result<OutputChunk>> + Send>>,
}

impl Logs {
    pub(crate) async fn open(container: Container, from: LogStart, follow: bool) -> Result<Self> {
        let source = Source::Logs {
            container: container.id(),
            follow,
        };
        let mut reader = AttachedReader::new(container.session.clone(), source, from);
        reader.open().await?;
        let chunks = stream::unfold(Some(reader), |reader| async {
            let mut reader = reader?;
            match reader.next().await {
                Ok(Item::Data(chunk)) => Some((Ok(OutputChunk::from_chunk(&chunk)), Some(reader))),
                Ok(Item::Lost(bytes)) => Some((Err(Error::OutputLost { bytes }), Some(reader))),
                Ok(Item::End(StreamEnd::Done | StreamEnd::Exited(_))) => None,
                Ok(Item::End(end)) => Some((Err(broken(end)), None)),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(Self {
            chunks: Box::pin(chunks),
        })
    }
}

impl Stream for Logs {
    type Item = Result<OutputChunk>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.chunks.as_mut().poll_next(context)
    }
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logs").finish_non_exhaustive()
    }
}

fn broken(end: StreamEnd) -> Error {
    match end {
        StreamEnd::Failed(refusal) => Error::Refused {
            attempt: ATTEMPT,
            refusal,
        },
        StreamEnd::Done | StreamEnd::Exited(_) | StreamEnd::Reset => {
            Error::Nonsense { attempt: ATTEMPT }
        }
    }
}
