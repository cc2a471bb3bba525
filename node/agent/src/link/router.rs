//! Where what the master says goes: orders to the event loop, bulk to its stream's task.
//!
//! Owner: the link's task. Invariants: the table of streams lives and dies with the link; an order
//! waits for the event loop, and then so does everything behind it, for orders are few and quick.

use std::collections::HashMap;

use bytes::Bytes;
use teu_link::LinkReceiver;
use teu_protocol::{
    ids::{RequestId, StreamId},
    message::{MasterToNode, NodeToMaster, Refusal, StreamFrame},
};
use tokio::sync::{mpsc, oneshot};

use super::{Inbound, chain, handle::Registration};
use crate::agent::Event;

/// Below this many streams nobody looks for dead ones.
const SWEEP_FROM: usize = 64;

#[derive(Debug)]
struct Router {
    streams: HashMap<StreamId, mpsc::UnboundedSender<Inbound>>,
    fetches: HashMap<RequestId, oneshot::Sender<Result<(), Refusal>>>,
    sweep_at: usize,
}

/// Routes until the link ends; says why it did.
pub(super) async fn run(
    mut receiver: LinkReceiver<NodeToMaster, MasterToNode>,
    mut registrations: mpsc::UnboundedReceiver<Registration>,
    events: &mpsc::Sender<Event>,
) -> String {
    let mut router = Router {
        streams: HashMap::new(),
        fetches: HashMap::new(),
        sweep_at: SWEEP_FROM,
    };
    loop {
        let received = tokio::select! {
            biased;
            Some(registration) = registrations.recv() => {
                router.register(registration);
                continue;
            }
            received = receiver.recv() => received,
        };
        // Whoever sends on a stream was told of it after it was registered.
        while let Ok(registration) = registrations.try_recv() {
            router.register(registration);
        }
        let event = match received {
            Ok((message, bulk)) => router.route(message, bulk),
            Err(error) => return chain(&error),
        };
        if let Some(event) = event
            && events.send(event).await.is_err()
        {
            return "the agent stops".to_owned();
        }
    }
}

impl Router {
    fn register(&mut self, registration: Registration) {
        let Registration {
            stream,
            inlet,
            fetch,
        } = registration;
        self.streams.insert(stream, inlet);
        if let Some((id, answer)) = fetch {
            self.fetches.insert(id, answer);
        }
        if self.streams.len() >= self.sweep_at {
            self.streams.retain(|_, inlet| !inlet.is_closed());
            self.fetches.retain(|_, answer| !answer.is_closed());
            self.sweep_at = (self.streams.len() * 2).max(SWEEP_FROM);
        }
    }

    fn route(&mut self, message: MasterToNode, bulk: Vec<Bytes>) -> Option<Event> {
        match message {
            MasterToNode::Stream(frame) => {
                self.deliver(frame, bulk);
                None
            }
            MasterToNode::LayerReply { id, result } => {
                if let Some(answer) = self.fetches.remove(&id) {
                    let _ = answer.send(result);
                }
                None
            }
            MasterToNode::Request(request) => Some(Event::Order { request, bulk }),
            MasterToNode::Closing(reason) => {
                tracing::warn!("the master closes the link: {reason}");
                None
            }
            MasterToNode::Ready(_) | MasterToNode::Ping(_) | MasterToNode::Pong(_) => None,
        }
    }

    fn deliver(&mut self, frame: StreamFrame, bulk: Vec<Bytes>) {
        let stream = frame.stream();
        // Frames for a stream that ended here cross its Close on the way: nobody's fault.
        let Some(inlet) = self.streams.get(&stream) else {
            return;
        };
        let is_last = matches!(frame, StreamFrame::Close { .. });
        let inbound = match frame {
            StreamFrame::Data {
                channel, cursor, ..
            } => Inbound::Data {
                channel,
                cursor,
                bulk,
            },
            StreamFrame::Credit { bytes, .. } => Inbound::Credit(bytes),
            StreamFrame::Eof {
                channel, cursor, ..
            } => Inbound::Eof(channel, cursor),
            StreamFrame::Close { end, .. } => Inbound::Close(end),
        };
        if inlet.send(inbound).is_err() || is_last {
            self.streams.remove(&stream);
        }
    }
}
