//! A snapshot as bytes.
//!
//! Invariant: the reader is at its end only when the location has said that it sent all; a lost
//! link, a refusal or a cut stream is an error, and stays one.

use std::{
    ffi::OsString,
    future::poll_fn,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
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
    stream::{Stream, StreamItem, Unread},
};

use super::PATIENCE;

const ATTEMPT: &str = "export the volume";

/// A snapshot being read; see [`super::Volume::export`]. Dropping it ends the export. It is a
/// [`tokio::io::AsyncRead`] too: what other code reads is whole if it reads to the end without an error.
#[derive(Debug)]
pub struct VolumeExport {
    state: State,
    unread: Unread,
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
                unread: Unread::default(),
            }),
            _ => Err(Error::Nonsense { attempt: ATTEMPT }),
        }
    }

    /// The next bytes; `None` when all were read. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::LinkLost`], [`Error::Cut`], [`Error::Refused`]: what was read is not the whole.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let there_are = poll_fn(|context| self.poll_bytes(context)).await?;
        Ok(there_are.then(|| self.unread.take()))
    }

    /// Writes all of it to `into`, telling `told` of each piece's length in bytes; gives the sum.
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
    /// whole and on the disk. A failed export removes the `.part` and leaves `path` as it was. Gives the
    /// length in bytes; `told` as in [`VolumeExport::write_to`].
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

    /// Whether there are bytes to be read, or the end was reached.
    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Result<bool>> {
        while !self.unread.has_bytes() {
            let stream = match &mut self.state {
                State::Open(stream) => stream,
                State::Whole => return Poll::Ready(Ok(false)),
                State::Failed => return Poll::Ready(Err(Error::Cut { attempt: ATTEMPT })),
            };
            let failure = match ready!(stream.reader.poll_next(context)) {
                StreamItem::Data(chunk) => {
                    self.unread.put(chunk);
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
        Poll::Ready(Ok(true))
    }
}

impl AsyncRead for VolumeExport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if ready!(this.poll_bytes(context)).map_err(io::Error::other)? {
            this.unread.read(into);
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
