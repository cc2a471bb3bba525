//! Nodes come and go, and tell what changes on them.
//!
//! Invariant: a node that is lost keeps its containers in the table; only its own next report, or
//! the end of their session, takes them out. Next: [`crate::reconcile`] for the report.

use teu_protocol::{
    ids::{ContainerId, NodeId},
    message::{ContainerState, EventBody, MasterToNode, NodeEvent, ProcessState, Topology},
};

use crate::{ConnectionId, Core, Effect, nodes::Link, refusals};

impl Core {
    pub(crate) fn node_connected(&mut self, connection: ConnectionId, id: NodeId) {
        let Some(node) = self.nodes.get(&id) else {
            self.effects.push(Effect::Reject { connection });
            return;
        };
        let (link, subnet, name) = (node.link, node.subnet, node.record.name.clone());
        if let Some(earlier) = link.connection() {
            self.connections.remove(earlier);
            self.node_lost(id, earlier);
            self.close(earlier, refusals::node_lost(&name));
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            node.link = Link::Greeted(connection);
        }
        self.connections.add_node(connection, id);
        let range = self.config.range;
        let ready = MasterToNode::Ready(Topology {
            node: id,
            subnet,
            range,
        });
        self.send_node(connection, ready, Vec::new());
    }

    pub(crate) fn node_lost(&mut self, id: NodeId, connection: ConnectionId) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        if node.link.connection() != Some(connection) {
            return;
        }
        node.link = Link::Down;
        node.lost_at_ms = self.now.monotonic_ms;
        node.leftovers.clear();
        let reason = refusals::node_lost(node.name());
        self.nodes.touch(&id);
        self.volumes.touch_all_on(&id);
        for order in self.orders.take_all_of(id) {
            self.lost(&order, &reason);
        }
        self.close_streams_on(connection, &reason);
    }

    pub(crate) fn node_event(&mut self, id: NodeId, event: NodeEvent) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.is_up()) else {
            return;
        };
        match event {
            NodeEvent::Usage(usage) => {
                if node.usage != usage {
                    node.usage = usage;
                    self.nodes.touch(&id);
                }
            }
            NodeEvent::LayerReady(digest) => {
                node.layers.insert(digest);
            }
            NodeEvent::Volume(found) => self.volume_found(id, *found),
            NodeEvent::Warning(text) => node.warn(text),
            NodeEvent::Container { container, state } => self.container_is(id, &container, state),
            NodeEvent::Process(info) => {
                let found = self
                    .containers
                    .get(&info.container)
                    .filter(|c| c.info.node == id);
                let Some(session) = found.map(|c| c.session) else {
                    return;
                };
                if matches!(info.state, ProcessState::Exited(_)) {
                    self.containers
                        .update(&info.container, |c| c.processes.remove(&info.id));
                }
                self.notify(&session, EventBody::Process(info));
            }
        }
    }

    /// A node says how a container of its own fares.
    pub(crate) fn container_is(&mut self, node: NodeId, id: &ContainerId, state: ContainerState) {
        let Some(found) = self.containers.get(id).filter(|c| c.info.node == node) else {
            return;
        };
        // `Exited` is final: an answer that was overtaken by the event must not bring it back.
        if !found.has_exited() {
            self.containers.update(id, |c| c.info.state = state);
        }
        self.tell(id);
        if matches!(state, ContainerState::Exited { .. }) {
            self.exited(id);
        }
    }
}
