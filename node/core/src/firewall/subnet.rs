//! An IPv4 subnet as the master hands it to a node: base address and prefix length.
//!
//! Owned by whoever holds the value; made by parsing. Invariant: the host bits of the base are
//! zero and there is room for a gateway and at least one container. Next: `pool`.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IPv4 subnet, written `10.77.1.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Subnet {
    base: Ipv4Addr,
    prefix: u8,
}

/// Why a text or a pair of numbers is not a subnet that TEU can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Not of the form `a.b.c.d/n`.
    #[error("{0:?} is not a subnet; write it like 10.77.1.0/24")]
    Malformed(String),
    /// Too large or too small to be shared out.
    #[error("a subnet's prefix must be from 8 to 30, not {0}")]
    Prefix(u8),
    /// The base is not the first address of the subnet.
    #[error("{base}/{prefix} has host bits set; its subnet is {}/{prefix}", Ipv4Subnet::masked(*.base, *.prefix))]
    HostBits {
        /// The address as given.
        base: Ipv4Addr,
        /// The prefix length as given.
        prefix: u8,
    },
}

impl Ipv4Subnet {
    /// A subnet from its first address and prefix length (8 to 30).
    pub fn new(base: Ipv4Addr, prefix: u8) -> Result<Self, SubnetError> {
        if !(8..=30).contains(&prefix) {
            return Err(SubnetError::Prefix(prefix));
        }
        if Self::masked(base, prefix) != base {
            return Err(SubnetError::HostBits { base, prefix });
        }
        Ok(Self { base, prefix })
    }

    /// First address; names the subnet itself.
    #[must_use]
    pub fn base(self) -> Ipv4Addr {
        self.base
    }

    /// Prefix length in bits.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The first host: the node's own address on its bridge.
    #[must_use]
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base) + 1)
    }

    /// The last address: broadcast.
    #[must_use]
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base) | !Self::mask(self.prefix))
    }

    /// Whether `address` lies within.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        Self::masked(address, self.prefix) == self.base
    }

    /// Whether `inner` lies wholly within.
    #[must_use]
    pub fn covers(self, inner: Self) -> bool {
        inner.prefix >= self.prefix && self.contains(inner.base)
    }

    /// Whether a container may have `address`: neither base, gateway nor broadcast.
    #[must_use]
    pub fn is_for_containers(self, address: Ipv4Addr) -> bool {
        self.contains(address)
            && address != self.base
            && address != self.gateway()
            && address != self.broadcast()
    }

    /// How many containers fit.
    #[must_use]
    pub fn capacity(self) -> u32 {
        !Self::mask(self.prefix) - 2
    }

    /// The container address number `index` (0-based), wrapping round.
    #[must_use]
    pub fn container_address(self, index: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base) + 2 + index % self.capacity())
    }

    /// The number of `address` within the subnet; the gateway is 1.
    #[must_use]
    pub fn host_number(self, address: Ipv4Addr) -> u32 {
        u32::from(address) & !Self::mask(self.prefix)
    }

    /// The address with this number, if it is within the subnet.
    #[must_use]
    pub fn address_of(self, host_number: u32) -> Option<Ipv4Addr> {
        let address = Ipv4Addr::from(u32::from(self.base).checked_add(host_number)?);
        self.contains(address).then_some(address)
    }

    fn mask(prefix: u8) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
    }

    fn masked(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(address) & Self::mask(prefix))
    }
}

impl FromStr for Ipv4Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let malformed = || SubnetError::Malformed(text.to_owned());
        let (base, prefix) = text.split_once('/').ok_or_else(malformed)?;
        let base = base.parse().map_err(|_| malformed())?;
        let prefix = prefix.parse().map_err(|_| malformed())?;
        Self::new(base, prefix)
    }
}

impl TryFrom<String> for Ipv4Subnet {
    type Error = SubnetError;

    fn try_from(text: String) -> Result<Self, SubnetError> {
        text.parse()
    }
}

impl From<Ipv4Subnet> for String {
    fn from(subnet: Ipv4Subnet) -> Self {
        subnet.to_string()
    }
}

impl fmt::Display for Ipv4Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Ipv4Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn parses_and_prints() {
        for text in ["10.77.1.0/24", "10.0.0.0/8", "10.77.1.4/30"] {
            assert_eq!(subnet(text).to_string(), text);
        }
        for text in [
            "10.77.1.0",
            "10.77.1.0/31",
            "10.77.1.0/7",
            "10.77.1.5/24",
            "x/24",
            "::/64",
        ] {
            assert!(text.parse::<Ipv4Subnet>().is_err(), "{text}");
        }
        let host_bits = "10.77.1.5/24"
            .parse::<Ipv4Subnet>()
            .unwrap_err()
            .to_string();
        assert_eq!(
            host_bits,
            "10.77.1.5/24 has host bits set; its subnet is 10.77.1.0/24"
        );
    }

    #[test]
    fn reserves_base_gateway_and_broadcast() {
        let net = subnet("10.77.1.4/30");
        assert_eq!(net.capacity(), 1);
        assert_eq!(net.gateway(), Ipv4Addr::new(10, 77, 1, 5));
        assert_eq!(net.broadcast(), Ipv4Addr::new(10, 77, 1, 7));
        assert_eq!(net.container_address(0), Ipv4Addr::new(10, 77, 1, 6));
        assert_eq!(net.container_address(1), net.container_address(0));
        assert!(net.is_for_containers(Ipv4Addr::new(10, 77, 1, 6)));
        assert!(!net.is_for_containers(net.gateway()));
    }

    #[test]
    fn covers_only_what_is_inside() {
        assert!(subnet("10.77.0.0/16").covers(subnet("10.77.1.0/24")));
        assert!(!subnet("10.77.1.0/24").covers(subnet("10.77.0.0/16")));
        assert!(!subnet("10.77.0.0/16").covers(subnet("10.78.1.0/24")));
    }
}
