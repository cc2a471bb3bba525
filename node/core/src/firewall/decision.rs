//! What the firewall means: may this flow be opened? A plain restatement of the rules in a form
//! that can be read and tested without a kernel.
//!
//! Owned by nobody (a function of `Firewall`). Invariant: the nftables ruleset of the agent
//! decides the same; a root test compares the two. Next: the agent's `sys/net/ruleset`.

use std::net::Ipv4Addr;

use super::reserved::is_reserved;
use super::{Firewall, Pair};

/// The port of DNS, the only service that a container may use at a private address.
pub const DNS_PORT: u16 = 53;

/// Where a packet really comes from, whatever source address it claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The container that was given this address.
    Container(Ipv4Addr),
    /// A container of another node (its own node checked its source).
    OtherNode,
    /// The machine that the node runs on.
    Host,
    /// Anything else that can send to the machine.
    Outside,
}

/// The first packet of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Who really sends it.
    pub origin: Origin,
    /// Source address it claims.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Destination port, for TCP and UDP.
    pub port: Option<u16>,
}

/// What a container may use besides the internet, and what is too near to be the internet.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The resolvers written into containers' resolv.conf.
    pub resolvers: Vec<Ipv4Addr>,
    /// All addresses of the host itself.
    pub host: Vec<Ipv4Addr>,
}

impl Firewall {
    /// Whether the flow may be opened. Flows that do not touch a container of this node are not
    /// TEU's business and pass.
    #[must_use]
    pub fn may_open(&self, opening: &Opening, around: &Surroundings) -> bool {
        let Opening {
            origin,
            source,
            destination,
            ..
        } = *opening;
        let to_location = self.location().contains(destination);
        match origin {
            Origin::Container(address) if address != source => false,
            Origin::Container(_) if self.is_resolver_query(opening, around) => true,
            Origin::Container(from) if to_location => self.is_allowed(Pair {
                from,
                to: destination,
            }),
            Origin::Container(_) => {
                !is_reserved(destination) && !around.host.contains(&destination)
            }
            _ if !self.subnet().is_for_containers(destination) => true,
            Origin::OtherNode => self.is_allowed(Pair {
                from: source,
                to: destination,
            }),
            Origin::Host | Origin::Outside => false,
        }
    }

    fn is_resolver_query(&self, opening: &Opening, around: &Surroundings) -> bool {
        opening.port == Some(DNS_PORT)
            && around.resolvers.contains(&opening.destination)
            && !self.location().contains(opening.destination)
    }
}
