//! What the node's network is made from, and what everything in it is called.
//!
//! Owned by the agent, which fills it from its own configuration and the master's grant.
//! Invariant: all names derive from the instance's name and the container's address, so an agent
//! that restarts finds its things again without having written anything down. Next: `handle`.

use std::net::Ipv4Addr;
use std::time::Duration;

use teu_node_core::firewall::{Ipv4Subnet, Pair};

use super::sysctl;
use crate::sys::names::{InstanceName, SlotName};

/// How long an address rests between two containers. Long enough for other nodes to be told that
/// its rules are gone; short enough that a /24 still serves more than 100 spawns a second.
pub const DEFAULT_ADDRESS_REST: Duration = Duration::from_secs(2);

/// One container has at most this part of what the host can track: a flood from a few leaves the host its own.
const FLOWS_PART: u32 = 16;

/// The node's network.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// Names the bridge, the veths and the nftables tables.
    pub instance: InstanceName,
    /// This node's addresses; the first host is the gateway.
    pub subnet: Ipv4Subnet,
    /// The addresses of all nodes of the location.
    pub location_range: Ipv4Subnet,
    /// The resolvers in containers' resolv.conf: reachable on port 53 even if private, even if
    /// they are the host itself. Those inside `location_range` are ignored.
    pub resolvers: Vec<Ipv4Addr>,
    /// Further ranges that are not to be reached, besides all private and special ones: for
    /// example a lan that has public addresses.
    pub also_denied: Vec<Ipv4Subnet>,
    /// Largest packet, in bytes, on the bridge and in containers. At most that of the uplink.
    pub mtu: u32,
    /// How long an address rests between two containers.
    pub address_rest: Duration,
    /// Connections that the host tracks for one container at once: more are not opened.
    pub flows_per_container: u32,
}

/// A container's place in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotNet {
    /// Whose it is.
    pub slot: SlotName,
    /// Its address.
    pub ip: Ipv4Addr,
    /// The host's end of its veth.
    pub veth: String,
}

/// A container that was running before the agent started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// Its slot.
    pub slot: SlotName,
    /// The address that it was given.
    pub ip: Ipv4Addr,
}

impl NetConfig {
    /// A network with the default packet size and rest, without resolvers.
    #[must_use]
    pub fn new(instance: InstanceName, subnet: Ipv4Subnet, location_range: Ipv4Subnet) -> Self {
        Self {
            instance,
            subnet,
            location_range,
            resolvers: Vec::new(),
            also_denied: Vec::new(),
            mtu: 1500,
            address_rest: DEFAULT_ADDRESS_REST,
            flows_per_container: sysctl::tracked_connections() / FLOWS_PART,
        }
    }

    /// The bridge's name.
    #[must_use]
    pub fn bridge(&self) -> String {
        format!("{}0", self.instance)
    }

    /// The name of both nftables tables (families `inet` and `bridge`).
    #[must_use]
    pub fn table(&self) -> &str {
        self.instance.as_str()
    }

    /// The host's end of the veth of the container that has `ip`.
    #[must_use]
    pub fn veth(&self, ip: Ipv4Addr) -> String {
        format!("{}v{}", self.instance, self.subnet.host_number(ip))
    }

    /// The address that a veth of this name belongs to, if it is one of this instance's.
    #[must_use]
    pub fn address_of_veth(&self, interface: &str) -> Option<Ipv4Addr> {
        let number = interface
            .strip_prefix(self.instance.as_str())?
            .strip_prefix('v')?;
        let address = self.subnet.address_of(number.parse().ok()?)?;
        (self.veth(address) == interface).then_some(address)
    }

    /// Whether `interface` is called as this instance's veths are, in whatever subnet.
    #[must_use]
    pub fn is_veth_name(&self, interface: &str) -> bool {
        let number = interface
            .strip_prefix(self.instance.as_str())
            .and_then(|rest| rest.strip_prefix('v'));
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    }

    /// The container's end's hardware address: locally administered, derived from the address, so
    /// that an address never changes its hardware and a neighbour entry is never stale.
    #[must_use]
    pub fn container_mac(ip: Ipv4Addr) -> [u8; 6] {
        let [a, b, c, d] = ip.octets();
        [0x02, 0x7e, a, b, c, d]
    }

    /// The host's end's hardware address. Set, lest udev thinks of one.
    #[must_use]
    pub(super) fn port_mac(ip: Ipv4Addr) -> [u8; 6] {
        let [a, b, c, d] = ip.octets();
        [0x02, 0x7f, a, b, c, d]
    }

    pub(super) fn slot_net(&self, slot: SlotName, ip: Ipv4Addr) -> SlotNet {
        SlotNet {
            slot,
            ip,
            veth: self.veth(ip),
        }
    }

    /// Resolvers that get an exception: those outside the location.
    pub(super) fn outer_resolvers(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.resolvers
            .iter()
            .copied()
            .filter(|ip| !self.location_range.contains(*ip))
    }
}

/// A pair from its two ends.
pub(super) fn pair(from: Ipv4Addr, to: Ipv4Addr) -> Pair {
    Pair { from, to }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_derive_from_instance_and_address() {
        let subnet = "10.77.1.0/24".parse().unwrap();
        let config = NetConfig::new("teu".parse().unwrap(), subnet, subnet);
        let ip = Ipv4Addr::new(10, 77, 1, 254);
        assert_eq!(config.bridge(), "teu0");
        assert_eq!(config.veth(ip), "teuv254");
        assert!(config.is_veth_name("teuv254"));
        assert_eq!(config.address_of_veth("teuv254"), Some(ip));
        for other in ["teuv256", "teuv+5", "teuv05", "teuv"] {
            assert_eq!(config.address_of_veth(other), None, "{other}");
        }
        for other in ["teu0", "teuv", "teuv1x", "teu2v1", "xteuv1"] {
            assert!(!config.is_veth_name(other), "{other}");
        }
    }

    #[test]
    fn the_longest_veth_name_fits() {
        let subnet: Ipv4Subnet = "10.64.0.0/12".parse().unwrap();
        let config = NetConfig::new("abcdefgh".parse().unwrap(), subnet, subnet);
        let last = Ipv4Addr::from(u32::from(subnet.base()) + 65_535);
        assert!(config.veth(last).len() <= 15);
    }
}
