//! Links of the host's side: the bridge, the veths and what the kernel says about them.
//!
//! Owned by the network worker. Invariants: a container's port is isolated before it is up, so
//! that no frame ever goes from port to port; a link is only removed if it carries this
//! instance's name for a veth or is its bridge. Next: `slot` for the container's side.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{Emitable, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind,
    InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::channel::{Channel, MAX_REQUESTS, Request};
use super::config::NetConfig;
use super::error::NetError;
use super::neighbour;
use super::wire;

/// The container's end.
pub(super) const INSIDE: &str = "eth0";

const RTM_GETLINK: u16 = 18;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_GROUP: u16 = 27;
const IFLA_INFO_KIND: u16 = 1;
const IFINFO_LEN: usize = 16;

/// Groups that TEU uses to remove many links at once start here; small numbers are people's.
const FIRST_GROUP: u32 = 0x5445_5500;

/// What is known about one link.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) master: Option<u32>,
    pub(super) is_bridge: bool,
    pub(super) is_up: bool,
    group: u32,
}

/// One veth to be made.
#[derive(Debug)]
pub(super) struct NewVeth<'a> {
    pub(super) ip: Ipv4Addr,
    pub(super) netns: &'a OwnedFd,
}

/// A socket for the links of one network namespace.
#[derive(Debug)]
pub(super) struct Links {
    channel: Channel,
}

impl Links {
    /// A socket in the calling thread's namespace.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            channel: Channel::open(NETLINK_ROUTE)?,
        })
    }

    /// The link called `name`.
    pub(super) fn find(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut body = vec![0; IFINFO_LEN];
        wire::put_text(&mut body, IFLA_IFNAME, name);
        Ok(self
            .channel
            .get(RTM_GETLINK, &body)?
            .as_deref()
            .and_then(parse))
    }

    /// All links of the namespace.
    pub(super) fn list(&mut self) -> io::Result<Vec<Link>> {
        let answers = self.channel.dump(RTM_GETLINK, &[0; IFINFO_LEN])?;
        Ok(answers.iter().filter_map(|answer| parse(answer)).collect())
    }

    /// Makes the bridge, or mends it: address, hardware address, up. Its index.
    pub(super) fn ensure_bridge(&mut self, config: &NetConfig) -> Result<u32, NetError> {
        let bridge = config.bridge();
        let failed = |action| {
            move |source| NetError::Bridge {
                action,
                bridge: config.bridge(),
                source,
            }
        };
        let found = self.find(&bridge).map_err(failed("look for"))?;
        if found.as_ref().is_some_and(|link| !link.is_bridge) {
            return Err(NetError::NameTaken(bridge));
        }
        if found.is_none() {
            self.one(new_bridge(config)).map_err(failed("create"))?;
        }
        let link = self.find(&bridge).map_err(failed("look for"))?;
        let gone = || io::Error::from_raw_os_error(libc::ENODEV);
        let link = link.ok_or_else(gone).map_err(failed("find"))?;
        let given = self.one(gateway_address(config, link.index));
        present_is_fine(given).map_err(failed("give its address to"))?;
        if !link.is_up {
            self.one(up(link.index)).map_err(failed("bring up"))?;
        }
        Ok(link.index)
    }

    /// Makes veths, enslaved and isolated, their other ends in the containers' namespaces; the
    /// outcome for each. All in a few system calls.
    pub(super) fn create(
        &mut self,
        config: &NetConfig,
        bridge: u32,
        veths: &[NewVeth<'_>],
    ) -> io::Result<Vec<io::Result<()>>> {
        let mut outcomes = Vec::with_capacity(veths.len());
        for chunk in veths.chunks(MAX_REQUESTS / 2) {
            let requests: Vec<Request> = chunk
                .iter()
                .flat_map(|veth| [new_veth(config, bridge, veth), isolate(config, veth.ip)])
                .collect();
            let mut answers = self.channel.transact(&requests)?.into_iter();
            while let (Some(created), Some(isolated)) = (answers.next(), answers.next()) {
                outcomes.push(created.and(isolated));
            }
        }
        Ok(outcomes)
    }

    /// Tells the kernel the hardware addresses behind the bridge; what fails is asked for on the wire, as ever.
    pub(super) fn introduce(&mut self, bridge: u32, ips: &[Ipv4Addr]) -> io::Result<()> {
        for chunk in ips.chunks(MAX_REQUESTS) {
            let requests: Vec<Request> = chunk
                .iter()
                .map(|ip| neighbour::known(bridge, *ip))
                .collect();
            for outcome in self.channel.transact(&requests)? {
                if let Err(error) = outcome {
                    tracing::debug!(%error, "a neighbour is not entered");
                }
            }
        }
        Ok(())
    }

    /// Takes back what [`Links::introduce`] told; what the kernel does not know is fine.
    pub(super) fn forget(
        &mut self,
        config: &NetConfig,
        ips: impl Iterator<Item = Ipv4Addr>,
    ) -> io::Result<()> {
        let Some(bridge) = self.find(&config.bridge())? else {
            return Ok(());
        };
        let requests: Vec<Request> = ips.map(|ip| neighbour::unknown(bridge.index, ip)).collect();
        for chunk in requests.chunks(MAX_REQUESTS) {
            for outcome in self.channel.transact(chunk)? {
                if let Err(error) = outcome {
                    tracing::debug!(%error, "the kernel knew no hardware address of an address");
                }
            }
        }
        Ok(())
    }

    /// Puts existing veths back on the bridge, isolated and up. Does nothing to those in order.
    pub(super) fn reattach(
        &mut self,
        config: &NetConfig,
        bridge: u32,
        ips: &[Ipv4Addr],
    ) -> io::Result<Vec<io::Result<()>>> {
        let mut outcomes = Vec::with_capacity(ips.len());
        for chunk in ips.chunks(MAX_REQUESTS / 2) {
            let requests: Vec<Request> = chunk
                .iter()
                .flat_map(|ip| [enslave(config, bridge, *ip), isolate(config, *ip)])
                .collect();
            let mut answers = self.channel.transact(&requests)?.into_iter();
            while let (Some(enslaved), Some(isolated)) = (answers.next(), answers.next()) {
                outcomes.push(enslaved.and(isolated));
            }
        }
        Ok(outcomes)
    }

    /// Removes the veths among `names` that still exist, all in one go: removing links one by one
    /// costs an RCU grace period each (measured: 100 take 2.0 s, as a group 0.06 s).
    pub(super) fn remove(&mut self, config: &NetConfig, names: &[String]) -> io::Result<()> {
        let links = self.list()?;
        let doomed: Vec<&Link> = links
            .iter()
            .filter(|link| config.is_veth_name(&link.name) && names.contains(&link.name))
            .collect();
        match doomed.as_slice() {
            [] => Ok(()),
            [only] => gone_is_fine(self.one(delete(only.index))),
            many => {
                // No other link is in this group: the list has just said so.
                let unused = |group: &u32| links.iter().all(|link| link.group != *group);
                let group = (FIRST_GROUP..u32::MAX).find(unused).unwrap_or(FIRST_GROUP);
                for chunk in many.chunks(MAX_REQUESTS) {
                    let requests: Vec<Request> = chunk
                        .iter()
                        .map(|link| set_group(link.index, group))
                        .collect();
                    for outcome in self.channel.transact(&requests)? {
                        gone_is_fine(outcome)?;
                    }
                }
                gone_is_fine(self.one(delete_group(group)))
            }
        }
    }

    /// Removes the bridge; that it is gone already is fine.
    pub(super) fn remove_bridge(&mut self, config: &NetConfig) -> io::Result<()> {
        match self.find(&config.bridge())? {
            Some(link) if link.is_bridge => gone_is_fine(self.one(delete(link.index))),
            _ => Ok(()),
        }
    }

    /// Performs one request.
    pub(super) fn one(&mut self, request: Request) -> io::Result<()> {
        self.channel.transact(&[request])?.into_iter().collect()
    }

    /// Performs several; the first failure.
    pub(super) fn all(&mut self, requests: &[Request]) -> io::Result<()> {
        self.channel.transact(requests)?.into_iter().collect()
    }
}

/// Brings link `index` up.
pub(super) fn up(index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    set_up(&mut message);
    request(RouteNetlinkMessage::SetLink(message), 0)
}

/// Gives link `index` the address `ip`; EEXIST if it has it.
pub(super) fn address(index: u32, ip: Ipv4Addr, prefix: u8) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(ip.into()),
        AddressAttribute::Address(ip.into()),
    ];
    request(
        RouteNetlinkMessage::NewAddress(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

/// A request from a typed message.
pub(super) fn request(message: RouteNetlinkMessage, flags: u16) -> Request {
    let mut body = vec![0; message.buffer_len()];
    message.emit(&mut body);
    Request {
        kind: message.message_type(),
        flags,
        body,
        confirmed: true,
    }
}

/// The bridge's own hardware address: derived, and set, lest it follow its ports'.
fn new_bridge(config: &NetConfig) -> Request {
    let mut message = LinkMessage::default();
    let options = vec![
        InfoBridge::StpState(BridgeStpState::Disabled),
        InfoBridge::ForwardDelay(0),
        InfoBridge::MulticastSnooping(false),
    ];
    message.attributes = vec![
        LinkAttribute::IfName(config.bridge()),
        LinkAttribute::Address(NetConfig::container_mac(config.subnet.gateway()).to_vec()),
        LinkAttribute::Mtu(config.mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(options)),
        ]),
    ];
    request(
        RouteNetlinkMessage::NewLink(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

fn gateway_address(config: &NetConfig, index: u32) -> Request {
    address(index, config.subnet.gateway(), config.subnet.prefix())
}

/// Both ends at once; the inner one is born in the container's namespace under its final name.
fn new_veth(config: &NetConfig, bridge: u32, veth: &NewVeth<'_>) -> Request {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(INSIDE.to_owned()),
        LinkAttribute::Address(NetConfig::container_mac(veth.ip).to_vec()),
        LinkAttribute::Mtu(config.mtu),
        LinkAttribute::NetNsFd(veth.netns.as_raw_fd()),
    ];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(config.veth(veth.ip)),
        LinkAttribute::Address(NetConfig::port_mac(veth.ip).to_vec()),
        LinkAttribute::Mtu(config.mtu),
        LinkAttribute::Controller(bridge),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    request(
        RouteNetlinkMessage::NewLink(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

fn enslave(config: &NetConfig, bridge: u32, ip: Ipv4Addr) -> Request {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(config.veth(ip)),
        LinkAttribute::Controller(bridge),
    ];
    request(RouteNetlinkMessage::NewLink(message), 0)
}

/// The kernel sets the port's options first and its flags after, so the port is never up without
/// being isolated.
fn isolate(config: &NetConfig, ip: Ipv4Addr) -> Request {
    let mut message = LinkMessage::default();
    set_up(&mut message);
    message.attributes = vec![
        LinkAttribute::IfName(config.veth(ip)),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::Isolated(
                true,
            )])),
        ]),
    ];
    request(RouteNetlinkMessage::NewLink(message), 0)
}

fn set_up(message: &mut LinkMessage) {
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
}

fn set_group(index: u32, group: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = vec![LinkAttribute::Group(group)];
    request(RouteNetlinkMessage::SetLink(message), 0)
}

fn delete(index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    request(RouteNetlinkMessage::DelLink(message), 0)
}

fn delete_group(group: u32) -> Request {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::Group(group)];
    request(RouteNetlinkMessage::DelLink(message), 0)
}

fn present_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

/// A veth goes by itself when its namespace goes, which may happen at any moment.
fn gone_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        other => other,
    }
}

/// Reads an `ifinfomsg` and the few attributes that matter; leniently, for newer kernels.
fn parse(payload: &[u8]) -> Option<Link> {
    let attributes = payload.get(IFINFO_LEN..)?;
    let number = |kind| wire::attribute(attributes, kind).and_then(|value| wire::u32_at(value, 0));
    let info = wire::attribute(attributes, IFLA_LINKINFO).unwrap_or_default();
    let up = LinkFlags::Up.bits();
    Some(Link {
        index: wire::u32_at(payload, 4)?,
        name: wire::text(wire::attribute(attributes, IFLA_IFNAME)?).to_owned(),
        master: number(IFLA_MASTER),
        is_bridge: wire::attribute(info, IFLA_INFO_KIND).map(wire::text) == Some("bridge"),
        is_up: wire::u32_at(payload, 8)? & up == up,
        group: number(IFLA_GROUP).unwrap_or(0),
    })
}
