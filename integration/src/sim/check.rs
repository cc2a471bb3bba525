//! The rules: what must hold after every step, what once all has settled, what when all are gone.

use std::collections::{BTreeMap, BTreeSet};

use teu_protocol::{
    ids::{AttachmentId, SessionId},
    message::{ContainerState, Lifetime, NodeContainer},
};

use super::{World, client::Client, node::Node};

/// What a killed client owned is gone within this time.
const GONE_MS: u64 = 5_000;
/// An order to destroy that failed is repeated within this time.
const REPEATED_MS: u64 = 2_500;
/// A node that comes back settles what it has within this time.
const SETTLED_MS: u64 = 2_000;
/// After the master's restart clients may come back for so long.
const RESTART_MS: u64 = 32_000;

type Rule = Result<(), String>;

impl World {
    /// Holds after every step.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn check(&mut self) -> Rule {
        if let Some(broken) = self.broken.pop() {
            return Err(broken);
        }
        self.no_route_is_left_behind()?;
        self.nobody_is_orphaned()
    }

    /// Holds when no faults happened for a while.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn check_settled(&mut self) -> Rule {
        self.check()?;
        self.all_are_answered()?;
        self.addresses_and_ids_are_unique()?;
        self.views_agree()?;
        self.streams_agree()
    }

    /// Holds when all clients have gone and all sessions were ended.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn check_empty(&mut self) -> Rule {
        self.check()?;
        for node in &self.nodes {
            if !node.containers.is_empty() || !node.making.is_empty() || !node.streams.is_empty() {
                return Err(format!("left on node {}: {node:?}", node.number));
            }
        }
        let routes = self.daemon.as_ref().map_or(0, |daemon| daemon.routes.len());
        if routes > 0 {
            return Err(format!("{routes} routes are left"));
        }
        if let Some(session) = self.store.sessions.keys().next() {
            return Err(format!("{session} is left in the store"));
        }
        Ok(())
    }

    fn no_route_is_left_behind(&self) -> Rule {
        let Some(daemon) = &self.daemon else {
            return Ok(());
        };
        for connection in daemon.routed() {
            if !self
                .links
                .get(&connection)
                .is_some_and(|link| link.master_has_it)
            {
                return Err(format!("a route outlived {connection:?}"));
            }
        }
        Ok(())
    }

    /// Nothing runs for long after its owner ended, on a node that the master talks to.
    fn nobody_is_orphaned(&self) -> Rule {
        for node in self.nodes.iter().filter(|node| self.is_served(node)) {
            for container in node.containers.values() {
                if let Some(since) = self.ended(container)
                    && self.now > self.allowed(since, node, container)
                {
                    return Err(format!(
                        "orphan at {} since {since:?}: {container:?}",
                        self.now
                    ));
                }
                for (process, bound) in &container.processes {
                    let Some(bound) = bound else { continue };
                    let since = self.attachment_ended(bound);
                    if since.is_some_and(|since| self.now > self.allowed(since, node, container)) {
                        return Err(format!("orphaned process at {}: {process:?}", self.now));
                    }
                }
            }
        }
        Ok(())
    }

    fn is_served(&self, node: &Node) -> bool {
        let link = node.link.and_then(|id| self.links.get(&id));
        self.daemon.is_some()
            && link.is_some_and(|link| link.works())
            && node.reported_at <= self.now
    }

    fn allowed(&self, since: Ended, node: &Node, container: &NodeContainer) -> u64 {
        let failed = node.failed.get(&container.container).copied().unwrap_or(0);
        let started_at = self.daemon.as_ref().map_or(0, |daemon| daemon.started_at);
        let mut allowed = (since.at + GONE_MS).max(node.reported_at + SETTLED_MS);
        if since.may_come_back {
            allowed = allowed.max(started_at + RESTART_MS);
        }
        allowed + failed * REPEATED_MS
    }

    /// When the container's owner ended.
    fn ended(&self, container: &NodeContainer) -> Option<Ended> {
        if let Some(at) = self.store.ended.get(&container.session) {
            return Some(Ended {
                at: *at,
                may_come_back: false,
            });
        }
        let bound = container.lifetime == Lifetime::Attachment;
        if (bound || !self.is_persistent(&container.session))
            && let Some(ended) = self.attachment_ended(&container.attachment)
        {
            return Some(ended);
        }
        if container.lifetime == Lifetime::FirstProcess {
            let exited = self
                .nodes
                .iter()
                .find_map(|n| n.exited_at.get(&container.container));
            // Its output may be read for the time that it lingers.
            return exited.map(|at| Ended {
                at: *at + 2_000,
                may_come_back: false,
            });
        }
        None
    }

    fn attachment_ended(&self, attachment: &AttachmentId) -> Option<Ended> {
        let client = self
            .clients
            .iter()
            .find(|client| client.attachment == *attachment)?;
        let at = client.dead_since?;
        Some(Ended {
            at,
            may_come_back: client.attached_to != self.runs,
        })
    }

    fn is_persistent(&self, session: &SessionId) -> bool {
        self.store
            .sessions
            .get(session)
            .is_some_and(|session| session.name.is_some())
    }

    fn survivors(&self) -> impl Iterator<Item = (usize, &Client)> {
        self.clients
            .iter()
            .enumerate()
            .filter(|(_, client)| client.dead_since.is_none())
    }

    fn all_are_answered(&self) -> Rule {
        for (n, client) in self.survivors() {
            if !client.ready {
                return Err(format!("client {n} did not get back"));
            }
            if let Some(pending) = client.pending.values().next() {
                return Err(format!("client {n} was not answered: {pending:?}"));
            }
        }
        Ok(())
    }

    fn addresses_and_ids_are_unique(&self) -> Rule {
        let (mut ids, mut addresses) = (BTreeSet::new(), BTreeMap::new());
        for container in self.nodes.iter().flat_map(|node| node.containers.values()) {
            if !ids.insert(container.container) {
                return Err(format!("{} is on two nodes", container.container));
            }
            if matches!(container.state, ContainerState::Exited { .. }) {
                continue; // It uses its address no more: a successor may have it.
            }
            let Some(ip) = container.ip else { continue };
            if let Some(other) = addresses.insert(ip, container.container) {
                return Err(format!("{ip} has {other} and {}", container.container));
            }
        }
        Ok(())
    }

    /// Each client sees what runs, and nothing else.
    fn views_agree(&self) -> Rule {
        for (n, client) in self.survivors() {
            let own = self.nodes.iter().flat_map(|node| node.containers.values());
            let own = own.filter(|c| Some(c.session) == client.session);
            let runs: BTreeMap<_, _> = own.map(|c| (c.container, c.state)).collect();
            let seen: BTreeMap<_, _> = client
                .containers
                .values()
                .map(|info| (info.id, info.state))
                .collect();
            if runs != seen {
                return Err(format!("client {n} sees {seen:?}, there are {runs:?}"));
            }
        }
        Ok(())
    }

    fn streams_agree(&self) -> Rule {
        let routes = self.daemon.as_ref().map_or(0, |daemon| daemon.routes.len());
        let clients: usize = self.clients.iter().map(|client| client.streams.len()).sum();
        let nodes: usize = self.nodes.iter().map(|node| node.streams.len()).sum();
        if routes == clients && clients == nodes {
            Ok(())
        } else {
            Err(format!(
                "{routes} routes, {clients} streams at clients, {nodes} at nodes"
            ))
        }
    }
}

/// When an owner ended, and whether a restarted master has to wait for it all the same.
#[derive(Debug, Clone, Copy)]
struct Ended {
    at: u64,
    may_come_back: bool,
}
