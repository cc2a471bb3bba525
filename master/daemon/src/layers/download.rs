//! Sending a blob to a node: within its credit, several at once.
//!
//! Owner: one task a transfer. Invariant: no more is read from disk than the node's credit allows.
//! Next: [`super::disk`].

use std::{
    fs::File,
    io::Seek,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use teu_protocol::{
    flow::SendWindow,
    ids::{Digest, RequestId, StreamId},
    message::{Channel, MasterToNode, Refusal, RefusalCode, StreamEnd, StreamFrame},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Transfers, disk, upload::blocking};
use crate::{
    bounds::LAYER_CHUNK_BYTES,
    peer::{Peer, node_reads_too_slowly},
    stream::Stream,
};

/// What the core ordered.
#[derive(Debug, Clone)]
pub(crate) struct DownloadOrder {
    pub(crate) peer: Arc<Peer>,
    pub(crate) request: RequestId,
    pub(crate) stream: StreamId,
    pub(crate) digest: Digest,
    pub(crate) offset: u64,
    pub(crate) window: u64,
}

/// A transfer's entry in its connection's stream table.
#[derive(Debug)]
pub(crate) struct Download {
    credit: Mutex<SendWindow>,
    granted: Notify,
    cancelled: CancellationToken,
}

impl Download {
    /// Takes a frame from the node. `false` if it broke the stream's rules: the transfer ends.
    pub(crate) fn accept(&self, frame: &StreamFrame) -> bool {
        match frame {
            StreamFrame::Credit { bytes, .. } => {
                let granted = self.window().grant(*bytes).is_ok();
                self.granted.notify_one();
                granted
            }
            StreamFrame::Close { .. } => {
                self.cancel();
                true
            }
            StreamFrame::Eof { .. } => true,
            StreamFrame::Data { .. } => false,
        }
    }

    fn window(&self) -> MutexGuard<'_, SendWindow> {
        self.credit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the transfer.
    pub(crate) fn cancel(&self) {
        self.cancelled.cancel();
    }

    /// Takes up to `most` bytes of credit, at least one.
    async fn credit(&self, most: usize) -> u64 {
        loop {
            let taken = self.window().take(most as u64);
            match taken {
                0 => self.granted.notified().await,
                taken => return taken,
            }
        }
    }
}

impl Transfers {
    /// Starts to send.
    pub(crate) fn send(&self, order: DownloadOrder) {
        let this = self.clone();
        let cancelled = self.cache.stop.child_token();
        let download = Download {
            credit: Mutex::new(SendWindow::new(order.window)),
            granted: Notify::new(),
            cancelled: cancelled.clone(),
        };
        let download = Arc::new(download);
        order
            .peer
            .streams
            .insert(order.stream, Stream::Download(Arc::clone(&download)));
        self.cache.tasks.spawn(async move {
            let outcome = tokio::select! {
                biased;
                () = order.peer.gone.cancelled() => None,
                () = cancelled.cancelled() => None,
                outcome = this.run_download(&order, &download) => Some(outcome),
            };
            order.peer.streams.remove(order.stream);
            let end = match outcome {
                Some(Ok(())) => StreamEnd::Done,
                Some(Err(Some(refusal))) => StreamEnd::Failed(refusal),
                // Refused by its LayerReply, or nobody listens any more.
                Some(Err(None)) | None => return,
            };
            order.peer.push_close(order.stream, end);
        });
    }

    /// `Err(None)`: it was refused before it began, and the node was told.
    async fn run_download(
        &self,
        order: &DownloadOrder,
        download: &Download,
    ) -> Result<(), Option<Refusal>> {
        let (path, offset) = (self.cache.blob(order.digest), order.offset);
        let opened = tokio::task::spawn_blocking(move || {
            let mut file = File::open(path)?;
            file.seek(std::io::SeekFrom::Start(offset))?;
            std::io::Result::Ok(file)
        })
        .await;
        let (mut file, result) = match opened {
            Ok(Ok(file)) => (Some(file), Ok(())),
            _ => (None, Err(missing())),
        };
        let reply = MasterToNode::LayerReply {
            id: order.request,
            result,
        };
        order
            .peer
            .note(order.peer.outbox.push_control(&reply, Vec::new()));
        let Some(mut open) = file.take() else {
            return Err(None);
        };
        loop {
            let most = usize::try_from(download.credit(LAYER_CHUNK_BYTES).await).unwrap_or(0);
            let (returned, bytes) = blocking(move || {
                let bytes = disk::read_some(&mut open, most)?;
                Ok((open, bytes))
            })
            .await?;
            open = returned;
            let at_end = bytes.len() < most;
            if !bytes.is_empty() {
                let (stream, channel) = (order.stream, Channel::Main);
                let frame = StreamFrame::Data {
                    stream,
                    channel,
                    cursor: 0,
                    from: None,
                };
                if !order.peer.push_frame(frame, vec![bytes]) {
                    return Err(Some(node_reads_too_slowly()));
                }
                order.peer.outbox.wake();
            }
            if at_end {
                return Ok(());
            }
        }
    }
}

fn missing() -> Refusal {
    Refusal::new(
        RefusalCode::LayerMissing,
        "The location's cache does not have this layer.",
    )
}
