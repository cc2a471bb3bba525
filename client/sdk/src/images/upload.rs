//! Sends an image: the layers that the location lacks, a few at a time, then the catalogue entry.
//!
//! Invariant: a layer counts as sent when the location has verified it and said so. A link that is
//! lost midway costs only what the location had not stored yet: it tells the offset to go on from.

use std::{
    collections::VecDeque,
    io::{Read as _, Seek as _, SeekFrom},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{TryStreamExt as _, stream};
use teu_protocol::{
    ids::Digest,
    message::{Channel, ImageInfo, ReplyBody, RequestBody, StreamEnd},
};
use tokio::sync::mpsc;

use crate::{
    Progress, ProgressEvent,
    error::{Error, Result},
    image::{ImageError, ImageSource, SourceLayer},
    session::{Patience, SessionHandle, StreamAsk},
    stream::{Stream, StreamItem, StreamReader},
};

/// Layers that travel at a time.
const PARALLEL: usize = 3;

/// What is read from the image at once.
const READ_BYTES: usize = 256 * 1024;

/// Reads that may wait for the link.
const READS_AHEAD: usize = 4;

/// Attempts at one layer that brought nothing new, before giving up.
const FRUITLESS_ATTEMPTS: u32 = 5;

/// The location may have to hash what it has, or check the config.
const CATALOGUE_WORK: Duration = Duration::from_secs(120);

const ATTEMPT: &str = "upload the image";

/// Sends what is missing, and enters the image into the catalogue under the source's names.
pub(super) async fn upload(
    session: &SessionHandle,
    source: &ImageSource,
    shown: &str,
    progress: &Arc<dyn Progress>,
) -> Result<ImageInfo> {
    let missing = missing(session, source).await?;
    let total_bytes = missing.iter().map(|layer| layer.size).sum();
    if !missing.is_empty() {
        progress.on_event(ProgressEvent::Uploading {
            image: shown.to_owned(),
            total_bytes,
        });
    }
    stream::iter(missing.into_iter().map(Ok))
        .try_for_each_concurrent(PARALLEL, |layer| {
            LayerUpload::new(session, layer, progress).run()
        })
        .await?;
    let body = RequestBody::AddImage {
        manifest: source.manifest(),
        names: source.names.clone(),
    };
    match session
        .request(ATTEMPT, body, Patience::with_work(CATALOGUE_WORK))
        .await?
    {
        ReplyBody::Image(image) => Ok(image),
        _ => Err(Error::Nonsense { attempt: ATTEMPT }),
    }
}

async fn missing<'a>(
    session: &SessionHandle,
    source: &'a ImageSource,
) -> Result<Vec<&'a SourceLayer>> {
    let mut digests: Vec<Digest> = source.layers.iter().map(|layer| layer.digest).collect();
    digests.sort_unstable();
    digests.dedup();
    match session
        .request(
            ATTEMPT,
            RequestBody::MissingLayers(digests),
            Patience::USUAL,
        )
        .await?
    {
        ReplyBody::Layers(missing) => Ok(missing
            .iter()
            .filter_map(|digest| source.layer(digest))
            .collect()),
        _ => Err(Error::Nonsense { attempt: ATTEMPT }),
    }
}

struct LayerUpload<'a> {
    session: &'a SessionHandle,
    layer: &'a SourceLayer,
    progress: &'a Arc<dyn Progress>,
    /// How far was told.
    told: u64,
}

/// How one attempt ended.
enum Attempt {
    Stored,
    /// The link was lost.
    Again,
}

impl<'a> LayerUpload<'a> {
    const fn new(
        session: &'a SessionHandle,
        layer: &'a SourceLayer,
        progress: &'a Arc<dyn Progress>,
    ) -> Self {
        Self {
            session,
            layer,
            progress,
            told: 0,
        }
    }

    async fn run(mut self) -> Result<()> {
        let mut fruitless = 0;
        loop {
            let before = self.told;
            match self.attempt().await {
                Ok(Attempt::Stored) => {
                    self.tell(self.layer.size);
                    return Ok(());
                }
                Ok(Attempt::Again) => {}
                Err(error) if !error.is_retryable() => return Err(error),
                Err(error) if fruitless >= FRUITLESS_ATTEMPTS => return Err(error),
                Err(_) => {}
            }
            fruitless = if self.told > before { 0 } else { fruitless + 1 };
            if fruitless > FRUITLESS_ATTEMPTS {
                return Err(Error::LinkLost { attempt: ATTEMPT });
            }
        }
    }

    async fn attempt(&mut self) -> Result<Attempt> {
        let SourceLayer { digest, size, .. } = *self.layer;
        let ask = StreamAsk::Upload { digest, size };
        let (stream, reply) = self.session.open(ATTEMPT, ask, Patience::USUAL).await?;
        let ReplyBody::Upload { offset, .. } = reply else {
            return Err(Error::Nonsense { attempt: ATTEMPT });
        };
        let Stream {
            mut reader,
            mut writer,
        } = stream;
        if offset >= size {
            writer.never_opened();
            return Ok(Attempt::Stored);
        }
        self.tell(offset);
        let mut blocks = read_blocks(self.layer.clone(), offset);
        let (mut parts, mut at) = (VecDeque::new(), offset);
        while let Some(block) = blocks.recv().await {
            let block = block?;
            at += block.len() as u64;
            parts.push_back(block);
            if writer.send(Channel::Main, &mut parts).await.is_err() {
                return self.ended(&mut reader).await;
            }
            self.tell(at);
        }
        if writer.close(StreamEnd::Done).await.is_err() {
            return self.ended(&mut reader).await;
        }
        self.ended(&mut reader).await
    }

    /// What the location says of the blob.
    async fn ended(&self, reader: &mut StreamReader) -> Result<Attempt> {
        loop {
            match reader.next().await {
                StreamItem::Data(_) | StreamItem::Eof => {}
                StreamItem::End(StreamEnd::Done) => return Ok(Attempt::Stored),
                StreamItem::End(StreamEnd::Failed(refusal)) => {
                    return Err(Error::Refused {
                        attempt: ATTEMPT,
                        refusal,
                    });
                }
                StreamItem::End(StreamEnd::Reset | StreamEnd::Exited(_)) => {
                    return Err(Error::Nonsense { attempt: ATTEMPT });
                }
                StreamItem::Lost => return Ok(Attempt::Again),
            }
        }
    }

    /// Tells of progress; what is sent a second time is not progress.
    fn tell(&mut self, at: u64) {
        if at > self.told {
            self.progress.on_event(ProgressEvent::Sent {
                bytes: at - self.told,
            });
            self.told = at;
        }
    }
}

/// Reads the blob on a thread that may block; ends when nobody listens any more.
fn read_blocks(layer: SourceLayer, offset: u64) -> mpsc::Receiver<Result<Bytes>> {
    let (blocks, read) = mpsc::channel(READS_AHEAD);
    tokio::task::spawn_blocking(move || {
        let failed = |source| {
            let what = format!("layer {}", layer.digest.short());
            Error::Image(ImageError::Read { what, source })
        };
        let mut reader = layer.open();
        if let Err(error) = reader.seek(SeekFrom::Start(offset)) {
            let _ = blocks.blocking_send(Err(failed(error)));
            return;
        }
        loop {
            let mut block = vec![0; READ_BYTES];
            match reader.read(&mut block) {
                Ok(0) => return,
                Ok(count) => {
                    block.truncate(count);
                    if blocks.blocking_send(Ok(block.into())).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let _ = blocks.blocking_send(Err(failed(error)));
                    return;
                }
            }
        }
    });
    read
}
