//! Which addresses a node may hand out: a subnet of the location's range for each node.
//!
//! A subnet is named by the number of its first /24 in the range, and its length in bits. The location chooses how
//! large new ones are; those that are given stay as they are, so nodes with large and with small ones live beside
//! each other. Invariant: subnets of different nodes do not overlap; a container's address lies in its node's.

use std::{net::Ipv4Addr, ops::Range};

use crate::record;

/// The smallest subnet, and the unit that subnets are numbered in.
pub const SMALLEST: u8 = 24;
/// The largest that a location may choose: 65,533 addresses.
pub const LARGEST: u8 = 16;
/// What a location gives a node unless it chooses otherwise: 4,093 addresses, more than a node can have
/// containers ([`CONTAINERS_PER_NODE`]), so that addresses of short-lived ones can rest.
pub const DEFAULT: u8 = 20;

/// Containers with an address at once on one node. A bridge of Linux has 1,024 ports (BR_MAX_PORTS); the rest is
/// for warm slots, and for containers that are just going.
pub(crate) const CONTAINERS_PER_NODE: u64 = 960;

/// The network, the bridge and the broadcast address are taken.
const TAKEN: u64 = 3;

/// How many of the smallest subnets a range holds.
fn units(range: (Ipv4Addr, u8)) -> u16 {
    match range.1 {
        prefix @ 9..=SMALLEST => 1 << (SMALLEST - prefix),
        _ if range.1 < 9 => u16::MAX,
        _ => 0,
    }
}

/// The units that a subnet takes.
fn span((number, prefix): (u16, u8)) -> Range<u32> {
    let first = u32::from(number);
    first..first + (1 << SMALLEST.saturating_sub(prefix.max(LARGEST)))
}

/// The subnet of that number and length. `None`: the range is not that large.
pub(crate) fn of(range: (Ipv4Addr, u8), place: (u16, u8)) -> Option<(Ipv4Addr, u8)> {
    let (number, prefix) = place;
    let (base, units) = (u32::from(range.0) & mask(range.1), u32::from(units(range)));
    let first = base | u32::from(number) << (32 - SMALLEST);
    let fits = (LARGEST..=SMALLEST).contains(&prefix)
        && prefix >= range.1
        && span(place).end <= units.max(1)
        && units > 0
        && first & !mask(prefix) == 0;
    fits.then(|| (Ipv4Addr::from(first), prefix))
}

/// A free subnet: of the wanted length if there is one, else the largest smaller one.
#[must_use]
pub fn free<'a>(
    nodes: impl Iterator<Item = &'a record::Node>,
    range: (Ipv4Addr, u8),
    wanted: u8,
) -> Option<(u16, u8)> {
    let taken: Vec<_> = nodes.map(|node| span((node.subnet, node.prefix))).collect();
    let is_free = |one: &Range<u32>| {
        taken
            .iter()
            .all(|other| one.end <= other.start || other.end <= one.start)
    };
    (wanted.clamp(LARGEST, SMALLEST).max(range.1)..=SMALLEST).find_map(|prefix| {
        (0..units(range))
            .step_by(1 << (SMALLEST - prefix))
            .map(|number| (number, prefix))
            .find(|place| of(range, *place).is_some() && is_free(&span(*place)))
    })
}

/// How many containers a node with this subnet can have.
pub(crate) fn containers(subnet: (Ipv4Addr, u8)) -> u64 {
    let addresses = 1_u64 << (32 - u64::from(subnet.1.min(32)));
    addresses.saturating_sub(TAKEN).min(CONTAINERS_PER_NODE)
}

/// Whether a container may have this address: inside, and none of the three that are taken.
pub(crate) fn may_hold(subnet: (Ipv4Addr, u8), ip: Ipv4Addr) -> bool {
    let (base, mask) = (u32::from(subnet.0), mask(subnet.1));
    let host = u32::from(ip) & !mask;
    u32::from(ip) & mask == base & mask && host > 1 && host < !mask
}

fn mask(prefix: u8) -> u32 {
    u32::MAX
        .checked_shl(32 - u32::from(prefix.min(32)))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use teu_protocol::ids::{NodeId, PublicKey};

    use super::*;

    fn node((subnet, prefix): (u16, u8)) -> record::Node {
        record::Node {
            id: NodeId::from_bytes([0; 16]),
            key: PublicKey::from_bytes([0; 32]),
            name: String::new(),
            subnet,
            prefix,
        }
    }

    fn ip(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
        Ipv4Addr::new(a, b, c, d)
    }

    #[test]
    fn subnets_are_numbered_through_the_range() {
        let range = (ip(10, 20, 0, 0), 16);
        assert_eq!(of(range, (0, 24)), Some((ip(10, 20, 0, 0), 24)));
        assert_eq!(of(range, (255, 24)), Some((ip(10, 20, 255, 0), 24)));
        assert_eq!(of(range, (256, 24)), None);
        assert_eq!(of(range, (240, 20)), Some((ip(10, 20, 240, 0), 20)));
        assert_eq!(of(range, (1, 20)), None, "not at a multiple of its size");
        assert_eq!(
            of((ip(10, 0, 0, 0), 24), (0, 20)),
            None,
            "larger than the range"
        );
        assert_eq!(of((ip(10, 0, 0, 0), 25), (0, 24)), None);
        assert_eq!(
            of((ip(10, 0, 0, 0), 16), (0, 16)),
            Some((ip(10, 0, 0, 0), 16))
        );
    }

    #[test]
    fn a_node_gets_what_is_wanted_or_the_largest_that_is_left() {
        let range = (ip(10, 20, 0, 0), 16);
        // Nodes of an earlier version keep their /24.
        let mut nodes = vec![node((0, 24)), node((1, 24))];
        let mut given = Vec::new();
        while let Some(place) = free(nodes.iter(), range, DEFAULT) {
            given.push(place);
            nodes.push(node(place));
        }
        assert_eq!(given[0], (16, 20));
        assert_eq!(given.iter().filter(|(_, prefix)| *prefix == 20).count(), 15);
        assert_eq!(given[15..], [(8, 21), (4, 22), (2, 23)]);
        let small = (ip(10, 20, 3, 0), 24);
        assert_eq!(free([].iter(), small, DEFAULT), Some((0, 24)));
    }

    #[test]
    fn a_node_has_as_many_containers_as_addresses_and_its_bridge_allow() {
        let of_size = |prefix| containers((ip(10, 0, 0, 0), prefix));
        assert_eq!([of_size(24), of_size(23), of_size(20)], [253, 509, 960]);
    }

    proptest! {
        #[test]
        fn subnets_never_overlap(wanted in prop::collection::vec(16u8..=24, 1..40), prefix in 12u8..=24) {
            let range = (ip(10, 16, 0, 0), prefix);
            let mut nodes = Vec::new();
            for wanted in wanted {
                let Some(place) = free(nodes.iter(), range, wanted) else { break };
                let (base, length) = of(range, place).unwrap();
                for other in &nodes {
                    let other: &record::Node = other;
                    let (theirs, their_length) = of(range, (other.subnet, other.prefix)).unwrap();
                    let shorter = mask(length.min(their_length));
                    prop_assert_ne!(u32::from(base) & shorter, u32::from(theirs) & shorter);
                }
                nodes.push(node(place));
            }
        }
    }

    #[test]
    fn an_address_is_held_only_inside_and_not_at_the_edges() {
        let subnet = (ip(10, 20, 3, 0), 24);
        for (last, fits) in [(0, false), (1, false), (2, true), (254, true), (255, false)] {
            assert_eq!(may_hold(subnet, ip(10, 20, 3, last)), fits, "{last}");
        }
        assert!(!may_hold(subnet, ip(10, 20, 4, 9)));
    }
}
