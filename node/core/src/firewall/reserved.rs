//! The address ranges that are not the internet (RFC 6890 and the IANA special-purpose registry).
//!
//! Owned by nobody: constants. Invariant: sorted and disjoint, so it can be an interval set.
//! Next: `decision`, and the agent's `sys/net/ruleset`.

use std::net::Ipv4Addr;

/// A range that containers do not reach: first address, prefix length, what it is.
pub type Reserved = (Ipv4Addr, u8, &'static str);

/// All of them. The metadata services of clouds live in 169.254.0.0/16.
pub const RESERVED: [Reserved; 14] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, "this network, RFC 791"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "private, RFC 1918"),
    (
        Ipv4Addr::new(100, 64, 0, 0),
        10,
        "carrier-grade NAT, RFC 6598",
    ),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback, RFC 1122"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "link-local, RFC 3927"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "private, RFC 1918"),
    (
        Ipv4Addr::new(192, 0, 0, 0),
        24,
        "protocol assignments, RFC 6890",
    ),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "TEST-NET-1, RFC 5737"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "6to4 relay, RFC 7526"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "private, RFC 1918"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "benchmarking, RFC 2544"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "TEST-NET-2, RFC 5737"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "TEST-NET-3, RFC 5737"),
    // 224.0.0.0/4 multicast and 240.0.0.0/4 reserved, broadcast included.
    (
        Ipv4Addr::new(224, 0, 0, 0),
        3,
        "multicast and reserved, RFC 5771, RFC 1112",
    ),
];

/// Whether `address` lies in a reserved range.
#[must_use]
pub fn is_reserved(address: Ipv4Addr) -> bool {
    RESERVED.iter().any(|(base, prefix, _)| {
        let shift = 32 - u32::from(*prefix);
        u32::from(address) >> shift == u32::from(*base) >> shift
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_sorted_and_disjoint() {
        let ends: Vec<(u32, u32)> = RESERVED
            .iter()
            .map(|(base, prefix, _)| {
                let first = u32::from(*base);
                (first, first | (u32::MAX >> prefix))
            })
            .collect();
        assert!(ends.windows(2).all(|w| w[0].1 < w[1].0));
    }

    #[test]
    fn the_internet_is_not_reserved() {
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "172.15.0.1",
            "172.32.0.1",
            "223.255.255.255",
        ] {
            assert!(!is_reserved(public.parse().unwrap()), "{public}");
        }
        for near in [
            "10.0.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "255.255.255.255",
            "127.0.0.1",
        ] {
            assert!(is_reserved(near.parse().unwrap()), "{near}");
        }
    }
}
