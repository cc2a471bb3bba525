//! The table of containers: by id, session, node, address and tag.
//!
//! Owner: [`crate::Core`]. Invariants: the indexes agree; no two containers have one address; no
//! two that live in one account have one tag; [`Owned`] is made only by [`Containers::owned`].
//! Next: [`crate::container`] for one container.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use teu_protocol::{
    ids::{ContainerId, NodeId, PublicKey, SessionId, Tag, VolumeId},
    message::{ContainerState, Refusal},
};

use crate::{container::Container, placement::Promises, refusals};

/// All containers that are known, those included that are being destroyed.
#[derive(Debug, Default)]
pub(crate) struct Containers {
    by_id: BTreeMap<ContainerId, Container>,
    by_session: BTreeMap<SessionId, BTreeSet<ContainerId>>,
    by_node: BTreeMap<NodeId, BTreeSet<ContainerId>>,
    by_ip: BTreeMap<Ipv4Addr, ContainerId>,
    by_tag: BTreeMap<(PublicKey, Tag), ContainerId>,
    /// Containers that have not ended, by what they have mounted.
    by_volume: BTreeMap<VolumeId, BTreeSet<ContainerId>>,
    /// Volumes whose users may be others than before.
    touched_volumes: BTreeSet<VolumeId>,
    doomed: BTreeSet<ContainerId>,
    attended: BTreeSet<ContainerId>,
    promises: BTreeMap<NodeId, Promises>,
    /// The same for each account.
    shares: BTreeMap<(NodeId, PublicKey), Promises>,
}

/// Proof that the container exists, belongs to the session that asked, and is not being destroyed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owned {
    id: ContainerId,
    node: NodeId,
    state: ContainerState,
}

impl Owned {
    pub(crate) fn id(&self) -> ContainerId {
        self.id
    }

    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    pub(crate) fn state(&self) -> ContainerState {
        self.state
    }
}

impl Containers {
    /// The one look-up by which a session gets at a container.
    pub(crate) fn owned(&self, session: &SessionId, id: &ContainerId) -> Result<Owned, Refusal> {
        match self.by_id.get(id) {
            Some(c) if c.session == *session && !c.is_doomed() => Ok(Owned {
                id: *id,
                node: c.info.node,
                state: c.info.state,
            }),
            _ => Err(refusals::no_container()),
        }
    }

    /// What is owned.
    pub(crate) fn of(&self, owned: &Owned) -> Option<&Container> {
        self.by_id.get(&owned.id)
    }

    /// The master's own look-up: not for answering sessions.
    pub(crate) fn get(&self, id: &ContainerId) -> Option<&Container> {
        self.by_id.get(id)
    }

    pub(crate) fn insert(&mut self, container: Container) {
        let id = container.info.id;
        self.remove(&id);
        self.by_session
            .entry(container.session)
            .or_default()
            .insert(id);
        self.index(&container);
        self.by_id.insert(id, container);
    }

    pub(crate) fn remove(&mut self, id: &ContainerId) -> Option<Container> {
        let container = self.by_id.remove(id)?;
        self.unindex(&container);
        let (session, ids) = (
            container.session,
            self.by_session.get_mut(&container.session),
        );
        if ids.is_some_and(|ids| ids.remove(id) && ids.is_empty()) {
            self.by_session.remove(&session);
        }
        Some(container)
    }

    /// Changes a container and keeps the indexes right.
    pub(crate) fn update<R>(
        &mut self,
        id: &ContainerId,
        change: impl FnOnce(&mut Container) -> R,
    ) -> Option<R> {
        let mut container = self.by_id.remove(id)?;
        self.unindex(&container);
        let result = change(&mut container);
        self.index(&container);
        self.by_id.insert(*id, container);
        Some(result)
    }

    fn index(&mut self, c: &Container) {
        let id = c.info.id;
        self.by_node.entry(c.info.node).or_default().insert(id);
        if let Some(ip) = c.info.ip {
            self.by_ip.entry(ip).or_insert(id);
        }
        if c.is_doomed() {
            self.doomed.insert(id);
        } else if let Some(tag) = &c.info.tag {
            self.by_tag.entry((c.account, tag.clone())).or_insert(id);
        }
        if c.needs_attention() {
            self.attended.insert(id);
        }
        if !c.has_exited() {
            for mount in &c.info.volumes {
                self.by_volume.entry(mount.volume).or_default().insert(id);
                self.touched_volumes.insert(mount.volume);
            }
        }
        if c.takes_resources() {
            self.promises
                .entry(c.info.node)
                .or_default()
                .add(&c.info.limits);
            self.shares
                .entry((c.info.node, c.account))
                .or_default()
                .add(&c.info.limits);
        }
    }

    fn unindex(&mut self, c: &Container) {
        let id = c.info.id;
        if self
            .by_node
            .get_mut(&c.info.node)
            .is_some_and(|ids| ids.remove(&id) && ids.is_empty())
        {
            self.by_node.remove(&c.info.node);
        }
        if let Some(ip) = c.info.ip
            && self.by_ip.get(&ip) == Some(&id)
        {
            self.by_ip.remove(&ip);
        }
        if c.is_doomed() {
            self.doomed.remove(&id);
        } else if let Some(tag) = &c.info.tag {
            let key = (c.account, tag.clone());
            if self.by_tag.get(&key) == Some(&id) {
                self.by_tag.remove(&key);
            }
        }
        self.attended.remove(&id);
        for mount in &c.info.volumes {
            self.touched_volumes.insert(mount.volume);
            if self
                .by_volume
                .get_mut(&mount.volume)
                .is_some_and(|ids| ids.remove(&id) && ids.is_empty())
            {
                self.by_volume.remove(&mount.volume);
            }
        }
        if c.takes_resources()
            && let Some(promises) = self.promises.get_mut(&c.info.node)
        {
            promises.subtract(&c.info.limits);
            let share = (c.info.node, c.account);
            if let Some(promises) = self.shares.get_mut(&share) {
                promises.subtract(&c.info.limits);
                if promises.containers == 0 {
                    self.shares.remove(&share);
                }
            }
        }
    }

    /// A session's containers that are not being destroyed, in the order of their making.
    pub(crate) fn listed(&self, session: &SessionId) -> Vec<&Container> {
        let mut listed: Vec<_> = self
            .of_session(session)
            .filter(|c| !c.is_doomed())
            .collect();
        listed.sort_by_key(|c| (c.info.created_ms, c.info.id));
        listed
    }

    /// All of a session's containers.
    pub(crate) fn of_session(&self, session: &SessionId) -> impl Iterator<Item = &Container> {
        let ids = self.by_session.get(session).into_iter().flatten();
        ids.filter_map(|id| self.by_id.get(id))
    }

    pub(crate) fn count_of(&self, session: &SessionId) -> usize {
        self.by_session.get(session).map_or(0, BTreeSet::len)
    }

    pub(crate) fn on_node(&self, node: &NodeId) -> impl Iterator<Item = &Container> {
        let ids = self.by_node.get(node).into_iter().flatten();
        ids.filter_map(|id| self.by_id.get(id))
    }

    pub(crate) fn at(&self, ip: &Ipv4Addr) -> Option<ContainerId> {
        self.by_ip.get(ip).copied()
    }

    pub(crate) fn tagged(&self, account: &PublicKey, tag: &Tag) -> Option<ContainerId> {
        self.by_tag.get(&(*account, tag.clone())).copied()
    }

    /// Those that have it mounted, or will, and have not ended.
    pub(crate) fn with_volume(&self, volume: &VolumeId) -> Vec<ContainerId> {
        let ids = self.by_volume.get(volume).into_iter().flatten();
        ids.copied().collect()
    }

    pub(crate) fn take_touched_volumes(&mut self) -> BTreeSet<VolumeId> {
        std::mem::take(&mut self.touched_volumes)
    }

    pub(crate) fn doomed(&self) -> impl Iterator<Item = &Container> {
        self.doomed.iter().filter_map(|id| self.by_id.get(id))
    }

    /// Those that time alone may change.
    pub(crate) fn attended(&self) -> impl Iterator<Item = &Container> {
        self.attended.iter().filter_map(|id| self.by_id.get(id))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Container> {
        self.by_id.values()
    }

    /// What the containers of a node were promised.
    pub(crate) fn promises(&self, node: &NodeId) -> Promises {
        self.promises.get(node).copied().unwrap_or_default()
    }

    /// What an account's containers of a node were promised.
    pub(crate) fn share(&self, node: &NodeId, account: &PublicKey) -> Promises {
        let share = self.shares.get(&(*node, *account));
        share.copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
