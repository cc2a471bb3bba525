//! Spawning: checked, placed, entered into the table, ordered.
//!
//! Invariant: the container's id is derived from session and request, so a spawn that is retried
//! (after a reconnect, a lost node, a restart of the master) never makes a second container.

use bytes::Bytes;
use teu_protocol::{
    ids::{ContainerId, NodeId, PublicKey},
    message::{
        ContainerInfo, ContainerState, EventBody, NodeRequestBody, NodeSpawn, Refusal, RefusalCode,
        ReplyBody, ResourceLimits, SpawnSpec,
    },
};

use crate::{
    Core, bounds,
    connections::Caller,
    container::Container,
    limits,
    nodes::Node,
    orders::Purpose,
    placement::{self, Candidate, Share, Wanted},
    record, refusals,
    request::{Answer, Step},
    subnet,
};

impl Core {
    pub(crate) fn spawn(&mut self, caller: &Caller, spec: SpawnSpec, bulk: Vec<Bytes>) -> Step {
        bounds::spawn(&spec, &bulk)?;
        let id = ContainerId::derive(&caller.session, &caller.request);
        let session = self
            .sessions
            .get(&caller.session)
            .ok_or_else(refusals::no_session)?;
        if session.was_destroyed(&id) {
            return Err(refusals::wrong_state(
                "this container was destroyed while it started",
            ));
        }
        if self.containers.get(&id).is_some() {
            return self.spawn_again(caller, &id, spec, bulk);
        }
        if session.restored && !self.is_settled() {
            // It may run already on a node that has not told yet.
            return Err(refusals::settling());
        }
        let image = self.image_to_run(&caller.account, &spec)?;
        self.check_room(caller, &spec)?;
        let asked = self.node_of_volumes(caller, &spec.volumes, spec.node)?;
        let node = self.place(&caller.account, asked, &image, spec.limits)?;
        self.check_bulk(node, &bulk)?;
        let container = self.requested(caller, id, node, &spec, &image);
        let info = container.info.clone();
        self.containers.insert(container);
        self.notify(&caller.session, EventBody::Container(Box::new(info)));
        self.order_spawn(caller, &id, spec, image, bulk)
    }

    /// The same spawn again: wait for the one that is on its way, or tell what came of it.
    fn spawn_again(
        &mut self,
        caller: &Caller,
        id: &ContainerId,
        spec: SpawnSpec,
        bulk: Vec<Bytes>,
    ) -> Step {
        let found = self.containers.get(id).ok_or_else(refusals::no_container)?;
        if found.is_doomed() {
            return Err(refusals::wrong_state("this container is being destroyed"));
        }
        if !found.is_being_made() {
            return Ok(Answer::now(ReplyBody::Spawned(Box::new(
                found.info.clone(),
            ))));
        }
        let (node, unconfirmed) = (found.info.node, found.unconfirmed);
        let image = self.image_to_run(&caller.account, &spec)?;
        if let Err(lost) = self.up(&node) {
            // Volumes do not follow to another node.
            if !unconfirmed || spec.node.is_some() || !spec.volumes.is_empty() {
                return Err(lost);
            }
            // If the lost node comes back with it after all, it is destroyed there.
            let elsewhere = self.place(&caller.account, None, &image, spec.limits)?;
            self.check_bulk(elsewhere, &bulk)?;
            self.containers.update(id, |c| c.info.node = elsewhere);
        } else {
            self.check_bulk(node, &bulk)?;
        }
        self.order_spawn(caller, id, spec, image, bulk)
    }

    fn order_spawn(
        &mut self,
        caller: &Caller,
        id: &ContainerId,
        spec: SpawnSpec,
        image: record::Image,
        bulk: Vec<Bytes>,
    ) -> Step {
        let found = self.containers.get(id).ok_or_else(refusals::no_container)?;
        let node = found.info.node;
        let spawn = NodeSpawn {
            container: *id,
            session: caller.session,
            attachment: found.attachment,
            account: caller.account,
            created_ms: found.info.created_ms,
            spec,
            image: image.manifest,
        };
        let body = NodeRequestBody::Spawn(Box::new(spawn));
        self.forward_with(
            caller,
            node,
            (body, bulk),
            Purpose::Spawn(*id),
            limits::SPAWN_MS,
        )
    }

    fn image_to_run(
        &self,
        account: &PublicKey,
        spec: &SpawnSpec,
    ) -> Result<record::Image, Refusal> {
        self.images
            .get(account, &spec.image)
            .cloned()
            .ok_or_else(refusals::no_image)
    }

    fn check_room(&self, caller: &Caller, spec: &SpawnSpec) -> Result<(), Refusal> {
        let count = self.containers.count_of(&caller.session);
        if count >= limits::SESSION.containers as usize {
            return Err(refusals::limit(format!(
                "this session has {count} containers, which is the most. Destroy some"
            )));
        }
        match &spec.tag {
            Some(tag) if self.containers.tagged(&caller.account, tag).is_some() => {
                Err(Refusal::new(
                    RefusalCode::TagTaken,
                    format!(
                        "another container of this account is called `{tag}`. Choose another \
                         name, or remove that one with `teu rm {tag}`"
                    ),
                ))
            }
            _ => Ok(()),
        }
    }

    fn check_bulk(&self, node: NodeId, bulk: &[Bytes]) -> Result<(), Refusal> {
        let more: usize = bulk.iter().map(Bytes::len).sum();
        let waiting = self.orders.bulk_bytes(node);
        if more > 0 && waiting + more > limits::NODE_BULK_BYTES {
            return Err(refusals::node_is_receiving());
        }
        Ok(())
    }

    fn place(
        &self,
        account: &PublicKey,
        asked: Option<NodeId>,
        image: &record::Image,
        limits: ResourceLimits,
    ) -> Result<NodeId, Refusal> {
        let wanted = Wanted {
            platform: &image.platform,
            limits,
        };
        if let Some(id) = asked {
            self.up(&id)?;
        }
        let candidates: Vec<_> = self
            .nodes
            .iter()
            .filter(|node| node.is_up() && asked.is_none_or(|id| id == node.record.id))
            .map(|node| self.candidate(account, node, image))
            .collect();
        if candidates.is_empty() && !self.is_settled() {
            return Err(refusals::settling());
        }
        placement::choose(&candidates, wanted).map_err(|refusal| self.until_back(asked, refusal))
    }

    /// A node whose agent restarts may take what no other can: then the refusal is one that passes.
    pub(crate) fn until_back(&self, asked: Option<NodeId>, refusal: Refusal) -> Refusal {
        let now = self.clock();
        let mut away = self.nodes.iter().filter(|node| node.may_come_back(now));
        match away.next() {
            Some(node) if asked.is_none() => refusals::node_may_come_back(node.name(), &refusal),
            _ => refusal,
        }
    }

    fn candidate<'a>(
        &self,
        account: &PublicKey,
        node: &'a Node,
        image: &record::Image,
    ) -> Candidate<'a> {
        let id = node.record.id;
        let all: u64 = image.manifest.layers.iter().map(|layer| layer.size).sum();
        let there = image
            .manifest
            .layers
            .iter()
            .filter(|l| node.layers.contains(&l.digest));
        let there: u64 = there.map(|layer| layer.size).sum();
        let present = u128::from(there) * 1_000 / u128::from(all.max(1));
        let promises = self.containers.promises(&id);
        let containers_max = subnet::containers(node.subnet);
        Candidate {
            id,
            name: node.name(),
            platform: &node.platform,
            capacity: node.capacity,
            usage: node.usage,
            promises,
            layers_present: u16::try_from(present).unwrap_or(1_000),
            addresses: containers_max.saturating_sub(promises.containers),
            share: (self.accounts.are_several()).then(|| Share {
                promises: self.containers.share(&id, account),
                containers_max,
            }),
        }
    }

    fn requested(
        &self,
        caller: &Caller,
        id: ContainerId,
        node: NodeId,
        spec: &SpawnSpec,
        image: &record::Image,
    ) -> Container {
        Container {
            info: ContainerInfo {
                id,
                tag: spec.tag.clone(),
                node,
                ip: None,
                image: spec.image,
                image_name: spec.image_name.clone(),
                command: spec.process.args.clone().unwrap_or_default(),
                labels: spec.labels.clone(),
                created_ms: self.now.unix_ms,
                state: ContainerState::Requested,
                tty: spec.process.tty.is_some(),
                limits: spec.limits,
                allowed_from: Vec::new(),
                volumes: spec.volumes.clone(),
            },
            session: caller.session,
            attachment: caller.attachment,
            account: caller.account,
            lifetime: spec.lifetime,
            layers: image
                .manifest
                .layers
                .iter()
                .map(|layer| layer.digest)
                .collect(),
            processes: std::collections::BTreeMap::new(),
            readers: spec
                .process
                .reader
                .map(|_| caller.attachment)
                .into_iter()
                .collect(),
            doom: None,
            unconfirmed: true,
            linger_until_ms: None,
        }
    }
}
