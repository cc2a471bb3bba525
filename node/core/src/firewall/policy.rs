//! Who may reach whom on this node: attached containers, allowed pairs, and the set elements that
//! the kernel must hold to enforce it.
//!
//! Owned by the node's network worker. Invariants: nothing is allowed unless somebody allowed it;
//! a pair names at least one container of this node, and only attached ones; detaching a container
//! removes every pair that names it, so the next owner of its address inherits nothing; replaying
//! the changes gives exactly `elements()`. Next: `decision` for what the elements mean.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::Ipv4Subnet;

/// `from` may open connections to `to`; answers come back, nothing else does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pair {
    /// Who opens.
    pub from: Ipv4Addr,
    /// Who is reached.
    pub to: Ipv4Addr,
}

/// One thing that the kernel's sets hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// The container's port on the bridge speaks only with this address.
    Binding(Ipv4Addr),
    /// This pair may talk.
    Allowed(Pair),
}

/// What must be done to the kernel's sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Put it in.
    Add(Element),
    /// Take it out.
    Remove(Element),
}

/// The firewall of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firewall {
    subnet: Ipv4Subnet,
    location: Ipv4Subnet,
    attached: BTreeSet<Ipv4Addr>,
    allowed: BTreeSet<Pair>,
}

/// Why the firewall will not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FirewallRefusal {
    /// The node's subnet is not part of its location.
    #[error("subnet {subnet} is not within the location's range {location}")]
    SubnetOutside {
        /// The node's subnet.
        subnet: Ipv4Subnet,
        /// The location's range.
        location: Ipv4Subnet,
    },
    /// Not an address that a container of this node can have.
    #[error("{0} is not a container address of this node")]
    NotOurs(Ipv4Addr),
    /// The address belongs to a container already.
    #[error("{0} is attached already")]
    AttachedTwice(Ipv4Addr),
    /// A rule about an address that no container of this node has.
    #[error("no container of this node has the address {0}")]
    NotAttached(Ipv4Addr),
    /// A rule about an address outside the location.
    #[error("{0} is not an address of a container of this location")]
    OutsideLocation(Ipv4Addr),
    /// A rule between two containers of other nodes.
    #[error("neither {} nor {} is a container of this node", .0.from, .0.to)]
    NoEndHere(Pair),
    /// A container always reaches itself; a rule for it is a mistake.
    #[error("{0} cannot be allowed to itself")]
    Itself(Ipv4Addr),
}

impl Firewall {
    /// A firewall that allows nothing, for a node's `subnet` within its `location`'s range.
    pub fn new(subnet: Ipv4Subnet, location: Ipv4Subnet) -> Result<Self, FirewallRefusal> {
        if !location.covers(subnet) {
            return Err(FirewallRefusal::SubnetOutside { subnet, location });
        }
        Ok(Self {
            subnet,
            location,
            attached: BTreeSet::new(),
            allowed: BTreeSet::new(),
        })
    }

    /// The node's subnet.
    #[must_use]
    pub fn subnet(&self) -> Ipv4Subnet {
        self.subnet
    }

    /// The range of the whole location.
    #[must_use]
    pub fn location(&self) -> Ipv4Subnet {
        self.location
    }

    /// A container appears; it reaches, and is reached by, nobody.
    pub fn attach(&mut self, address: Ipv4Addr) -> Result<Vec<Change>, FirewallRefusal> {
        if !self.subnet.is_for_containers(address) {
            return Err(FirewallRefusal::NotOurs(address));
        }
        if !self.attached.insert(address) {
            return Err(FirewallRefusal::AttachedTwice(address));
        }
        Ok(vec![Change::Add(Element::Binding(address))])
    }

    /// A container goes, and with it all rules about it. Unknown addresses change nothing.
    pub fn detach(&mut self, address: Ipv4Addr) -> Vec<Change> {
        if !self.attached.remove(&address) {
            return Vec::new();
        }
        let gone = |pair: &Pair| pair.from == address || pair.to == address;
        let pairs: Vec<Pair> = self.allowed.iter().copied().filter(gone).collect();
        self.allowed.retain(|pair| !gone(pair));
        let pairs = pairs
            .into_iter()
            .map(|pair| Change::Remove(Element::Allowed(pair)));
        pairs
            .chain([Change::Remove(Element::Binding(address))])
            .collect()
    }

    /// Lets `pair.from` open connections to `pair.to`. Allowing twice changes nothing.
    pub fn allow(&mut self, pair: Pair) -> Result<Vec<Change>, FirewallRefusal> {
        self.check_pair(pair)?;
        if !self.allowed.insert(pair) {
            return Ok(Vec::new());
        }
        Ok(vec![Change::Add(Element::Allowed(pair))])
    }

    /// Takes a permission back; what is not allowed changes nothing.
    pub fn disallow(&mut self, pair: Pair) -> Vec<Change> {
        if !self.allowed.remove(&pair) {
            return Vec::new();
        }
        vec![Change::Remove(Element::Allowed(pair))]
    }

    /// Makes `pairs` the whole truth, leaving unchanged what is unchanged. Pairs that may not
    /// stand (their container is gone) are left out.
    pub fn replace_allowed(&mut self, pairs: impl IntoIterator<Item = Pair>) -> Vec<Change> {
        let wanted: BTreeSet<Pair> = pairs
            .into_iter()
            .filter(|pair| self.check_pair(*pair).is_ok())
            .collect();
        let removed = self
            .allowed
            .difference(&wanted)
            .map(|p| Change::Remove(Element::Allowed(*p)));
        let added = wanted
            .difference(&self.allowed)
            .map(|p| Change::Add(Element::Allowed(*p)));
        let changes = removed.chain(added).collect();
        self.allowed = wanted;
        changes
    }

    /// Everything the kernel's sets must hold.
    #[must_use]
    pub fn elements(&self) -> BTreeSet<Element> {
        let bindings = self
            .attached
            .iter()
            .map(|address| Element::Binding(*address));
        bindings
            .chain(self.allowed.iter().map(|pair| Element::Allowed(*pair)))
            .collect()
    }

    /// The allowed pairs.
    pub fn allowed(&self) -> impl Iterator<Item = Pair> + '_ {
        self.allowed.iter().copied()
    }

    /// Whether a container of this node has `address`.
    #[must_use]
    pub fn is_attached(&self, address: Ipv4Addr) -> bool {
        self.attached.contains(&address)
    }

    /// Whether `pair` is allowed.
    #[must_use]
    pub fn is_allowed(&self, pair: Pair) -> bool {
        self.allowed.contains(&pair)
    }

    fn check_pair(&self, pair: Pair) -> Result<(), FirewallRefusal> {
        if pair.from == pair.to {
            return Err(FirewallRefusal::Itself(pair.from));
        }
        for end in [pair.from, pair.to] {
            if !self.location.is_for_containers(end) {
                return Err(FirewallRefusal::OutsideLocation(end));
            }
            if self.subnet.contains(end) && !self.attached.contains(&end) {
                return Err(FirewallRefusal::NotAttached(end));
            }
        }
        if !self.subnet.contains(pair.from) && !self.subnet.contains(pair.to) {
            return Err(FirewallRefusal::NoEndHere(pair));
        }
        Ok(())
    }
}
