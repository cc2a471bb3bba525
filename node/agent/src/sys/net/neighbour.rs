//! Hardware addresses that nobody has to ask for.
//!
//! An address of a container always has the same hardware address, and so has the gateway: entries that are made by hand save
//! the asking, and the kernel does not count them: its table of neighbours holds 1,024 of all namespaces together
//! (`net.ipv4.neigh.default.gc_thresh3`), which 512 talking containers would fill. Pure.

use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};

use super::{channel::Request, config::NetConfig, link::request};

/// `ip neigh replace <ip> lladdr <its own> dev <index> nud permanent`.
pub(super) fn known(index: u32, ip: Ipv4Addr) -> Request {
    let mut message = entry(index, ip);
    message.header.state = NeighbourState::Permanent;
    let hardware = NetConfig::container_mac(ip).to_vec();
    message
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(hardware));
    request(
        RouteNetlinkMessage::NewNeighbour(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

/// `ip neigh del <ip> dev <index>`.
pub(super) fn unknown(index: u32, ip: Ipv4Addr) -> Request {
    request(RouteNetlinkMessage::DelNeighbour(entry(index, ip)), 0)
}

fn entry(index: u32, ip: Ipv4Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = index;
    message.attributes = vec![NeighbourAttribute::Destination(NeighbourAddress::Inet(ip))];
    message
}
