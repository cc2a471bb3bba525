//! Giving slots' networks back, many at a time.
//!
//! Owner: one task. Invariant: each asker hears of its own slot. Measured: a veth's removal waits for
//! the kernel some 20 ms whether it is one or fifty, so whatever came during one round goes in the next.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::sys::{
    names::SlotName,
    net::{NetError, NetworkHandle},
};

/// Slots that wait for a round. Askers wait beyond it.
const QUEUE: usize = 256;

type Answer = oneshot::Sender<Result<(), Arc<NetError>>>;

/// Releases slots. Cheap to clone.
#[derive(Debug, Clone)]
pub struct NetworkReleaser {
    queue: mpsc::Sender<(SlotName, Answer)>,
}

impl NetworkReleaser {
    /// Starts the task; it ends with the last handle.
    #[must_use]
    pub fn start(network: NetworkHandle) -> Self {
        let (queue, inbox) = mpsc::channel(QUEUE);
        tokio::spawn(run(network, inbox));
        Self { queue }
    }

    /// Takes back what the slot was given.
    ///
    /// # Errors
    /// The network's.
    pub async fn release(&self, slot: SlotName) -> Result<(), Arc<NetError>> {
        let (answer, released) = oneshot::channel();
        let stopped = || Arc::new(NetError::Stopped);
        self.queue
            .send((slot, answer))
            .await
            .map_err(|_| stopped())?;
        released.await.map_err(|_| stopped())?
    }
}

async fn run(network: NetworkHandle, mut inbox: mpsc::Receiver<(SlotName, Answer)>) {
    let mut round = Vec::new();
    while inbox.recv_many(&mut round, QUEUE).await > 0 {
        let (slots, answers): (Vec<_>, Vec<_>) = round.drain(..).unzip();
        let released = network.release(slots).await.map_err(Arc::new);
        for answer in answers {
            // Whoever asked may have stopped waiting; the release stands.
            let _ = answer.send(released.clone());
        }
    }
}
