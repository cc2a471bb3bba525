//! Effects, one by one.
//!
//! Owner: [`Broker`]. Invariant: nothing here waits: sending is queueing, transfers are tasks.

use std::sync::Arc;

use teu_master_core::{ConnectionId, Effect, Outbound};

use super::Broker;
use crate::{
    layers::{DownloadOrder, UploadOrder},
    peer::{Peer, Verdict},
    stream::{Route, end_locally},
};

impl Broker {
    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            // Committed before any effect is performed.
            Effect::Persist(_) => {}
            Effect::Send {
                connection,
                message,
                bulk,
            } => {
                let Some(peer) = self.peer(connection) else {
                    return;
                };
                peer.decide(Verdict::Accepted);
                let pushed = match &message {
                    Outbound::Client(message) => peer.outbox.push_control(message, bulk),
                    Outbound::Node(message) => peer.outbox.push_control(message, bulk),
                };
                peer.note(pushed);
            }
            Effect::Reject { connection } => {
                if let Some(peer) = self.peers.remove(&connection) {
                    peer.decide(Verdict::Rejected);
                }
            }
            Effect::Close { connection, reason } => {
                let Some(peer) = self.peer(connection) else {
                    return;
                };
                peer.decide(Verdict::Accepted);
                peer.close(reason);
            }
            Effect::Route { client, node } => {
                let sides = (self.peer(client.connection), self.peer(node.connection));
                if let (Some(client_peer), Some(node_peer)) = sides {
                    Route::open((client_peer, client), (node_peer, node));
                }
            }
            Effect::Unroute {
                connection,
                stream,
                reason,
            } => {
                let stream = self
                    .peer(connection)
                    .and_then(|peer| peer.streams.get(stream));
                if let Some(stream) = stream {
                    end_locally(stream, &reason);
                }
            }
            Effect::ReceiveLayer {
                account,
                connection,
                request,
                stream,
                digest,
                size,
            } => {
                let Some(peer) = self.peer(connection) else {
                    return;
                };
                let order = UploadOrder {
                    peer,
                    account,
                    request,
                    stream,
                    digest,
                    size,
                };
                self.transfers.receive(order);
            }
            Effect::SendLayer {
                connection,
                request,
                stream,
                digest,
                offset,
                window,
            } => {
                let Some(peer) = self.peer(connection) else {
                    return;
                };
                let order = DownloadOrder {
                    peer,
                    request,
                    stream,
                    digest,
                    offset,
                    window,
                };
                self.transfers.send(order);
            }
            Effect::DeleteLayer(digest) => self.transfers.cache.delete(digest),
        }
    }

    fn peer(&self, connection: ConnectionId) -> Option<Arc<Peer>> {
        self.peers.get(&connection).map(Arc::clone)
    }
}
