//! A volume from bytes that an export gave.
//!
//! Invariant: it is imported when the node has said so; a reader that fails, or a builder that is
//! dropped, resets the stream, and the node leaves nothing of it.

use std::{
    collections::VecDeque,
    future::{Future, IntoFuture},
    pin::Pin,
    time::Duration,
};

use bytes::Bytes;
use teu_protocol::{
    ids::VolumeId,
    message::{Channel, ImportTarget, ReplyBody, RequestBody, StreamEnd},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::timeout,
};

use super::{PATIENCE, Volume};
use crate::{
    error::{Error, Result},
    session::{Patience, SessionHandle, StreamAsk},
    stream::{Stream, StreamItem, StreamReader, StreamWriter},
};

const ATTEMPT: &str = "import the volume";

/// What is read at once.
const READ_BYTES: usize = 256 * 1024;

/// Writing out what arrived may take long on a slow disk.
const SETTLE: Duration = Duration::from_secs(600);

/// Describes an import; made by [`super::VolumeBuilder::import_from`] and [`Volume::import_from`].
/// Await it (or [`ImportBuilder::start`], which also takes a reader that is borrowed).
#[derive(Debug)]
#[must_use = "nothing is imported until this is awaited"]
pub struct ImportBuilder<R> {
    session: SessionHandle,
    target: Result<ImportTarget>,
    reader: R,
}

impl<R: AsyncRead + Unpin + Send> ImportBuilder<R> {
    pub(super) const fn new(
        session: SessionHandle,
        target: Result<ImportTarget>,
        reader: R,
    ) -> Self {
        Self {
            session,
            target,
            reader,
        }
    }

    pub(super) const fn into_volume(session: SessionHandle, volume: VolumeId, reader: R) -> Self {
        Self::new(session, Ok(ImportTarget::Into(volume)), reader)
    }

    /// Reads to the end and waits until all is durable; a failure leaves nothing of a new volume,
    /// and an old one as it was.
    ///
    /// # Errors
    /// [`Error::Refused`] with `BadRequest` (not an export, damaged, of another location, or its base is
    /// not there), `Busy`, `NoSpace`, `TagTaken`; [`Error::Io`] if reading failed;
    /// [`Error::LinkLost`]: not resumed, import again.
    pub async fn start(self) -> Result<Volume> {
        let Self {
            session,
            target,
            mut reader,
        } = self;
        let ask = StreamAsk::Import(target?);
        let (stream, reply) = session.open(ATTEMPT, ask, PATIENCE).await?;
        let ReplyBody::Importing { volume, .. } = reply else {
            return Err(Error::Nonsense { attempt: ATTEMPT });
        };
        send(stream, &mut reader).await?;
        let body = RequestBody::FindVolume(volume.to_string());
        match session.request(ATTEMPT, body, Patience::USUAL).await? {
            ReplyBody::Volume(info) => Ok(Volume::new(session, *info)),
            _ => Err(Error::Nonsense { attempt: ATTEMPT }),
        }
    }
}

impl<R: AsyncRead + Unpin + Send + 'static> IntoFuture for ImportBuilder<R> {
    type Output = Result<Volume>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}

async fn send(stream: Stream, from: &mut (impl AsyncRead + Unpin)) -> Result<()> {
    let Stream {
        mut reader,
        mut writer,
    } = stream;
    let mut block = vec![0; READ_BYTES];
    loop {
        // The far side may say no while we wait for bytes: from a terminal they may never come.
        let read = tokio::select! {
            read = from.read(&mut block) => read,
            end = ended(&mut reader) => {
                // Done before we said so: it did not get all.
                return end.and(Err(Error::Nonsense { attempt: ATTEMPT }));
            }
        };
        let length = match read {
            Ok(0) => break,
            Ok(length) => length,
            Err(source) if source.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(source) => {
                // Half of it must not look like the whole.
                let _ = writer.close(StreamEnd::Reset).await;
                return Err(read_failed(source));
            }
        };
        let bytes = Bytes::copy_from_slice(block.get(..length).unwrap_or_default());
        if !put(&mut writer, bytes).await {
            return ended(&mut reader)
                .await
                .and(Err(Error::Cut { attempt: ATTEMPT }));
        }
    }
    // Not a Close, which would end the stream before the node has had its say. An error here means
    // that the far side has closed it: it says why.
    let _ = writer.eof(Channel::Main).await;
    timeout(SETTLE, ended(&mut reader))
        .await
        .map_err(|_| Error::Timeout {
            attempt: ATTEMPT,
            waited: SETTLE,
        })?
}

/// Whether all of it was taken.
async fn put(writer: &mut StreamWriter, bytes: Bytes) -> bool {
    let mut parts = VecDeque::from([bytes]);
    writer.send(Channel::Main, &mut parts).await.is_ok()
}

/// What the node says of it. Cancel-safe.
async fn ended(reader: &mut StreamReader) -> Result<()> {
    loop {
        return match reader.next().await {
            StreamItem::Data(_) | StreamItem::Eof => continue,
            StreamItem::End(StreamEnd::Done) => Ok(()),
            StreamItem::End(StreamEnd::Failed(refusal)) => Err(Error::Refused {
                attempt: ATTEMPT,
                refusal,
            }),
            StreamItem::End(StreamEnd::Reset | StreamEnd::Exited(_)) => {
                Err(Error::Cut { attempt: ATTEMPT })
            }
            StreamItem::Lost => Err(Error::LinkLost { attempt: ATTEMPT }),
        };
    }
}

/// An export that is read tells by itself what went wrong.
fn read_failed(source: std::io::Error) -> Error {
    match source.downcast::<Error>() {
        Ok(error) => error,
        Err(source) => Error::Io {
            attempt: "read the exported volume",
            source,
        },
    }
}
