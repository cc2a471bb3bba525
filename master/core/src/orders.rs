//! Orders that nodes have not answered: who asked, what the answer means, until when.
//!
//! Owner: [`crate::Core`]. Invariants: an answer is taken only from the node that the order went to
//! (the key is node and order id); an order that its asker no longer waits for is kept a while
//! longer, so that a late success is still understood.

use std::collections::BTreeMap;

use teu_protocol::ids::{ContainerId, NodeId, ProcessId, RequestId, SessionId, StreamId, VolumeId};

use crate::{ConnectionId, limits, streams::ClientStream};

/// All orders in flight.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    live: BTreeMap<(NodeId, RequestId), Order>,
    asked: BTreeMap<(SessionId, RequestId), (NodeId, RequestId)>,
}

/// An order in flight.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) node: NodeId,
    pub(crate) id: RequestId,
    pub(crate) purpose: Purpose,
    /// Who waits for the answer; `None`: the core itself, or nobody any more.
    pub(crate) asker: Option<Asker>,
    pub(crate) deadline_ms: u64,
    /// Length of the bulk that went with it.
    pub(crate) bulk_bytes: usize,
    /// Its asker was told that it took too long.
    pub(crate) late: bool,
}

/// Who asked, and where the answer goes.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub(crate) session: SessionId,
    pub(crate) request: RequestId,
    /// The connections that asked: more than one after a reconnect.
    pub(crate) connections: Vec<ConnectionId>,
    /// The answer is replayed to retries.
    pub(crate) remember: bool,
}

/// What the node was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Spawn(ContainerId),
    Wake(ContainerId),
    Stop(ContainerId),
    Signal,
    Destroy(ContainerId),
    Exec {
        container: ContainerId,
        process: ProcessId,
    },
    /// Kill a process whose attachment ended.
    Kill {
        container: ContainerId,
        process: ProcessId,
    },
    /// The stream, and its number towards the node (the client's may be used anew by then).
    Open {
        client: ClientStream,
        number: StreamId,
    },
    Resize,
    /// Let processes go on whose reader's attachment ended.
    ReleaseReaders,
    RemoveLayers,
    Allow {
        to: ContainerId,
        from: ContainerId,
    },
    Disallow {
        to: ContainerId,
        from: ContainerId,
    },
    Detail(ContainerId),
    Volume(VolumeId, VolumeAsk),
    /// As `Open`, of a stream from the client that becomes the volume.
    Import {
        client: ClientStream,
        number: StreamId,
        volume: VolumeId,
    },
    Doctor(u64),
}

/// What a node was asked of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VolumeAsk {
    /// To create or clone it.
    Make,
    Destroy,
    /// What its record says.
    Change,
    /// What is answered with "done".
    Do,
    Snapshots,
    Usage,
}

impl Orders {
    pub(crate) fn insert(&mut self, order: Order) {
        if let Some(asker) = order
            .asker
            .as_ref()
            .filter(|_| !order.purpose.is_per_connection())
        {
            self.asked
                .insert((asker.session, asker.request), (order.node, order.id));
        }
        self.live.insert((order.node, order.id), order);
    }

    /// The same request again: its connection waits too. `false`: it is not in flight.
    pub(crate) fn join(
        &mut self,
        session: SessionId,
        request: RequestId,
        connection: ConnectionId,
    ) -> bool {
        let key = self.asked.get(&(session, request));
        let Some(order) = key.and_then(|key| self.live.get_mut(key)) else {
            return false;
        };
        let Some(asker) = &mut order.asker else {
            return false;
        };
        if !asker.connections.contains(&connection) {
            asker.connections.push(connection);
        }
        true
    }

    /// Takes the order that this node answers.
    pub(crate) fn take(&mut self, node: NodeId, id: RequestId) -> Option<Order> {
        let order = self.live.remove(&(node, id))?;
        self.unlink(&order);
        Some(order)
    }

    fn unlink(&mut self, order: &Order) {
        if let Some(asker) = &order.asker {
            let key = (asker.session, asker.request);
            if self.asked.get(&key) == Some(&(order.node, order.id)) {
                self.asked.remove(&key);
            }
        }
    }

    /// Takes all orders of a node whose link is lost.
    pub(crate) fn take_all_of(&mut self, node: NodeId) -> Vec<Order> {
        let ids: Vec<_> = self.of(node).map(|order| order.id).collect();
        ids.into_iter()
            .filter_map(|id| self.take(node, id))
            .collect()
    }

    /// Bulk that went to a node with orders that it has not answered.
    pub(crate) fn bulk_bytes(&self, node: NodeId) -> usize {
        self.of(node).map(|order| order.bulk_bytes).sum()
    }

    fn of(&self, node: NodeId) -> impl Iterator<Item = &Order> {
        let all = (node, RequestId::from_bytes([0; 16]))..=(node, RequestId::from_bytes([255; 16]));
        self.live.range(all).map(|(_, order)| order)
    }

    /// Orders whose deadline has passed, without their askers (who are answered now). Each stays
    /// until a late answer, or for [`limits::LATE_MS`].
    pub(crate) fn expire(&mut self, now_ms: u64) -> Vec<(NodeId, Purpose, Option<Asker>)> {
        let due: Vec<_> = self
            .live
            .iter()
            .filter(|(_, o)| o.deadline_ms <= now_ms)
            .map(|(k, _)| *k)
            .collect();
        let mut expired = Vec::new();
        for (node, id) in due {
            let Some(mut order) = self.take(node, id) else {
                continue;
            };
            if order.late {
                continue;
            }
            self.wait_for_late(&order, now_ms);
            expired.push((node, order.purpose, order.asker.take()));
        }
        expired
    }

    /// Nobody waits any more, but an answer may still come.
    pub(crate) fn wait_for_late(&mut self, order: &Order, now_ms: u64) {
        let Order {
            node, id, purpose, ..
        } = *order;
        let deadline_ms = now_ms + limits::LATE_MS;
        let late = Order {
            node,
            id,
            purpose,
            asker: None,
            deadline_ms,
            bulk_bytes: 0,
            late: true,
        };
        self.live.insert((node, id), late);
    }

    /// The session ended: nobody waits for its answers.
    pub(crate) fn forget_askers(&mut self, session: SessionId) {
        let all =
            (session, RequestId::from_bytes([0; 16]))..=(session, RequestId::from_bytes([255; 16]));
        let keys: Vec<_> = self.asked.range(all).map(|(_, key)| *key).collect();
        for key in keys {
            let Some(order) = self.live.remove(&key) else {
                continue;
            };
            self.unlink(&order);
            self.live.insert(
                key,
                Order {
                    asker: None,
                    ..order
                },
            );
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }
}

impl Purpose {
    /// Doing it twice would differ from doing it once, so the answer is remembered.
    pub(crate) fn has_an_effect(&self) -> bool {
        !matches!(
            self,
            Self::Open { .. }
                | Self::Import { .. }
                | Self::Detail(_)
                | Self::Doctor(_)
                | Self::Volume(_, VolumeAsk::Snapshots | VolumeAsk::Usage)
        )
    }

    /// A stream belongs to one connection: the same request on another one opens another stream.
    pub(crate) fn is_per_connection(&self) -> bool {
        matches!(self, Self::Open { .. } | Self::Import { .. })
    }
}
