//! A snapshot as bytes.
//!
//! Invariant: the reader is at its end only when the location has said that it sent all; a lost
//! link, a refusal or a cut stream is an error, and stays one.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use teu_protocol::{
    ids::{Tag, VolumeId},
    message::{ReplyBody, StreamEnd},
};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
};

use crate::{
    error::{Error, Result},
    session::{SessionHandle, StreamAsk},
    stream::{Chunk, Stream, StreamItem, StreamReader},
};

use super::PATIENCE;

const ATTEMPT: &str = "export the volume";

/// A snapshot being read; see [`super::Volume::export`]. Dropping it ends the export.
#[derive(Debug)]
pub struct VolumeExport {
    state: State,
    /// Being read; its bytes count as consumed when the last one is.
    chunk: Option<(Chunk, Bytes)>,
}

#[derive(Debug)]
enum State {
    /// The writer is held so that the stream is not closed before its time.
    Open(Box<Stream>),
    Whole,
    Failed,
}

impl VolumeExport {
    pub(super) async fn open(
        session: &SessionHandle,
        volume: VolumeId,
        snapshot: Tag,
        base: Option<Tag>,
    ) -> Result<Self> {
        let ask = StreamAsk::Export {
            volume,
            snapshot,
            base,
        };
        match session.open(ATTEMPT, ask, PATIENCE).await? {
            (stream, ReplyBody::Opened { .. }) => Ok(Self {
                state: State::Open(Box::new(stream)),
                chunk: None,
            }),
            _ => Err(Error::Nonsense { attempt: ATTEMPT }),
        }
    }

    /// The next bytes; `None` when all were read. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::LinkLost`], [`Error::Cut`], [`Error::Refused`]: what was read is not the whole.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let part = std::future::poll_fn(|context| {
            let part = ready!(self.poll_part(context));
            Poll::Ready(part.map(|part| part.map(std::mem::take)))
        });
        part.await
    }

    /// Writes all of it to `into`, telling `told` of each piece's length; gives the sum.
    ///
    /// # Errors
    /// As [`VolumeExport::next`]; [`Error::Io`] if `into` takes no more.
    pub async fn write_to(
        mut self,
        mut into: impl AsyncWrite + Unpin,
        mut told: impl FnMut(u64),
    ) -> Result<u64> {
        let failed = |source| Error::Io {
            attempt: "write the exported volume",
            source,
        };
        let mut sum = 0;
        while let Some(bytes) = self.next().await? {
            into.write_all(&bytes).await.map_err(failed)?;
            sum += bytes.len() as u64;
            told(bytes.len() as u64);
        }
        into.flush().await.map_err(failed)?;
        Ok(sum)
    }

    /// Writes all of it to a file: to `<path>.part` first, which gets its name when the export is
    /// whole and on the disk. A failed export removes the `.part` and leaves `path` as it was.
    ///
    /// # Errors
    /// As [`VolumeExport::write_to`].
    pub async fn save(self, path: impl AsRef<Path>, told: impl FnMut(u64)) -> Result<u64> {
        let path = path.as_ref();
        let part = Part(Some(part_of(path)));
        let saved = self.save_as(part.path(), path, told).await;
        if saved.is_ok() {
            part.keep();
        }
        saved
    }

    async fn save_as(self, part: &Path, path: &Path, told: impl FnMut(u64)) -> Result<u64> {
        let failed = |source| Error::Io {
            attempt: "write the exported volume",
            source,
        };
        let mut file = File::create(part).await.map_err(failed)?;
        let sum = self.write_to(&mut file, told).await?;
        file.sync_all().await.map_err(failed)?;
        drop(file);
        tokio::fs::rename(part, path).await.map_err(failed)?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let directory = File::open(directory).await.map_err(failed)?;
        directory.sync_all().await.map_err(failed)?;
        Ok(sum)
    }

    /// The bytes that are next, or `None` at the end.
    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<&mut Bytes>>> {
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
            let stream = match &mut self.state {
                State::Open(stream) => stream,
                State::Whole => return Poll::Ready(Ok(None)),
                State::Failed => return Poll::Ready(Err(Error::Cut { attempt: ATTEMPT })),
            };
            let reader: &mut StreamReader = &mut stream.reader;
            let failure = match ready!(reader.poll_next(context)) {
                StreamItem::Data(chunk) => {
                    self.chunk = Some((chunk, Bytes::new()));
                    continue;
                }
                // Not the end: that is a Close.
                StreamItem::Eof => continue,
                StreamItem::End(StreamEnd::Done) => {
                    self.state = State::Whole;
                    continue;
                }
                StreamItem::End(StreamEnd::Failed(refusal)) => Error::Refused {
                    attempt: ATTEMPT,
                    refusal,
                },
                StreamItem::End(StreamEnd::Reset | StreamEnd::Exited(_)) => {
                    Error::Cut { attempt: ATTEMPT }
                }
                StreamItem::Lost => Error::LinkLost { attempt: ATTEMPT },
            };
            self.state = State::Failed;
            return Poll::Ready(Err(failure));
        }
    }
}

impl AsyncRead for VolumeExport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(part) = ready!(self.get_mut().poll_part(context)).map_err(io::Error::other)? {
            let length = part.len().min(into.remaining());
            into.put_slice(part.get(..length).unwrap_or_default());
            part.advance(length);
        }
        Poll::Ready(Ok(()))
    }
}

/// Half a file: removed unless it became the whole one, also if the export is dropped midway.
struct Part(Option<PathBuf>);

impl Part {
    fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or_else(|| Path::new(""))
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(".part");
    name.into()
}
