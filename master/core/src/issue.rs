//! Orders on their way out, and answers on their way back.
//!
//! Invariants: an order goes only to a node that is up; a forwarded request is stamped with the
//! session that it must have come from; an answer goes only to connections of that session.

use bytes::Bytes;
use teu_protocol::{
    ids::{NodeId, RequestId},
    message::{
        MasterToClient, MasterToNode, NodeRequest, NodeRequestBody, Refusal, Reply, ReplyBody,
    },
};

use crate::{
    Core,
    connections::Caller,
    nodes::Link,
    orders::{Asker, Order, Purpose},
    refusals,
    request::{Answer, Step},
};

impl Core {
    /// Passes a request on to the node that can fulfil it.
    pub(crate) fn forward(
        &mut self,
        caller: &Caller,
        node: NodeId,
        body: NodeRequestBody,
        purpose: Purpose,
        within_ms: u64,
    ) -> Step {
        self.forward_with(caller, node, (body, Vec::new()), purpose, within_ms)
    }

    pub(crate) fn forward_with(
        &mut self,
        caller: &Caller,
        node: NodeId,
        (body, bulk): (NodeRequestBody, Vec<Bytes>),
        purpose: Purpose,
        within_ms: u64,
    ) -> Step {
        let id = if purpose.is_per_connection() {
            self.own_order_id()
        } else {
            caller.request.forwarded(&caller.session)
        };
        let asker = Asker {
            session: caller.session,
            request: caller.request,
            connections: vec![caller.connection],
            remember: purpose.has_an_effect(),
        };
        let deadline_ms = self.clock() + within_ms;
        let order = Order {
            node,
            id,
            purpose,
            asker: Some(asker),
            deadline_ms,
            bulk_bytes: bulk.iter().map(Bytes::len).sum(),
            late: false,
        };
        self.issue(order, body, bulk)?;
        Ok(Answer::Later)
    }

    /// Orders something by the core's own decision.
    pub(crate) fn order(
        &mut self,
        node: NodeId,
        body: NodeRequestBody,
        purpose: Purpose,
        within_ms: u64,
    ) -> Result<(), Refusal> {
        let deadline_ms = self.clock() + within_ms;
        let id = self.own_order_id();
        let order = Order {
            node,
            id,
            purpose,
            asker: None,
            deadline_ms,
            bulk_bytes: 0,
            late: false,
        };
        self.issue(order, body, Vec::new())
    }

    fn issue(
        &mut self,
        order: Order,
        body: NodeRequestBody,
        bulk: Vec<Bytes>,
    ) -> Result<(), Refusal> {
        let name = self.up(&order.node)?;
        let Some(Link::Up(connection)) = self.nodes.get(&order.node).map(|node| node.link) else {
            return Err(refusals::node_lost(name));
        };
        let request = NodeRequest { id: order.id, body };
        self.orders.insert(order);
        self.send_node(connection, MasterToNode::Request(Box::new(request)), bulk);
        Ok(())
    }

    /// Unique at every node, over restarts too: the time of this start and a counter.
    fn own_order_id(&mut self) -> RequestId {
        self.orders_issued += 1;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.started.unix_ms.to_be_bytes());
        bytes[8..].copy_from_slice(&self.orders_issued.to_be_bytes());
        RequestId::from_bytes(bytes)
    }

    /// Answers all connections that wait, and remembers for those that ask again.
    pub(crate) fn answer(&mut self, asker: &Asker, result: Result<ReplyBody, Refusal>) {
        let now = self.clock();
        if let Some(session) = self
            .sessions
            .get_mut(&asker.session)
            .filter(|_| asker.remember)
        {
            session.replies.keep(asker.request, &result, now);
        }
        for connection in &asker.connections {
            let Some(client) = self.connections.client_mut(*connection) else {
                continue;
            };
            if client.session() == asker.session {
                client.was_answered(&asker.request);
                let reply = Reply {
                    id: asker.request,
                    result: result.clone(),
                };
                self.send_client(*connection, MasterToClient::Reply(Box::new(reply)));
            }
        }
    }
}
