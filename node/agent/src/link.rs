//! The link to the master: dial, route what comes, send what must be said; dial again when it ends.
//!
//! Owner: [`run`] is a task of its own. Invariants: streams belong to one link and end with it;
//! bulk goes from the link straight to its stream's task and never through the event loop; the event
//! loop never waits for the network. Next: `router` for what comes, `outbox` for what goes.

mod handle;
mod outbox;
mod router;

pub use handle::{FetchError, Inbound, LinkHandle, StreamInlet};
pub use outbox::{Outbox, OutboxFull};

use std::time::Duration;

use teu_link::{Backoff, Connection, Dialer};
use teu_protocol::{
    ids::AttachmentId,
    message::{Initiate, MasterToNode, NodeToMaster, Role, SessionAsk, Topology, encode},
};
use tokio::sync::mpsc;

use crate::agent::Event;

/// A location that does not want us (revoked, wrong key) may be mended by somebody: ask this often.
const REFUSED_WAIT: Duration = Duration::from_secs(5);

/// A link that is up.
#[derive(Debug)]
pub struct LinkUp {
    /// What the master said in READY.
    pub topology: Topology,
    /// To open streams and fetch layers.
    pub link: LinkHandle,
    /// To say things.
    pub outbox: Outbox,
}

/// Keeps a link up until the event loop is gone.
pub async fn run(dialer: Dialer, name: String, events: mpsc::Sender<Event>) {
    let initiate = Initiate {
        role: Role::Node,
        features: Vec::new(),
        name,
        session: SessionAsk::New,
        attachment: AttachmentId::from_bytes([0; 16]),
    };
    let Ok(payload) = encode(&initiate) else {
        return;
    };
    let mut backoff = Backoff::default();
    let mut told = String::new();
    loop {
        match dialer.dial::<NodeToMaster, MasterToNode>(&payload).await {
            Ok(connection) => {
                told.clear();
                backoff.reset();
                if serve(connection, &events).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                let text = chain(&error);
                // The same trouble every second is told once.
                if text != told {
                    tracing::warn!(endpoint = dialer.endpoint(), "not connected: {text}");
                    told = text;
                }
                if !error.is_retryable() {
                    tokio::time::sleep(REFUSED_WAIT).await;
                }
            }
        }
        if events.is_closed() {
            return;
        }
        let mut jitter = [0; 4];
        // Without randomness the pace is merely the same for all nodes.
        let _ = getrandom::fill(&mut jitter);
        tokio::time::sleep(backoff.next_wait(u32::from_ne_bytes(jitter))).await;
    }
}

/// The event loop is gone.
struct LoopGone;

async fn serve(
    connection: Connection<NodeToMaster, MasterToNode>,
    events: &mpsc::Sender<Event>,
) -> Result<(), LoopGone> {
    let (ready, sender, receiver) = connection.into_parts();
    let MasterToNode::Ready(topology) = ready else {
        tracing::error!("the master began with something else than READY");
        return Ok(());
    };
    let (link, registrations) = LinkHandle::new(sender.clone());
    let (outbox, outbox_task) = Outbox::start(sender);
    let up = LinkUp {
        topology,
        link,
        outbox,
    };
    events
        .send(Event::LinkUp(Box::new(up)))
        .await
        .map_err(|_| LoopGone)?;
    let reason = router::run(receiver, registrations, events).await;
    outbox_task.abort();
    events
        .send(Event::LinkDown { reason })
        .await
        .map_err(|_| LoopGone)
}

/// An error and its sources in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
