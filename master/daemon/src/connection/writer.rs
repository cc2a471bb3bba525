//! The sending half of a connection: takes what waits, seals it, writes it.
//!
//! Owner: a task of the connection. Invariant: every message that is sealed is written, once and in
//! order; a peer that takes nothing for as long as silence is allowed ends its connection.
//! Next: [`crate::outbox`].

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use teu_protocol::{message::Role, noise::SealError, noise::Sealer, zmtp};
use tokio::{io::AsyncWriteExt as _, net::tcp::OwnedWriteHalf, time::timeout};

use crate::{
    bounds::{CLIENT_LOST_AFTER, FLUSH_WITHIN, NODE_LOST_AFTER, WRITE_BATCH_BYTES, WRITE_SLICES},
    clock::Clock,
    outbox::Item,
    peer::Peer,
};

/// Why sending stopped.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("the peer takes nothing")]
    Stalled,
}

pub(super) struct Writer {
    write: OwnedWriteHalf,
    sealer: Sealer,
    peer: Arc<Peer>,
    clock: Clock,
    chunks: VecDeque<Bytes>,
    scratch: BytesMut,
}

impl Writer {
    pub(super) fn new(
        write: OwnedWriteHalf,
        sealer: Sealer,
        peer: Arc<Peer>,
        clock: Clock,
    ) -> Self {
        let (chunks, scratch) = (VecDeque::new(), BytesMut::new());
        Self {
            write,
            sealer,
            peer,
            clock,
            chunks,
            scratch,
        }
    }

    /// Runs until the outbox is finished and empty, or the peer is gone.
    pub(super) async fn run(mut self) {
        let peer = Arc::clone(&self.peer);
        let outcome = tokio::select! {
            biased;
            () = peer.gone.cancelled() => Ok(()),
            outcome = Box::pin(self.send_all()) => outcome,
        };
        if let Err(reason) = outcome {
            tracing::debug!(connection = peer.id.0, %reason, "sending stopped");
        }
        // The last words may still be on their way; the reader need not wait for an answer.
        let _ = timeout(FLUSH_WITHIN, self.write.shutdown()).await;
        peer.outbox.close();
        peer.gone.cancel();
    }

    async fn send_all(&mut self) -> Result<(), WriteError> {
        let peer = Arc::clone(&self.peer);
        let patience = match peer.role {
            Role::Client => CLIENT_LOST_AFTER,
            Role::Node => NODE_LOST_AFTER,
        };
        let mut batch = Vec::new();
        while peer.outbox.take(&mut batch, WRITE_BATCH_BYTES).await {
            for item in batch.drain(..) {
                self.seal(item)?;
            }
            self.write_chunks(patience).await?;
            release_large(&mut batch, &mut self.chunks);
        }
        Ok(())
    }

    fn seal(&mut self, item: Item) -> Result<(), WriteError> {
        match item {
            Item::Command(frame) => self.chunks.push_back(frame),
            Item::Message(control, bulk) => {
                match self.sealer.seal(&control, &bulk, self.clock.elapsed()) {
                    Ok(parts) => zmtp::encode_chunks(&parts, &mut self.scratch, &mut self.chunks),
                    Err(error @ SealError::Cipher) => return Err(error.into()),
                    Err(error) => tracing::error!(%error, "a message is too large and is lost"),
                }
            }
        }
        Ok(())
    }

    async fn write_chunks(&mut self, patience: Duration) -> Result<(), WriteError> {
        while !self.chunks.is_empty() {
            let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
            let mut count = 0;
            for (slot, chunk) in slices.iter_mut().zip(&self.chunks) {
                *slot = IoSlice::new(chunk);
                count += 1;
            }
            let filled = slices.get(..count).unwrap_or_default();
            let written = timeout(patience, self.write.write_vectored(filled)).await;
            let written = written.map_err(|_| WriteError::Stalled)??;
            if written == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
            advance(&mut self.chunks, written);
        }
        Ok(())
    }
}

/// Drops what was written.
fn advance(chunks: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(first) = chunks.front_mut() {
        if first.len() > written {
            first.advance(written);
            return;
        }
        written -= first.len();
        chunks.pop_front();
    }
}

/// Gives memory back after a burst: 20,000 idle connections must not keep what one busy one needs.
fn release_large(batch: &mut Vec<Item>, chunks: &mut VecDeque<Bytes>) {
    const KEEP: usize = 64;
    if batch.capacity() > KEEP {
        *batch = Vec::new();
    }
    if chunks.capacity() > 2 * KEEP {
        *chunks = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_write_leaves_the_rest() {
        let mut chunks: VecDeque<Bytes> = ["abc", "", "defg"]
            .into_iter()
            .map(|text| Bytes::from_static(text.as_bytes()))
            .collect();
        advance(&mut chunks, 4);
        assert_eq!(chunks, ["efg"]);
        advance(&mut chunks, 3);
        assert!(chunks.is_empty());
    }
}
