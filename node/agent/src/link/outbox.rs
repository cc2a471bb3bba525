//! What the event loop has to say, in order, without ever waiting.
//!
//! Owner: one task for each link. Invariants: bounded; a reply that opens a stream has left before
//! the stream's first byte. Next: the link's own budget in `teu-link`.

use teu_link::LinkSender;
use teu_protocol::message::NodeToMaster;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

/// Messages that wait for a slow master. Replies are bounded by orders, events by containers; more
/// than this and the link is given up, for the next one begins with a report of everything.
const QUEUE: usize = 8_192;

#[derive(Debug)]
enum Item {
    Say(Box<NodeToMaster>),
    Then(oneshot::Sender<()>),
}

/// The queue's end in the event loop.
#[derive(Debug)]
pub struct Outbox {
    queue: mpsc::Sender<Item>,
    sender: LinkSender<NodeToMaster>,
}

/// Too much waits: the link was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the master does not read; the link is given up")]
pub struct OutboxFull;

impl Outbox {
    pub(super) fn start(sender: LinkSender<NodeToMaster>) -> (Self, JoinHandle<()>) {
        let (queue, items) = mpsc::channel(QUEUE);
        let task = tokio::spawn(run(sender.clone(), items));
        (Self { queue, sender }, task)
    }

    /// Says something.
    ///
    /// # Errors
    /// If too much waits.
    pub fn say(&self, message: NodeToMaster) -> Result<(), OutboxFull> {
        self.put(Item::Say(Box::new(message)))
    }

    /// Lets somebody go on once all that was said before has left.
    ///
    /// # Errors
    /// If too much waits.
    pub fn then(&self, start: oneshot::Sender<()>) -> Result<(), OutboxFull> {
        self.put(Item::Then(start))
    }

    fn put(&self, item: Item) -> Result<(), OutboxFull> {
        match self.queue.try_send(item) {
            // A closed queue is a link that ended: its end is told as an event.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.sender.close();
                Err(OutboxFull)
            }
        }
    }
}

async fn run(sender: LinkSender<NodeToMaster>, mut items: mpsc::Receiver<Item>) {
    while let Some(item) = items.recv().await {
        match item {
            Item::Say(message) => {
                if let Err(error) = sender.send(*message, Vec::new()).await {
                    tracing::debug!("not said: {}", super::chain(&error));
                    if sender.is_closed() {
                        return;
                    }
                }
            }
            Item::Then(start) => drop(start.send(())),
        }
    }
}
