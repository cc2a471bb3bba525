//! Which addresses a node may hand out: one /24 of the location's range for each node.
//!
//! Invariant: subnets of different numbers do not overlap; a container's address lies in its node's.

use std::net::Ipv4Addr;

/// Each node's share: 253 containers (the network, the bridge and the broadcast address are taken).
pub(crate) const PREFIX: u8 = 24;

/// How many nodes a range holds.
pub(crate) fn count(range: (Ipv4Addr, u8)) -> u16 {
    match range.1 {
        prefix @ 9..=PREFIX => 1 << (PREFIX - prefix),
        _ if range.1 < 9 => u16::MAX,
        _ => 0,
    }
}

/// The subnet of that number, counted from 0. `None`: the range is not that large.
pub(crate) fn nth(range: (Ipv4Addr, u8), number: u16) -> Option<(Ipv4Addr, u8)> {
    if number >= count(range) {
        return None;
    }
    let base = u32::from(range.0) & mask(range.1);
    Some((
        Ipv4Addr::from(base | u32::from(number) << (32 - PREFIX)),
        PREFIX,
    ))
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
    use super::*;

    #[test]
    fn subnets_are_numbered_through_the_range() {
        let range = (Ipv4Addr::new(10, 20, 0, 0), 16);
        assert_eq!(count(range), 256);
        assert_eq!(nth(range, 0), Some((Ipv4Addr::new(10, 20, 0, 0), 24)));
        assert_eq!(nth(range, 255), Some((Ipv4Addr::new(10, 20, 255, 0), 24)));
        assert_eq!(nth(range, 256), None);
        assert_eq!(count((Ipv4Addr::new(10, 0, 0, 0), 24)), 1);
        assert_eq!(count((Ipv4Addr::new(10, 0, 0, 0), 25)), 0);
        assert_eq!(count((Ipv4Addr::new(10, 0, 0, 0), 8)), u16::MAX);
    }

    #[test]
    fn an_address_is_held_only_inside_and_not_at_the_edges() {
        let subnet = (Ipv4Addr::new(10, 20, 3, 0), 24);
        for (last, fits) in [(0, false), (1, false), (2, true), (254, true), (255, false)] {
            assert_eq!(
                may_hold(subnet, Ipv4Addr::new(10, 20, 3, last)),
                fits,
                "{last}"
            );
        }
        assert!(!may_hold(subnet, Ipv4Addr::new(10, 20, 4, 9)));
    }
}
