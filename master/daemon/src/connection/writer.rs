//! The sending half of a connection: takes what waits, seals it, writes it.
//!
//! Owner: a task of the connection. Invariant: every message that is sealed is written, once and in
//! order; a peer that takes nothing for as long as silence is allowed ends its connection.
//! Next: [`crate::outbox`].

use std::{io, sync::Arc, time::Duration};

use bytes::BytesMut;
use teu_protocol::{
    message::Role,
    noise::{SealError, Sealer},
};
use tokio::{io::AsyncWriteExt as _, net::tcp::OwnedWriteHalf, time::timeout};

use crate::{
    bounds::{
        CLIENT_LOST_AFTER, FLUSH_WITHIN, NODE_LOST_AFTER, WRITE_BATCH_BYTES, WRITE_BUFFER_KEPT_FOR,
    },
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
    sealed: BytesMut,
}

impl Writer {
    pub(super) fn new(
        write: OwnedWriteHalf,
        sealer: Sealer,
        peer: Arc<Peer>,
        clock: Clock,
    ) -> Self {
        let sealed = BytesMut::new();
        Self {
            write,
            sealer,
            peer,
            clock,
            sealed,
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
        while self.next(&mut batch).await {
            for item in batch.drain(..) {
                self.seal(item)?;
            }
            self.write_sealed(patience).await?;
        }
        Ok(())
    }

    /// Fills the batch; gives memory back if nothing comes for a while: 20,000 idle connections must
    /// not keep what one busy one needs.
    async fn next(&mut self, batch: &mut Vec<Item>) -> bool {
        let peer = Arc::clone(&self.peer);
        if self.sealed.capacity() > 0 {
            let taken = timeout(
                WRITE_BUFFER_KEPT_FOR,
                peer.outbox.take(batch, WRITE_BATCH_BYTES),
            );
            if let Ok(more) = taken.await {
                return more;
            }
            self.sealed = BytesMut::new();
            *batch = Vec::new();
        }
        peer.outbox.take(batch, WRITE_BATCH_BYTES).await
    }

    fn seal(&mut self, item: Item) -> Result<(), WriteError> {
        match item {
            Item::Command(frame) => self.sealed.extend_from_slice(&frame),
            Item::Message(control, bulk) => {
                let now = self.clock.elapsed();
                match self
                    .sealer
                    .seal_framed(&control, &bulk, now, &mut self.sealed)
                {
                    Err(error @ SealError::Cipher) => return Err(error.into()),
                    Err(error) => tracing::error!(%error, "a message is too large and is lost"),
                    Ok(()) => {}
                }
            }
        }
        Ok(())
    }

    /// Writes all that is sealed; each write must get somewhere within `patience`.
    async fn write_sealed(&mut self, patience: Duration) -> Result<(), WriteError> {
        while !self.sealed.is_empty() {
            let written = timeout(patience, self.write.write_buf(&mut self.sealed)).await;
            if written.map_err(|_| WriteError::Stalled)?? == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
        }
        Ok(())
    }
}
