//! A node's report against the table: what lives is adopted, what nobody owns is destroyed, what is
//! missing is told.
//!
//! Invariant: afterwards the table and the node agree, but for what is ordered destroyed.

use std::collections::{BTreeMap, BTreeSet};

use teu_protocol::{
    ids::NodeId,
    message::{
        Cause, ContainerState, ExitStatus, NodeContainer, NodeReport, NodeRequestBody,
        ProcessState, Termination,
    },
};

use crate::{
    Core,
    container::{Bound, Container},
    limits,
    nodes::Link,
    orders::Purpose,
    sessions::Expiry,
};

impl Core {
    pub(crate) fn reported(&mut self, id: NodeId, report: NodeReport) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let Some(connection) = node.link.connection() else {
            return;
        };
        node.link = Link::Up(connection);
        node.seen = true;
        node.platform = report.platform;
        node.version = report.version;
        node.capacity = report.capacity;
        node.usage = report.usage;
        node.layers = report.layers.into_iter().collect();
        self.nodes.touch(&id);

        self.miss(id, &report.containers);
        for found in &report.containers {
            self.found(id, found);
        }
        self.revoke_stale(id, &report.containers);
        self.volumes_reported(id, report.volumes);
        self.sweep_layers(id);
        self.release_held();
    }

    /// What the table has on this node, but the node does not.
    fn miss(&mut self, id: NodeId, reported: &[NodeContainer]) {
        let reported: BTreeSet<_> = reported.iter().map(|found| found.container).collect();
        let missing = self
            .containers
            .on_node(&id)
            .filter(|c| !reported.contains(&c.info.id));
        let missing: Vec<_> = missing
            .map(|c| {
                (
                    c.info.id,
                    c.is_doomed() || c.is_being_made(),
                    c.has_exited(),
                )
            })
            .collect();
        let termination = Termination {
            status: ExitStatus::Signal(9),
            cause: Cause::NodeLost,
        };
        let at_ms = self.now.unix_ms;
        for (container, never_was_or_should_not_be, has_exited) in missing {
            if never_was_or_should_not_be {
                self.gone(&container);
            } else if !has_exited {
                self.container_is(
                    id,
                    &container,
                    ContainerState::Exited { termination, at_ms },
                );
                self.containers.update(&container, |c| c.info.ip = None);
                self.tell(&container);
            }
        }
    }

    /// What the node has.
    fn found(&mut self, node: NodeId, found: &NodeContainer) {
        let id = found.container;
        match self.containers.get(&id) {
            Some(known) if known.info.node != node => self.destroy_leftover(node, id),
            Some(known) if known.is_doomed() => self.order_destroyed(&id),
            Some(known) if known.session != found.session => self.destroy_leftover(node, id),
            Some(_) => self.refresh(node, found),
            None => self.adopt(node, found),
        }
    }

    /// A container that the master does not know: a session's of before the restart, or nobody's.
    fn adopt(&mut self, node: NodeId, found: &NodeContainer) {
        let session = self.sessions.of_account(&found.account, &found.session);
        let attachment_may_live = session.is_some_and(|session| {
            session.knows(&found.attachment)
                || (self.is_restarting() && session.may_expect(&found.attachment))
        });
        let bound = found.lifetime == teu_protocol::message::Lifetime::Attachment;
        let destroyed = session.is_none_or(|session| session.was_destroyed(&found.container));
        if destroyed || (bound && !attachment_may_live) {
            self.destroy_leftover(node, found.container);
            return;
        }
        let mut container = Container::adopted(found, node);
        container.info.ip = None;
        container.info.allowed_from.clear();
        let taken = container.info.tag.as_ref();
        if taken.is_some_and(|tag| self.containers.tagged(&found.account, tag).is_some()) {
            container.info.tag = None;
        }
        if let Some(image) = self.images.get(&found.account, &found.image) {
            container.layers = image
                .manifest
                .layers
                .iter()
                .map(|layer| layer.digest)
                .collect();
        }
        self.containers.insert(container);
        if bound {
            self.expect(found.session, found.attachment);
        }
        let bound = found.processes.iter().filter_map(|(_, to)| to.as_ref());
        for attachment in bound.chain(&found.readers) {
            if self.is_restarting() {
                self.expect(found.session, *attachment);
            }
        }
        self.refresh(node, found);
    }

    /// Its client may come back after the master's restart.
    fn expect(
        &mut self,
        session: teu_protocol::ids::SessionId,
        attachment: teu_protocol::ids::AttachmentId,
    ) {
        let until_ms = self.started.monotonic_ms + limits::RESTART_GRACE_MS;
        let known = self.sessions.get_mut(&session);
        if let Some(known) = known.filter(|s| s.may_expect(&attachment)) {
            known.expect(attachment, until_ms);
            self.sessions
                .expires(until_ms, Expiry::Attachment(session, attachment));
        }
    }

    fn is_restarting(&self) -> bool {
        self.clock() < self.started.monotonic_ms + limits::RESTART_GRACE_MS
    }

    /// A container of a living session: the node's word on it counts.
    fn refresh(&mut self, node: NodeId, found: &NodeContainer) {
        let id = found.container;
        if let Some(ip) = found.ip
            && !self.may_have(node, &id, ip)
        {
            self.doom(&id);
            return;
        }
        let mut processes = BTreeMap::new();
        for (info, to) in &found.processes {
            if info.state == ProcessState::Running {
                let bound = Bound {
                    to: *to,
                    confirmed: true,
                    kill_at_ms: None,
                };
                processes.insert(info.id, bound);
            }
        }
        self.containers.update(&id, |c| {
            c.info.ip = found.ip;
            c.info.command.clone_from(&found.command);
            c.info.allowed_from = found.allowed_from.iter().map(|(from, _)| *from).collect();
            c.processes = processes;
            c.unconfirmed = false;
        });
        self.container_is(node, &id, found.state);
        self.condemn_processes(&id, None);
        self.refresh_readers(&id, &found.readers);
    }

    /// Rules for containers that are gone are taken back.
    fn revoke_stale(&mut self, node: NodeId, reported: &[NodeContainer]) {
        for found in reported {
            let to = found.container;
            for (from, from_ip) in &found.allowed_from {
                let source = self.containers.get(from);
                let holds = source.is_some_and(|c| {
                    !c.is_doomed()
                        && !c.has_exited()
                        && c.info.ip == Some(*from_ip)
                        && c.session == found.session
                });
                let kept = self.containers.get(&to).is_some_and(|c| !c.is_doomed());
                if kept && !holds {
                    let body = NodeRequestBody::Disallow {
                        to,
                        from: *from,
                        from_ip: *from_ip,
                    };
                    let purpose = Purpose::Disallow { to, from: *from };
                    let _ = self.order(node, body, purpose, limits::ORDER_MS);
                    self.disallowed(&to, *from);
                }
            }
        }
    }
}
