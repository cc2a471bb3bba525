//! The sending half of a link, and the task that seals.

use std::{fmt, marker::PhantomData, sync::Arc};

use bytes::Bytes;
use serde::Serialize;
use teu_protocol::{
    heartbeat::LinkMessage,
    limits::MAX_MESSAGE_BYTES,
    noise::{SealError, Sealer},
};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use crate::{
    LinkError,
    budget::{Budget, Share},
    socket::SocketSender,
};

/// Room that a message's seals take at most: refuses too long a message before it is queued, where
/// its sender can still be told.
const SEALING_OVERHEAD_BYTES: usize = 8 * 1024;

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
    closing: Notify,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            budget: Budget::new(),
            closing: Notify::new(),
        }
    }

    /// No more sends; what is queued already still goes out if the connection lets it.
    pub(crate) fn close(&self) {
        self.budget.close();
        self.closing.notify_one();
    }
}

struct Queued {
    control: Vec<u8>,
    bulk: Vec<Bytes>,
    share: Share,
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
            shared: Arc::clone(&shared),
        };
        tokio::spawn(writer.run(queued));
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
    pub async fn send(&self, message: Out, bulk: Vec<Bytes>) -> Result<(), LinkError> {
        let control = encode(&message)?;
        let length = control.len() + bulk.iter().map(Bytes::len).sum::<usize>();
        if length > MAX_MESSAGE_BYTES - SEALING_OVERHEAD_BYTES {
            return Err(LinkError::Seal(SealError::TooLong(length)));
        }
        let share = self.shared.budget.take(length).await?;
        self.queue
            .send(Queued {
                control,
                bulk,
                share,
            })
            .map_err(|_| LinkError::Closed)
    }

    /// Queues a heartbeat, which waits for no room.
    pub(crate) fn send_heartbeat(&self, message: &Out) -> Result<(), LinkError> {
        let queued = Queued {
            control: encode(message)?,
            bulk: Vec::new(),
            share: Budget::exempt(),
        };
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
    shared: Arc<Shared>,
}

impl Writer {
    async fn run(mut self, mut queued: mpsc::UnboundedReceiver<Queued>) {
        loop {
            let next = tokio::select! {
                biased;
                next = queued.recv() => next,
                () = self.shared.closing.notified() => {
                    queued.close();
                    continue;
                }
            };
            let Some(next) = next else { break };
            if let Err(reason) = self.write(next).await {
                tracing::debug!(%reason, "the link's writer stops");
                break;
            }
        }
        self.shared.close();
    }

    async fn write(&mut self, queued: Queued) -> Result<(), LinkError> {
        let Queued {
            control,
            bulk,
            share,
        } = queued;
        let parts = self
            .sealer
            .seal(&control, &bulk, self.epoch.elapsed())
            .map_err(LinkError::Seal)?;
        drop(bulk);
        let parts = parts
            .into_iter()
            .map(|part| share.attach_to(part))
            .collect();
        self.socket.send(parts).await.map_err(|_| LinkError::Closed)
    }
}
