//! The task that writes to the link: control first, then bulk, streams taking turns.
//!
//! Owner: the session task starts it and tells it about connections. Invariant: what was made for
//! another connection than the present one is dropped, so nothing of an old stream can reach a new
//! connection. A send that hangs (the peer does not read) is given up when the session says that the
//! connection is gone.

use teu_protocol::{
    ids::StreamId,
    message::{ClientToMaster, StreamFrame},
};
use tokio::sync::mpsc;

use super::transport::LinkSend;
use crate::stream::Outgoing;

/// Messages of bulk that may wait for the link, each of at most
/// [`crate::stream`]'s 256 KiB: enough to keep it busy, few enough that a keystroke is soon sent.
const BULK_QUEUE: usize = 4;

/// What the session task holds of the outbox.
#[derive(Debug)]
pub(super) struct Outbox<S> {
    /// The connection to write to, with its number.
    pub(super) links: mpsc::UnboundedSender<Option<(u64, S)>>,
    /// Requests and Credit. Unbounded, bounded by requests and windows under way.
    pub(super) control: mpsc::UnboundedSender<Outgoing>,
    pub(super) bulk: mpsc::Sender<Outgoing>,
    /// Unbounded, bounded by connections and streams.
    pub(super) reports: mpsc::UnboundedReceiver<Report>,
}

/// What the session is told.
#[derive(Debug)]
pub(super) enum Report {
    /// Sending failed on the connection of this number.
    Failed(u64, String),
    /// A stream's Close is on the link.
    CloseSent(StreamId),
}

struct OutboxTask<S> {
    links: mpsc::UnboundedReceiver<Option<(u64, S)>>,
    control: mpsc::UnboundedReceiver<Outgoing>,
    bulk: mpsc::Receiver<Outgoing>,
    reports: mpsc::UnboundedSender<Report>,
}

/// Starts the task; it ends when the session task drops its side.
pub(super) fn start<S: LinkSend>() -> (Outbox<S>, tokio::task::JoinHandle<()>) {
    let (links, links_rx) = mpsc::unbounded_channel();
    let (control, control_rx) = mpsc::unbounded_channel();
    let (bulk, bulk_rx) = mpsc::channel(BULK_QUEUE);
    let (reports_tx, reports) = mpsc::unbounded_channel();
    let task = OutboxTask {
        links: links_rx,
        control: control_rx,
        bulk: bulk_rx,
        reports: reports_tx,
    };
    let task = tokio::spawn(task.run());
    (
        Outbox {
            links,
            control,
            bulk,
            reports,
        },
        task,
    )
}

impl<S: LinkSend> OutboxTask<S> {
    async fn run(mut self) {
        let mut current: Option<(u64, S)> = None;
        loop {
            let outgoing = tokio::select! {
                biased;
                link = self.links.recv() => {
                    let Some(link) = link else { return };
                    current = link;
                    continue;
                }
                Some(outgoing) = self.control.recv() => outgoing,
                Some(outgoing) = self.bulk.recv() => outgoing,
            };
            let Some((epoch, sender)) = current.as_mut() else {
                continue;
            };
            if *epoch != outgoing.epoch {
                continue;
            }
            let closes = closes(&outgoing.message);
            let result = tokio::select! {
                result = sender.send(outgoing.message, outgoing.bulk) => result,
                link = self.links.recv() => {
                    let Some(link) = link else { return };
                    current = link;
                    continue;
                }
            };
            match result {
                Ok(()) => {
                    if let Some(stream) = closes {
                        let _ = self.reports.send(Report::CloseSent(stream));
                    }
                    if let Some(sent) = outgoing.sent {
                        let _ = sent.send(());
                    }
                }
                Err(gone) => {
                    // The session may be over: then nobody minds.
                    let _ = self.reports.send(Report::Failed(*epoch, gone.0));
                    current = None;
                }
            }
        }
    }
}

const fn closes(message: &ClientToMaster) -> Option<StreamId> {
    match message {
        ClientToMaster::Stream(StreamFrame::Close { stream, .. }) => Some(*stream),
        _ => None,
    }
}
