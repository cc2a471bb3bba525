//! The table of nodes: who they are, whether they are there, what they have.
//!
//! Owner: [`crate::Core`]. Invariant: a node is up only while its connection lives and after it has
//! reported on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use teu_protocol::{
    ids::{ContainerId, Digest, NodeId, PublicKey},
    message::{NodeCapacity, NodeOffer, NodeState, NodeUsage},
};

use crate::{ConnectionId, limits, record, subnet};

/// All nodes that may connect.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    by_id: BTreeMap<NodeId, Node>,
    by_key: BTreeMap<PublicKey, NodeId>,
    /// Counts changes of the offer.
    version: u64,
}

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) record: record::Node,
    pub(crate) subnet: (std::net::Ipv4Addr, u8),
    pub(crate) link: Link,
    /// When its link was lost last (or the master started); by the core's clock.
    pub(crate) lost_at_ms: u64,
    /// It has reported since the master started (what follows is known).
    pub(crate) seen: bool,
    pub(crate) platform: String,
    pub(crate) version: String,
    pub(crate) capacity: NodeCapacity,
    pub(crate) usage: NodeUsage,
    pub(crate) layers: BTreeSet<Digest>,
    /// Containers there that the master does not know: ordered destroyed, again at that time.
    pub(crate) leftovers: BTreeMap<ContainerId, Option<u64>>,
    pub(crate) warnings: VecDeque<String>,
    /// The offer's version with which it changed last.
    pub(crate) changed: u64,
}

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Down,
    /// Connected, has not reported.
    Greeted(ConnectionId),
    Up(ConnectionId),
}

impl Link {
    pub(crate) fn connection(self) -> Option<ConnectionId> {
        match self {
            Self::Down => None,
            Self::Greeted(connection) | Self::Up(connection) => Some(connection),
        }
    }
}

impl Nodes {
    pub(crate) fn restored(records: Vec<record::Node>, range: (std::net::Ipv4Addr, u8)) -> Self {
        let mut nodes = Self::default();
        for record in records {
            nodes.put(record, range);
        }
        nodes
    }

    /// Adds a node. `false`: the range has no such subnet.
    pub(crate) fn put(&mut self, record: record::Node, range: (std::net::Ipv4Addr, u8)) -> bool {
        let Some(subnet) = subnet::of(range, (record.subnet, record.prefix)) else {
            return false;
        };
        self.by_key.insert(record.key, record.id);
        if let Some(node) = self.by_id.get_mut(&record.id) {
            node.record = record;
            return true;
        }
        let node = Node {
            record,
            subnet,
            link: Link::Down,
            lost_at_ms: 0,
            seen: false,
            platform: String::new(),
            version: String::new(),
            capacity: NodeCapacity::default(),
            usage: NodeUsage::default(),
            layers: BTreeSet::new(),
            leftovers: BTreeMap::new(),
            warnings: VecDeque::new(),
            changed: 0,
        };
        self.by_id.insert(node.record.id, node);
        true
    }

    pub(crate) fn by_key(&self, key: &PublicKey) -> Option<NodeId> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn get(&self, id: &NodeId) -> Option<&Node> {
        self.by_id.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: &NodeId) -> Option<&mut Node> {
        self.by_id.get_mut(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.by_id.values()
    }

    /// A subnet that no node has; see [`subnet::free`].
    pub(crate) fn free_subnet(
        &self,
        range: (std::net::Ipv4Addr, u8),
        wanted: u8,
    ) -> Option<(u16, u8)> {
        subnet::free(self.by_id.values().map(|node| &node.record), range, wanted)
    }

    /// The node's part of the offer changed: sessions are told with the next push.
    pub(crate) fn touch(&mut self, id: &NodeId) {
        self.version += 1;
        if let Some(node) = self.by_id.get_mut(id) {
            node.changed = self.version;
        }
    }

    pub(crate) fn offer_version(&self) -> u64 {
        self.version
    }

    /// Offers of nodes that changed after that version.
    pub(crate) fn offers_since(&self, version: u64) -> Vec<NodeOffer> {
        let changed = |node: &&Node| node.seen && node.changed > version;
        self.by_id
            .values()
            .filter(changed)
            .map(Node::offer)
            .collect()
    }

    pub(crate) fn all_seen(&self) -> bool {
        self.by_id.values().all(|node| node.seen)
    }
}

impl Node {
    pub(crate) fn name(&self) -> &str {
        &self.record.name
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.link, Link::Up(_))
    }

    /// It is not up, and was a moment ago.
    pub(crate) fn may_come_back(&self, now_ms: u64) -> bool {
        !self.is_up() && now_ms < self.lost_at_ms + limits::NODE_GRACE_MS
    }

    pub(crate) fn offer(&self) -> NodeOffer {
        NodeOffer {
            id: self.record.id,
            name: self.record.name.clone(),
            state: if self.is_up() {
                NodeState::Up
            } else {
                NodeState::Lost
            },
            platform: self.platform.clone(),
            subnet: self.subnet,
            containers_max: u32::try_from(subnet::containers(self.subnet)).unwrap_or(u32::MAX),
            capacity: self.capacity,
            usage: self.usage,
        }
    }

    pub(crate) fn warn(&mut self, text: String) {
        if self.warnings.len() >= limits::WARNINGS_PER_NODE {
            self.warnings.pop_front();
        }
        self.warnings.push_back(text.chars().take(512).collect());
    }
}
