//! The container's side of a slot: address, routes, loopback, settings, set from outside.
//!
//! Owned by the network worker's thread, which visits the namespace. Invariant: the container has
//! its address as a /32 and one route, to the gateway: it never looks for a neighbour on the wire,
//! so packets to other containers take the host's forward hook like all others.
//! Next: `link` for the host's side.

use std::fs;
use std::io;
use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::channel::Request;
use super::config::NetConfig;
use super::link::{INSIDE, Links, address, request, up};
use super::neighbour;

/// The loopback interface is always the first of a namespace.
const LOOPBACK_INDEX: u32 = 1;

/// Root in a container is nobody on the host, so low ports are open to everybody inside; every
/// group may ping without raw sockets; redirects are nobody's to send.
const SETTINGS: [(&str, &str); 3] = [
    ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
    ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
    ("/proc/sys/net/ipv4/conf/all/accept_redirects", "0"),
];

/// Sets the calling thread's namespace up as a container's with address `ip`.
pub(super) fn configure(config: &NetConfig, ip: Ipv4Addr) -> io::Result<()> {
    for (setting, value) in SETTINGS {
        fs::write(setting, value)?;
    }
    // IPv6 is off on the wire; `::1` stays for programs that listen on it.
    let without_ipv6 = fs::write(
        format!("/proc/sys/net/ipv6/conf/{INSIDE}/disable_ipv6"),
        "1",
    );
    match without_ipv6 {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut links = Links::open()?;
    let inside = links
        .find(INSIDE)?
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?;
    links.all(&[
        up(LOOPBACK_INDEX),
        address(inside.index, ip, 32),
        up(inside.index),
        default_route(inside.index, config.subnet.gateway()),
        neighbour::known(inside.index, config.subnet.gateway()),
    ])
}

/// `default via <gateway> dev <index> onlink`: onlink, for a /32 has no neighbours.
fn default_route(index: u32, gateway: Ipv4Addr) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.header.flags = RouteFlags::Onlink;
    message.attributes = vec![
        RouteAttribute::Gateway(RouteAddress::Inet(gateway)),
        RouteAttribute::Oif(index),
    ];
    request(
        RouteNetlinkMessage::NewRoute(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}
