//! The sending half of a link, and the task that seals.

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use teu_protocol::{
    heartbeat::LinkMessage,
    limits::MAX_MESSAGE_BYTES,
    noise::{SealError, Sealer},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

use crate::{
    LinkError,
    budget::{Budget, Share},
    socket::SocketSender,
};

/// Room that a message's seals take at most: refuses too long a message before it is queued, where
/// its sender can still be told.
const SEALING_OVERHEAD_BYTES: usize = 8 * 1024;

/// Pieces of bulk beyond this number are joined first, so that no message has too many parts.
const MAX_PIECES: usize = 64;

/// What is queued is sealed and written together up to here: a system call costs little beside it,
/// and it stays in a core's cache between the two.
const BATCH_BYTES: usize = 256 * 1024;

/// A buffer that grew beyond this, for a large message, is given back.
const KEEP_BYTES: usize = 1024 * 1024;

/// How long what is queued may take to leave once the link is closed.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// Sends messages. Cheap to clone; all clones share one queue, in the order of their sends.
pub struct LinkSender<Out> {
    queue: mpsc::UnboundedSender<Queued>,
    shared: Arc<Shared>,
    message: PhantomData<fn(Out)>,
}

/// What both halves know of a link.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) budget: Budget,
    closed: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            budget: Budget::new(),
            closed: watch::Sender::new(false),
        }
    }

    /// No more sends; what is queued already still goes out if the connection lets it.
    pub(crate) fn close(&self) {
        self.budget.close();
        self.closed.send_replace(true);
    }

    async fn closed(&self) {
        // The sender is ours: it cannot be gone.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }
}

struct Queued {
    item: Item,
    share: Share,
}

enum Item {
    Message(Vec<u8>, Vec<Bytes>),
    /// A ZMTP command, framed.
    Command(Bytes),
}

impl<Out: Serialize + LinkMessage> LinkSender<Out> {
    /// Starts the writer task, which ends when every sender is dropped or the link closes.
    pub(crate) fn start(
        socket: SocketSender,
        sealer: Sealer,
        epoch: Instant,
        shared: Arc<Shared>,
    ) -> Self {
        let (queue, queued) = mpsc::unbounded_channel();
        let writer = Writer {
            socket,
            sealer,
            epoch,
            frames: BytesMut::new(),
            shares: Vec::new(),
        };
        tokio::spawn(writer.run(queued, Arc::clone(&shared)));
        Self {
            queue,
            shared,
            message: PhantomData,
        }
    }

    /// Queues a message and its bulk bytes, waiting while too much is queued already. `bulk` is one
    /// sequence of bytes: where it is cut means nothing to the receiver.
    ///
    /// Cancel-safe: a send that is dropped before it ends has sent nothing.
    ///
    /// # Errors
    /// [`LinkError::Closed`] if the link has ended; [`LinkError::Encode`] or [`LinkError::Seal`] if
    /// this message cannot be sent, in which case the link goes on.
    pub async fn send(&self, message: Out, mut bulk: Vec<Bytes>) -> Result<(), LinkError> {
        let control = encode(&message)?;
        let length = control.len() + bulk.iter().map(Bytes::len).sum::<usize>();
        if length > MAX_MESSAGE_BYTES - SEALING_OVERHEAD_BYTES {
            return Err(LinkError::Seal(SealError::TooLong(length)));
        }
        if bulk.len() > MAX_PIECES {
            bulk = vec![bulk.concat().into()];
        }
        let share = self.shared.budget.take(length).await?;
        self.queue(Item::Message(control, bulk), share)
    }

    /// Queues a heartbeat, which waits for no room.
    pub(crate) fn send_heartbeat(&self, message: &Out) -> Result<(), LinkError> {
        self.queue(
            Item::Message(encode(message)?, Vec::new()),
            Budget::exempt(),
        )
    }

    /// Queues a ZMTP command's frame if there is room. Anybody on the way can ask for them, so they
    /// must not pile up; a peer that takes nothing needs none.
    pub(crate) fn send_command(&self, frame: Bytes) {
        if let Some(share) = self.shared.budget.try_take(frame.len()) {
            let _ = self.queue(Item::Command(frame), share);
        }
    }

    fn queue(&self, item: Item, share: Share) -> Result<(), LinkError> {
        let queued = Queued { item, share };
        self.queue.send(queued).map_err(|_| LinkError::Closed)
    }

    /// Waits until everything queued so far has left for the system's socket buffer. After a
    /// goodbye, rather wait for the peer to hang up: only that proves that it was heard.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    pub async fn drained(&self) -> Result<(), LinkError> {
        if self.shared.budget.drained().await {
            Ok(())
        } else {
            Err(LinkError::Closed)
        }
    }

    /// Whether the link has ended, as far as is known.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.budget.is_closed()
    }

    /// Ends the link: queued messages still go out, later sends fail.
    pub fn close(&self) {
        self.shared.close();
    }
}

fn encode(message: &impl Serialize) -> Result<Vec<u8>, LinkError> {
    rmp_serde::to_vec_named(message).map_err(LinkError::Encode)
}

impl<Out> Clone for LinkSender<Out> {
    fn clone(&self) -> Self {
        let (queue, shared) = (self.queue.clone(), Arc::clone(&self.shared));
        Self {
            queue,
            shared,
            message: PhantomData,
        }
    }
}

impl<Out> fmt::Debug for LinkSender<Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkSender")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

/// Owns the sealer: the only one that takes nonces.
struct Writer {
    socket: SocketSender,
    sealer: Sealer,
    epoch: Instant,
    frames: BytesMut,
    shares: Vec<Share>,
}

impl Writer {
    /// Until every sender is gone, or the link is closed and empty, or takes nothing more.
    async fn run(mut self, queued: mpsc::UnboundedReceiver<Queued>, shared: Arc<Shared>) {
        let given_up = async {
            shared.closed().await;
            sleep(FLUSH_WITHIN).await;
        };
        tokio::select! {
            biased;
            outcome = Box::pin(self.write_all(queued, &shared)) => {
                if let Err(reason) = outcome {
                    tracing::debug!(%reason, "the link's writer stops");
                }
            }
            () = given_up => tracing::debug!("what was queued when the link closed is lost"),
        }
        shared.close();
    }

    async fn write_all(
        &mut self,
        mut queued: mpsc::UnboundedReceiver<Queued>,
        shared: &Shared,
    ) -> Result<(), LinkError> {
        let mut closing = false;
        loop {
            let first = tokio::select! {
                biased;
                next = queued.recv() => next,
                () = shared.closed(), if !closing => {
                    closing = true;
                    queued.close();
                    continue;
                }
            };
            let Some(first) = first else { return Ok(()) };
            self.seal(first)?;
            while self.frames.len() < BATCH_BYTES
                && let Ok(next) = queued.try_recv()
            {
                self.seal(next)?;
            }
            self.socket.write(&self.frames).await?;
            self.shares.clear();
            self.frames.clear();
            if self.frames.capacity() > KEEP_BYTES {
                self.frames = BytesMut::new();
            }
        }
    }

    fn seal(&mut self, queued: Queued) -> Result<(), LinkError> {
        match queued.item {
            Item::Command(frame) => self.frames.extend_from_slice(&frame),
            Item::Message(control, bulk) => {
                let now = self.epoch.elapsed();
                self.sealer
                    .seal_framed(&control, &bulk, now, &mut self.frames)
                    .map_err(LinkError::Seal)?;
            }
        }
        self.shares.push(queued.share);
        Ok(())
    }
}
