//! Who may connect to whom: allow, disallow, and taking back what ended containers were allowed.
//!
//! Invariant: an address is in a container's rules only while the container that was allowed lives.

use teu_protocol::{
    ids::{ContainerId, NodeId},
    message::{EventBody, NodeRequestBody, Refusal},
};

use crate::{
    Core,
    connections::Caller,
    containers::Owned,
    limits,
    orders::Purpose,
    refusals,
    request::{Answer, Step},
};

impl Core {
    pub(crate) fn allow(&mut self, to: &Owned, from: &Owned, caller: &Caller) -> Step {
        if to.id() == from.id() {
            return Err(refusals::bad("a container may always connect to itself"));
        }
        if to.node() != from.node() {
            return Err(refusals::bad(
                "the containers are on different nodes, and connections between nodes need the \
                 overlay network, which this location does not have yet. Spawn both on one node",
            ));
        }
        let from_ip = self.address(from)?;
        self.address(to)?;
        let (to, from, node) = (to.id(), from.id(), to.node());
        let body = NodeRequestBody::Allow { to, from, from_ip };
        self.forward(
            caller,
            node,
            body,
            Purpose::Allow { to, from },
            limits::ORDER_MS,
        )
    }

    pub(crate) fn disallow(&mut self, to: &Owned, from: &Owned, caller: &Caller) -> Step {
        let allowed = self
            .containers
            .of(to)
            .is_some_and(|c| c.info.allowed_from.contains(&from.id()));
        if !allowed {
            return Ok(Answer::done());
        }
        let from_ip = self.address(from)?;
        let (to, from, node) = (to.id(), from.id(), to.node());
        let body = NodeRequestBody::Disallow { to, from, from_ip };
        self.forward(
            caller,
            node,
            body,
            Purpose::Disallow { to, from },
            limits::ORDER_MS,
        )
    }

    fn address(&self, owned: &Owned) -> Result<std::net::Ipv4Addr, Refusal> {
        let ip = self.containers.of(owned).and_then(|c| c.info.ip);
        ip.ok_or_else(|| {
            refusals::wrong_state("the container has no address: it has not started, or has exited")
        })
    }

    /// The node has done it.
    pub(crate) fn allowed(&mut self, to: ContainerId, from: ContainerId, node: NodeId) {
        let Some(from_ip) = self.containers.get(&from).and_then(|c| c.info.ip) else {
            return;
        };
        let is_live = |id| {
            self.containers
                .get(id)
                .is_some_and(|c| !c.is_doomed() && !c.has_exited())
        };
        if !is_live(&from) {
            // It ended while the order was on its way, when there was nothing to take back yet.
            let body = NodeRequestBody::Disallow { to, from, from_ip };
            let _ = self.order(node, body, Purpose::Disallow { to, from }, limits::ORDER_MS);
            return;
        }
        self.containers.update(&to, |c| {
            if !c.info.allowed_from.contains(&from) {
                c.info.allowed_from.push(from);
            }
        });
        self.tell(&to);
    }

    pub(crate) fn disallowed(&mut self, to: &ContainerId, from: ContainerId) {
        let had = self.containers.update(to, |c| {
            let before = c.info.allowed_from.len();
            c.info.allowed_from.retain(|id| *id != from);
            c.info.allowed_from.len() < before
        });
        if had == Some(true) {
            self.tell(to);
        }
    }

    /// The container can connect to nobody any more.
    pub(crate) fn revoke_allowed(&mut self, from: &ContainerId) {
        let Some(source) = self.containers.get(from) else {
            return;
        };
        let Some(from_ip) = source.info.ip else {
            return;
        };
        let lets_in = |c: &&crate::container::Container| c.info.allowed_from.contains(from);
        let targets = self.containers.of_session(&source.session).filter(lets_in);
        let targets: Vec<_> = targets
            .map(|c| (c.info.id, c.info.node, c.is_doomed()))
            .collect();
        for (to, node, doomed) in targets {
            if !doomed {
                let body = NodeRequestBody::Disallow {
                    to,
                    from: *from,
                    from_ip,
                };
                let purpose = Purpose::Disallow { to, from: *from };
                // If the node is lost, its next report shows what is left to take back.
                let _ = self.order(node, body, purpose, limits::ORDER_MS);
            }
            self.disallowed(&to, *from);
        }
    }

    /// Tells the session how the container fares.
    pub(crate) fn tell(&mut self, id: &ContainerId) {
        let Some(found) = self.containers.get(id) else {
            return;
        };
        let (session, info) = (found.session, Box::new(found.info.clone()));
        self.notify(&session, EventBody::Container(info));
    }
}
