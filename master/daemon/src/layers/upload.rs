//! Receiving a blob: within credit, onto disk, hashed on the way, resumable.
//!
//! ```text
//!   ReceiveLayer ─▶ open partial, re-hash ─▶ UploadReady ─▶ Data* ─▶ Close(Done) ─▶ verify, fsync,
//!   rename ─▶ UploadEnded ─(performed)─▶ Close(Done or Failed)
//! ```
//! Owner: one task an upload. Invariant: one task at a time has a partial file: a second upload of
//! the same blob by the same account ends the first and goes on where it was (a client that lost its
//! connection is back before the master has noticed). Next: [`super::disk`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use teu_master_core::{ConnectionId, Input};
use teu_protocol::{
    flow::ReceiveWindow,
    ids::{Digest, PublicKey, RequestId, StreamId},
    message::{Refusal, RefusalCode, StreamEnd, StreamFrame},
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Transfers, UploadKey, disk, disk::Partial};
use crate::{
    bounds::{MAX_LAYER_BYTES, UPLOAD_BATCH_BYTES, UPLOAD_QUEUE, UPLOAD_WINDOW_BYTES, UPLOADS},
    peer::Peer,
    stream::Stream,
};

/// What the core ordered.
#[derive(Debug, Clone)]
pub(crate) struct UploadOrder {
    pub(crate) peer: Arc<Peer>,
    pub(crate) account: PublicKey,
    pub(crate) request: RequestId,
    pub(crate) stream: StreamId,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// An upload's entry in its connection's stream table.
#[derive(Debug)]
pub(crate) struct Upload {
    window: Mutex<ReceiveWindow>,
    pieces: mpsc::Sender<Piece>,
    cancelled: CancellationToken,
}

/// An upload that holds its partial file.
#[derive(Debug)]
pub(super) struct ActiveUpload {
    cancelled: CancellationToken,
    finished: watch::Receiver<()>,
    remaining: u64,
}

/// What the client says on the stream.
#[derive(Debug)]
enum Piece {
    Bytes(Bytes),
    /// It has sent all, or gave up.
    Closed(StreamEnd),
}

impl Upload {
    /// Takes a frame from the client. `false` if it broke the stream's rules: the upload ends.
    pub(crate) async fn accept(&self, frame: StreamFrame, bulk: Vec<Bytes>) -> bool {
        let piece = match frame {
            StreamFrame::Data { .. } => {
                for bytes in bulk.into_iter().filter(|bytes| !bytes.is_empty()) {
                    if self.window().received(bytes.len() as u64).is_err() {
                        return false;
                    }
                    // A task that ended has told the client already.
                    let _ = self.pieces.send(Piece::Bytes(bytes)).await;
                }
                return true;
            }
            StreamFrame::Close { end, .. } => Piece::Closed(end),
            StreamFrame::Eof { .. } => return true,
            StreamFrame::Credit { .. } => return false,
        };
        let _ = self.pieces.send(piece).await;
        true
    }

    fn window(&self) -> MutexGuard<'_, ReceiveWindow> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the upload; what was received is kept for a while.
    pub(crate) fn cancel(&self) {
        self.cancelled.cancel();
    }
}

/// Why an upload ended early.
enum Ended {
    /// The client is gone, or gave up, or another upload took over.
    Abandoned,
    Refused(Refusal),
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Transfers {
    /// Starts to receive. Everything that follows is told to the core as inputs.
    pub(crate) fn receive(&self, order: UploadOrder) {
        let this = self.clone();
        let cancelled = self.cache.stop.child_token();
        self.cache
            .tasks
            .spawn(async move { this.run_upload(order, cancelled).await });
    }

    async fn run_upload(self, order: UploadOrder, cancelled: CancellationToken) {
        let key = (order.digest, order.account);
        let (finished, finished_seen) = watch::channel(());
        let (connection, request) = (order.peer.id, order.request);
        let claimed = self.claim(key, &order, &cancelled, finished_seen).await;
        let opened = match claimed {
            Ok(()) => self.open_partial(key, order.size).await,
            Err(refusal) => {
                self.upload_ready(connection, request, Err(refusal)).await;
                return;
            }
        };
        let outcome = match opened {
            Ok(partial) => self.receive_all(&order, partial, &cancelled).await,
            Err(refusal) => {
                self.upload_ready(connection, request, Err(refusal)).await;
                self.release(key, finished);
                return;
            }
        };
        order.peer.streams.remove(order.stream);
        self.release(key, finished);
        let (result, end) = match outcome {
            Ok(size) => (Ok(size), StreamEnd::Done),
            Err(Ended::Refused(refusal)) => (Err(refusal.clone()), StreamEnd::Failed(refusal)),
            Err(Ended::Abandoned) => (Err(abandoned()), StreamEnd::Failed(abandoned())),
        };
        let (stream, digest) = (order.stream, order.digest);
        let ended = Input::UploadEnded {
            connection,
            stream,
            digest,
            result,
        };
        self.broker.tell_and_wait(ended).await;
        order.peer.push_close(stream, end);
    }

    /// Becomes the only upload of this blob by this account.
    async fn claim(
        &self,
        key: UploadKey,
        order: &UploadOrder,
        cancelled: &CancellationToken,
        finished: watch::Receiver<()>,
    ) -> Result<(), Refusal> {
        if order.size > MAX_LAYER_BYTES {
            return Err(refused(
                RefusalCode::LimitReached,
                "The layer is larger than 64 GiB.",
            ));
        }
        loop {
            let mut earlier = {
                let mut active = self
                    .cache
                    .active
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                match active.get(&key) {
                    Some(earlier) => {
                        earlier.cancelled.cancel();
                        earlier.finished.clone()
                    }
                    None if active.len() >= UPLOADS => {
                        return Err(refused(
                            RefusalCode::Unavailable,
                            "Too many layers are being uploaded to this location. Try again soon.",
                        ));
                    }
                    None => {
                        let promised: u64 = active.values().map(|other| other.remaining).sum();
                        let wanted = promised.saturating_add(order.size);
                        check_room(&self.cache.partials, wanted)?;
                        let cancelled = cancelled.clone();
                        let remaining = order.size;
                        active.insert(
                            key,
                            ActiveUpload {
                                cancelled,
                                finished,
                                remaining,
                            },
                        );
                        return Ok(());
                    }
                }
            };
            // Ends with an error as soon as the earlier upload has let go.
            let _ = earlier.changed().await;
        }
    }

    fn release(&self, key: UploadKey, finished: watch::Sender<()>) {
        self.cache
            .active
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&key);
        drop(finished);
    }

    async fn open_partial(&self, key: UploadKey, size: u64) -> Result<Partial, Refusal> {
        let path = self.cache.partial(key);
        blocking(move || Partial::open(path, size)).await
    }

    async fn receive_all(
        &self,
        order: &UploadOrder,
        mut partial: Partial,
        cancelled: &CancellationToken,
    ) -> Result<u64, Ended> {
        let (sender, mut pieces) = mpsc::channel(UPLOAD_QUEUE);
        let upload = Upload {
            window: Mutex::new(ReceiveWindow::new(UPLOAD_WINDOW_BYTES)),
            pieces: sender,
            cancelled: cancelled.clone(),
        };
        let upload = Arc::new(upload);
        order
            .peer
            .streams
            .insert(order.stream, Stream::Upload(Arc::clone(&upload)));
        let offset = partial.length();
        let ready = Ok((offset, UPLOAD_WINDOW_BYTES));
        self.upload_ready(order.peer.id, order.request, ready).await;
        let mut complete = false;
        let mut end = None;
        while !complete && end.is_none() {
            let piece = tokio::select! {
                biased;
                () = cancelled.cancelled() => return Err(Ended::Abandoned),
                () = order.peer.gone.cancelled() => return Err(Ended::Abandoned),
                piece = pieces.recv() => piece.ok_or(Ended::Abandoned)?,
            };
            let mut batch = Vec::new();
            let mut bytes = 0;
            let mut next = Some(piece);
            while let Some(piece) = next.take() {
                match piece {
                    Piece::Bytes(piece) => {
                        bytes += piece.len();
                        batch.push(piece);
                    }
                    Piece::Closed(how) => end = Some(how),
                }
                if bytes < UPLOAD_BATCH_BYTES && end.is_none() {
                    next = pieces.try_recv().ok();
                }
            }
            if partial.length() + bytes as u64 > order.size {
                return Err(too_long().into());
            }
            partial = append(partial, batch).await?;
            let grant = upload.window().consumed(bytes as u64);
            if let Some(bytes) = grant {
                order.peer.outbox.push_credit(order.stream, bytes);
            }
            complete = end == Some(StreamEnd::Done);
        }
        if !complete {
            return Err(Ended::Abandoned);
        }
        if partial.length() < order.size {
            return Err(too_short().into());
        }
        let (digest, target) = (order.digest, self.cache.blob(order.digest));
        if blocking(move || partial.finish(digest, &target)).await? {
            Ok(order.size)
        } else {
            Err(mismatch().into())
        }
    }

    async fn upload_ready(
        &self,
        connection: ConnectionId,
        request: RequestId,
        result: Result<(u64, u64), Refusal>,
    ) {
        self.broker
            .tell_and_wait(Input::UploadReady {
                connection,
                request,
                result,
            })
            .await;
    }
}

async fn append(mut partial: Partial, pieces: Vec<Bytes>) -> Result<Partial, Refusal> {
    blocking(move || {
        partial.append(&pieces)?;
        Ok(partial)
    })
    .await
}

fn check_room(directory: &std::path::Path, wanted: u64) -> Result<(), Refusal> {
    match disk::has_room(directory, wanted) {
        Ok(true) => Ok(()),
        Ok(false) => Err(refused(
            RefusalCode::LimitReached,
            "The location has too little free disk space for this layer. \
             Remove images that are not needed, or ask its administrator.",
        )),
        Err(error) => Err(disk_failed(&error)),
    }
}

/// Runs file work on a blocking thread; its failures become refusals.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(|error| disk_failed(&error)),
        Err(_) => Err(refused(
            RefusalCode::Internal,
            "The location's layer cache failed.",
        )),
    }
}

fn disk_failed(error: &std::io::Error) -> Refusal {
    tracing::error!(%error, "the layer cache's disk failed");
    refused(
        RefusalCode::Internal,
        "The location's layer cache could not use its disk. Its administrator finds the reason in \
         the master's log.",
    )
}

fn refused(code: RefusalCode, message: &str) -> Refusal {
    Refusal::new(code, message)
}

fn abandoned() -> Refusal {
    refused(
        RefusalCode::Unavailable,
        "The upload was broken off. Upload the layer again to resume.",
    )
}

fn too_long() -> Refusal {
    refused(
        RefusalCode::BadRequest,
        "More bytes were sent than the layer was said to have.",
    )
}

fn too_short() -> Refusal {
    refused(
        RefusalCode::BadRequest,
        "Fewer bytes were sent than the layer was said to have.",
    )
}

fn mismatch() -> Refusal {
    refused(
        RefusalCode::DigestMismatch,
        "The layer that arrived does not have the digest that was promised: it was damaged on its \
         way or at its source. Upload it again.",
    )
}
