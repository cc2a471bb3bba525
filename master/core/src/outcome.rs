//! What nodes answer, and what becomes of orders that are not answered.
//!
//! Invariant: an answer changes only what the order was about, and only if the node that answers
//! has it; an answer of another kind than was asked is a defect of the node, not of the asker.

use std::net::Ipv4Addr;

use teu_protocol::{
    ids::{ContainerId, NodeId, RequestId},
    message::{ContainerDetail, ContainerState, NodeReplyBody, Refusal, RefusalCode, ReplyBody},
};

use crate::{
    Core,
    orders::{Order, Purpose, VolumeAsk},
    refusals, subnet,
};

type Outcome = Result<ReplyBody, Refusal>;

impl Core {
    pub(crate) fn node_replied(
        &mut self,
        node: NodeId,
        id: RequestId,
        result: Result<NodeReplyBody, Refusal>,
    ) {
        let Some(order) = self.orders.take(node, id) else {
            return;
        };
        let outcome = match result {
            Ok(body) => self.fulfilled(&order, body),
            Err(refusal) => {
                self.refused(&order, &refusal);
                Err(refusal)
            }
        };
        if let Some(asker) = &order.asker {
            self.answer(asker, outcome);
        }
    }

    fn fulfilled(&mut self, order: &Order, body: NodeReplyBody) -> Outcome {
        match (order.purpose, body) {
            (Purpose::Spawn(id), NodeReplyBody::Spawned { ip, state, command }) => {
                self.spawned(order.node, &id, ip, state, command)
            }
            (Purpose::Wake(id) | Purpose::Stop(id), NodeReplyBody::State(state)) => {
                self.container_is(order.node, &id, state);
                let found = self.containers.get(&id).filter(|c| !c.is_doomed());
                let found = found.ok_or_else(refusals::no_container)?;
                Ok(ReplyBody::Container(Box::new(found.info.clone())))
            }
            (
                Purpose::Signal
                | Purpose::Resize
                | Purpose::Kill { .. }
                | Purpose::ReleaseReaders
                | Purpose::RemoveLayers,
                NodeReplyBody::Done,
            ) => Ok(ReplyBody::Done),
            (Purpose::Destroy(id), NodeReplyBody::Done) => {
                self.destroyed(&order.node, &id);
                Ok(ReplyBody::Done)
            }
            (Purpose::Exec { container, process }, NodeReplyBody::Done) => {
                self.containers.update(&container, |c| {
                    if let Some(bound) = c.processes.get_mut(&process) {
                        bound.confirmed = true;
                    }
                });
                Ok(ReplyBody::Started(process))
            }
            (Purpose::Open { client, number }, NodeReplyBody::Opened { window, input }) => {
                self.opened(order.node, (client, number), window)?;
                Ok(ReplyBody::Opened { window, input })
            }
            (
                Purpose::Import {
                    client,
                    number,
                    volume,
                },
                NodeReplyBody::Opened { window, .. },
            ) => {
                self.opened(order.node, (client, number), window)?;
                Ok(ReplyBody::Importing { volume, window })
            }
            (Purpose::Volume(id, ask), body) => self
                .volume_answered(order, &id, ask, body)
                .unwrap_or_else(|| self.odd(order)),
            (Purpose::Allow { to, from }, NodeReplyBody::Done) => {
                self.allowed(to, from, order.node);
                Ok(ReplyBody::Done)
            }
            (Purpose::Disallow { to, from }, NodeReplyBody::Done) => {
                self.disallowed(&to, from);
                Ok(ReplyBody::Done)
            }
            (Purpose::Detail(id), body @ NodeReplyBody::Detail { .. }) => self.detailed(&id, body),
            (Purpose::Doctor(id), NodeReplyBody::Findings(findings)) => {
                self.doctor_heard(id, order.node, Some(findings));
                Ok(ReplyBody::Done)
            }
            _ => self.odd(order),
        }
    }

    /// It answered something else than it was asked.
    fn odd(&mut self, order: &Order) -> Outcome {
        let name = self.nodes.get(&order.node).map_or("?", |node| node.name());
        let refusal = refusals::odd_answer(name);
        self.refused(order, &refusal);
        Err(refusal)
    }

    fn spawned(
        &mut self,
        node: NodeId,
        id: &ContainerId,
        ip: Ipv4Addr,
        state: ContainerState,
        command: Vec<String>,
    ) -> Outcome {
        let here = self.containers.get(id).filter(|c| c.info.node == node);
        let Some(found) = here else {
            self.destroy_leftover(node, *id);
            return Err(refusals::no_container());
        };
        if found.is_doomed() {
            // The order to destroy it is on its way, behind the one that made it.
            return Err(refusals::wrong_state(
                "the container was destroyed while it started",
            ));
        }
        if !self.may_have(node, id, ip) {
            self.doom(id);
            return Err(Refusal::new(
                RefusalCode::Internal,
                format!(
                    "the node gave the container the address {ip}, which is not free or not the \
                     node's to give; the container is destroyed. See `teu doctor`"
                ),
            ));
        }
        self.containers.update(id, |c| {
            c.info.ip = Some(ip);
            c.info.command = command;
            c.unconfirmed = false;
        });
        self.container_is(node, id, state);
        let found = self.containers.get(id).ok_or_else(refusals::no_container)?;
        Ok(ReplyBody::Spawned(Box::new(found.info.clone())))
    }

    /// Whether the address is the node's to give and free. One that ended or is being destroyed
    /// may have left it to its successor before we hear of it.
    pub(crate) fn may_have(&mut self, node: NodeId, id: &ContainerId, ip: Ipv4Addr) -> bool {
        if !self
            .nodes
            .get(&node)
            .is_some_and(|node| subnet::may_hold(node.subnet, ip))
        {
            return false;
        }
        let Some(holder) = self.containers.at(&ip).filter(|holder| holder != id) else {
            return true;
        };
        let over = self
            .containers
            .get(&holder)
            .is_none_or(|c| c.is_doomed() || c.has_exited());
        if over {
            self.containers.update(&holder, |c| c.info.ip = None);
            return true;
        }
        let text = format!(
            "container {} was given {ip}, which {} has",
            id.short(),
            holder.short()
        );
        if let Some(node) = self.nodes.get_mut(&node) {
            node.warn(text);
        }
        false
    }

    fn detailed(&mut self, id: &ContainerId, body: NodeReplyBody) -> Outcome {
        let found = self.containers.get(id).filter(|c| !c.is_doomed());
        let info = found
            .map(|c| c.info.clone())
            .ok_or_else(refusals::no_container)?;
        let NodeReplyBody::Detail {
            processes,
            env_names,
            exposed_ports,
            files,
            termination,
        } = body
        else {
            return Err(refusals::odd_answer("?"));
        };
        Ok(ReplyBody::Detail(Box::new(ContainerDetail {
            info,
            processes,
            env_names,
            exposed_ports,
            files,
            termination,
        })))
    }

    /// The node will not: what was entered for the order is taken back.
    fn refused(&mut self, order: &Order, refusal: &Refusal) {
        match order.purpose {
            Purpose::Spawn(id) => {
                let here = self
                    .containers
                    .get(&id)
                    .filter(|c| c.info.node == order.node);
                if here.is_some_and(|c| c.is_being_made()) {
                    self.gone(&id);
                }
            }
            Purpose::Destroy(id) => self.destroy_again(&order.node, &id),
            Purpose::Exec { container, process } => {
                self.containers
                    .update(&container, |c| c.processes.remove(&process));
            }
            Purpose::Kill { container, process } if refusal.code == RefusalCode::NotFound => {
                self.containers.update(&container, |c| {
                    if c.processes
                        .get(&process)
                        .is_some_and(|bound| bound.confirmed)
                    {
                        c.processes.remove(&process);
                    }
                });
            }
            Purpose::Open { client, number } | Purpose::Import { client, number, .. } => {
                self.not_opened(&client, number);
            }
            Purpose::Volume(id, ask) => self.volume_refused(order, &id, ask),
            Purpose::Doctor(id) => self.doctor_heard(id, order.node, None),
            Purpose::Wake(_)
            | Purpose::Stop(_)
            | Purpose::Signal
            | Purpose::Kill { .. }
            | Purpose::Resize
            | Purpose::ReleaseReaders
            | Purpose::RemoveLayers
            | Purpose::Allow { .. }
            | Purpose::Disallow { .. }
            | Purpose::Detail(_) => {}
        }
    }

    /// The node's link is gone before it answered. Its report will tell what was done.
    pub(crate) fn lost(&mut self, order: &Order, refusal: &Refusal) {
        if let Some(asker) = &order.asker {
            self.answer(asker, Err(refusal.clone()));
        }
        match order.purpose {
            // The container stays, unconfirmed: the retry, the node's report or its late answer on
            // the next link settles it.
            Purpose::Spawn(_) | Purpose::Volume(_, VolumeAsk::Make) => {
                self.orders.wait_for_late(order, self.now.monotonic_ms);
            }
            // The mark stays: the report settles what was done.
            Purpose::Volume(_, VolumeAsk::Destroy) => {}
            _ => self.refused(order, refusal),
        }
    }

    /// Answers those who waited too long.
    pub(crate) fn expire_orders(&mut self) {
        for (node, purpose, asker) in self.orders.expire(self.clock()) {
            match purpose {
                Purpose::Destroy(id) => self.destroy_again(&node, &id),
                Purpose::Open { client, number } | Purpose::Import { client, number, .. } => {
                    self.not_opened(&client, number);
                }
                Purpose::Doctor(id) => self.doctor_heard(id, node, None),
                _ => {}
            }
            if let Some(asker) = asker {
                let name = self.nodes.get(&node).map_or("?", |node| node.name());
                let text = format!(
                    "node `{name}` has not answered in time; it may still do what it was asked. \
                     Asking again is safe"
                );
                self.answer(&asker, Err(Refusal::new(RefusalCode::Timeout, text)));
            }
        }
    }
}
