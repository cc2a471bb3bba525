//! The end of containers: condemned once, ordered destroyed until the node confirms.
//!
//! ```text
//! doom ──▶ Ordered ──Done──▶ gone          A lost link, a refusal or a timeout lead back to Due;
//!   └────▶ Due ─────▲                       a node's report settles what was lost with a link.
//! ```
//! Invariant: a doomed container is no session's any more ([`crate::containers::Owned`] cannot be
//! made for it), and nothing that it was allowed to reach lets it in.

use teu_protocol::{
    ids::{AttachmentId, ContainerId, NodeId},
    message::{EventBody, Lifetime, NodeRequestBody, Refusal, RefusalCode},
};

use crate::{
    Core,
    connections::Caller,
    container::Doom,
    limits,
    orders::Purpose,
    refusals,
    request::{Answer, Step},
};

impl Core {
    /// A client wants it gone.
    pub(crate) fn destroy(&mut self, caller: &Caller, id: &ContainerId) -> Step {
        let Some(found) = self
            .containers
            .get(id)
            .filter(|c| c.session == caller.session)
        else {
            let session = self.sessions.get(&caller.session);
            return if session.is_some_and(|session| session.was_destroyed(id)) {
                Ok(Answer::done())
            } else {
                Err(self.not_found(&caller.session))
            };
        };
        let node = found.info.node;
        self.up(&node)?;
        self.condemn(id);
        let body = NodeRequestBody::Destroy(*id);
        self.forward(caller, node, body, Purpose::Destroy(*id), limits::ORDER_MS)
    }

    /// The container's owner is gone: it is destroyed, now or when its node is back.
    pub(crate) fn doom(&mut self, id: &ContainerId) {
        if self.containers.get(id).is_some_and(|c| !c.is_doomed()) {
            self.condemn(id);
            self.order_destroyed(id);
        }
    }

    fn condemn(&mut self, id: &ContainerId) {
        self.revoke_allowed(id);
        let at_ms = self.clock() + limits::ORDER_MS;
        self.containers
            .update(id, |c| c.doom = Some(c.doom.unwrap_or(Doom::Due { at_ms })));
    }

    pub(crate) fn order_destroyed(&mut self, id: &ContainerId) {
        let Some(node) = self.containers.get(id).map(|c| c.info.node) else {
            return;
        };
        let body = NodeRequestBody::Destroy(*id);
        let ordered = self
            .order(node, body, Purpose::Destroy(*id), limits::ORDER_MS)
            .is_ok();
        let at_ms = self.clock();
        let doom = if ordered {
            Doom::Ordered
        } else {
            Doom::Due { at_ms }
        };
        self.containers.update(id, |c| c.doom = Some(doom));
    }

    /// An order to destroy came to nothing: it is repeated.
    pub(crate) fn destroy_again(&mut self, node: &NodeId, id: &ContainerId) {
        let at_ms = self.clock() + limits::RETRY_DESTROY_MS;
        if self
            .containers
            .get(id)
            .is_some_and(|c| c.info.node == *node && c.is_doomed())
        {
            self.containers
                .update(id, |c| c.doom = Some(Doom::Due { at_ms }));
        } else if let Some(leftover) = self
            .nodes
            .get_mut(node)
            .and_then(|node| node.leftovers.get_mut(id))
        {
            *leftover = Some(at_ms);
        }
    }

    /// The node has something that nobody owns.
    pub(crate) fn destroy_leftover(&mut self, node: NodeId, id: ContainerId) {
        let body = NodeRequestBody::Destroy(id);
        let ordered = self
            .order(node, body, Purpose::Destroy(id), limits::ORDER_MS)
            .is_ok();
        let at_ms = self.clock() + limits::RETRY_DESTROY_MS;
        if let Some(node) = self.nodes.get_mut(&node) {
            node.leftovers.insert(id, (!ordered).then_some(at_ms));
        }
    }

    /// Repeats what is due.
    pub(crate) fn repeat_destroys(&mut self) {
        let now = self.clock();
        let is_due =
            |doom: &Option<Doom>| matches!(doom, Some(Doom::Due { at_ms }) if *at_ms <= now);
        let up = |node: &NodeId| self.nodes.get(node).is_some_and(|node| node.is_up());
        let due = self
            .containers
            .doomed()
            .filter(|c| is_due(&c.doom) && up(&c.info.node));
        let due: Vec<_> = due.map(|c| c.info.id).collect();
        for id in due {
            self.order_destroyed(&id);
        }
        let leftovers = self
            .nodes
            .iter()
            .filter(|node| node.is_up())
            .flat_map(|node| {
                let due = node
                    .leftovers
                    .iter()
                    .filter(|(_, at)| at.is_some_and(|at| at <= now));
                due.map(|(id, _)| (node.record.id, *id))
            });
        let leftovers: Vec<_> = leftovers.collect();
        for (node, id) in leftovers {
            self.destroy_leftover(node, id);
        }
    }

    /// The node says that nothing of it is left.
    pub(crate) fn destroyed(&mut self, node: &NodeId, id: &ContainerId) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.leftovers.remove(id);
        }
        if self
            .containers
            .get(id)
            .is_some_and(|c| c.info.node == *node)
        {
            self.gone(id);
        }
    }

    /// Nothing of it is left: so neither here.
    pub(crate) fn gone(&mut self, id: &ContainerId) {
        self.revoke_allowed(id);
        let Some(container) = self.containers.remove(id) else {
            return;
        };
        self.close_streams_to(id);
        if let Some(session) = self.sessions.get_mut(&container.session) {
            session.remember_destroyed(*id);
        }
        self.notify(&container.session, EventBody::ContainerGone(*id));
    }

    /// Its first process ended.
    pub(crate) fn exited(&mut self, id: &ContainerId) {
        self.revoke_allowed(id);
        let linger_until_ms = self.clock() + limits::LINGER_MS;
        self.containers.update(id, |c| {
            c.processes.clear();
            if c.lifetime == Lifetime::FirstProcess && c.linger_until_ms.is_none() {
                c.linger_until_ms = Some(linger_until_ms);
            }
        });
        self.end_lingering(id);
    }

    /// Destroys a `FirstProcess` container that exited once nobody reads its output any more.
    pub(crate) fn end_lingering(&mut self, id: &ContainerId) {
        let until = self.containers.get(id).and_then(|c| c.linger_until_ms);
        let Some(until_ms) = until else { return };
        if until_ms <= self.clock() || self.streams.of_container(id).is_empty() {
            self.doom(id);
        }
    }

    pub(crate) fn end_all_lingering(&mut self) {
        let lingering: Vec<_> = self.containers.attended().map(|c| c.info.id).collect();
        for id in lingering {
            self.end_lingering(&id);
        }
    }

    /// Processes of attachments that ended are killed: all that no living attachment holds, or
    /// those of one.
    pub(crate) fn condemn_processes(&mut self, id: &ContainerId, of: Option<AttachmentId>) {
        let now = self.clock();
        let Some(container) = self.containers.get(id) else {
            return;
        };
        let session = self.sessions.get(&container.session);
        let is_over = |to: &AttachmentId| match of {
            Some(attachment) => *to == attachment,
            None => !session.is_some_and(|session| session.knows(to)),
        };
        let over = container
            .processes
            .iter()
            .filter(|(_, b)| b.to.is_some_and(|to| is_over(&to)));
        let over: Vec<_> = over.map(|(process, _)| *process).collect();
        if over.is_empty() {
            return;
        }
        self.containers.update(id, |c| {
            for process in over {
                if let Some(bound) = c.processes.get_mut(&process) {
                    bound.kill_at_ms = Some(now);
                }
            }
        });
        self.kill_condemned();
    }

    pub(crate) fn kill_condemned(&mut self) {
        let now = self.clock();
        let mut due = Vec::new();
        for container in self.containers.attended().filter(|c| !c.is_doomed()) {
            let killed = container.processes.iter();
            let killed = killed.filter(|(_, b)| b.kill_at_ms.is_some_and(|at| at <= now));
            due.extend(
                killed.map(|(process, _)| (container.info.id, container.info.node, *process)),
            );
        }
        for (container, node, process) in due {
            let body = NodeRequestBody::Signal {
                container,
                process: Some(process),
                signal: teu_protocol::image_config::signal::Signal::KILL,
            };
            let purpose = Purpose::Kill { container, process };
            let _ = self.order(node, body, purpose, limits::RETRY_DESTROY_MS);
            let again_ms = now + limits::RETRY_DESTROY_MS;
            self.containers.update(&container, |c| {
                if let Some(bound) = c.processes.get_mut(&process) {
                    bound.kill_at_ms = Some(again_ms);
                }
            });
        }
    }

    /// What a request for an unknown container is told. The same for a foreign one; and after a
    /// restart nobody is told "no" before the nodes had their say.
    pub(crate) fn not_found(&self, session: &teu_protocol::ids::SessionId) -> Refusal {
        let restored = self
            .sessions
            .get(session)
            .is_some_and(|session| session.restored);
        if restored && !self.is_settled() {
            refusals::settling()
        } else {
            refusals::no_container()
        }
    }

    /// The node's name if it is up.
    pub(crate) fn up(&self, node: &NodeId) -> Result<&str, Refusal> {
        match self.nodes.get(node) {
            Some(node) if node.is_up() => Ok(node.name()),
            Some(node) => Err(refusals::node_lost(node.name())),
            None => Err(Refusal::new(
                RefusalCode::NotFound,
                "there is no such node in this location. `teu resources` lists those that there are",
            )),
        }
    }
}
