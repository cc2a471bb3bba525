//! A process's standard input, fed by whoever is attached to it.
//!
//! Owner: one task for each process that is given input. Invariants: never more than the keeper's
//! window ahead of what the process has consumed; input goes in the order in which it came.

use bytes::Bytes;
use teu_protocol::ids::ProcessId;
use tokio::sync::{mpsc, watch};

use crate::{
    containers::ProcessProgress,
    keeper::{KeeperLink, Refusal, STDIN_WINDOW, StartError},
};

/// Chunks that wait for the process: with the chunk's bound this is half a megabyte.
const QUEUE: usize = 8;

/// One request to the keeper.
const CHUNK_BYTES: usize = 64 * 1024;

#[derive(Debug)]
enum Item {
    Bytes(Bytes),
    Eof,
}

/// Gives input to one process.
#[derive(Debug, Clone)]
pub struct StdinHandle {
    queue: mpsc::Sender<Item>,
}

impl StdinHandle {
    /// Queues input; waits while the process does not read.
    pub async fn put(&self, bytes: Bytes) {
        // A process that has ended reads no more.
        let _ = self.queue.send(Item::Bytes(bytes)).await;
    }

    /// No more input.
    pub async fn end(&self) {
        let _ = self.queue.send(Item::Eof).await;
    }
}

/// Feeds one process.
#[derive(Debug)]
pub struct StdinTask {
    link: KeeperLink,
    process: ProcessId,
    progress: watch::Receiver<ProcessProgress>,
    sent: u64,
}

impl StdinTask {
    /// Starts the task; it ends with the last handle.
    #[must_use]
    pub fn start(
        link: KeeperLink,
        process: ProcessId,
        mut progress: watch::Receiver<ProcessProgress>,
    ) -> StdinHandle {
        let (queue, items) = mpsc::channel(QUEUE);
        let sent = progress.borrow_and_update().stdin_consumed;
        tokio::spawn(
            Self {
                link,
                process,
                progress,
                sent,
            }
            .run(items),
        );
        StdinHandle { queue }
    }

    async fn run(mut self, mut items: mpsc::Receiver<Item>) {
        while let Some(item) = items.recv().await {
            match item {
                Item::Bytes(bytes) => self.feed(bytes).await,
                Item::Eof => {
                    let _ = self.link.stdin(self.process, Bytes::new(), true).await;
                }
            }
        }
    }

    async fn feed(&mut self, mut bytes: Bytes) {
        while !bytes.is_empty() {
            let (consumed, over) = {
                let now = self.progress.borrow_and_update();
                (
                    now.stdin_consumed,
                    now.stdin_closed || now.log.ended.is_some(),
                )
            };
            if over {
                return;
            }
            let room = (consumed + STDIN_WINDOW).saturating_sub(self.sent);
            let room = usize::try_from(room).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            if room == 0 {
                if self.progress.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let chunk = bytes.slice(..room.min(bytes.len()));
            let length = chunk.len();
            match self.link.stdin(self.process, chunk, false).await {
                Ok(()) => {
                    self.sent += length as u64;
                    drop(bytes.split_to(length));
                }
                // What an earlier agent sent is not consumed yet.
                Err(StartError::Refused(Refusal::StdinOverrun)) => {
                    if self.progress.changed().await.is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }
}
