//! The elements of TEU's nftables sets, changed and read by netlink without a process.
//!
//! Owned by the network worker. Measured on the reference machine: a change is about 0.1 ms here
//! and about 3 ms by running `nft`. The ruleset itself, which changes only when the agent starts
//! or somebody destroyed it, is loaded by `nft` from readable text (`ruleset`).
//! Invariant: a list of changes is one transaction: all or nothing. Next: `ruleset`.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::Ipv4Addr;

use netlink_sys::protocols::NETLINK_NETFILTER;
use teu_node_core::firewall::{Change, Element, Pair};

use super::channel::{Channel, Request};
use super::config::NetConfig;
use super::wire;

/// Table families (include/uapi/linux/netfilter.h).
const NFPROTO_INET: u8 = 1;
const NFPROTO_BRIDGE: u8 = 7;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;

/// Messages and attributes (include/uapi/linux/netfilter/nf_tables.h).
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_GETRULE: u16 = 7;
const NFT_MSG_GETSET: u16 = 10;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_GETSETELEM: u16 = 13;
const NFT_MSG_DELSETELEM: u16 = 14;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_HANDLE: u16 = 4;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_HANDLE: u16 = 2;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_HANDLE: u16 = 16;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;

/// NLM_F_CREATE: an element that exists already is no error.
const CREATE: u16 = 0x400;

/// Elements of one message: at 60 bytes each far below an attribute's 65,535.
const ELEMENTS_PER_MESSAGE: usize = 500;

const INTERFACE_NAME_LEN: usize = 16;

/// One of the sets whose elements change while the node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Set {
    /// `bridge`: the names of the containers' ports.
    Ports,
    /// `bridge`: port, hardware address and address that belong together.
    Bindings,
    /// `inet`: pairs that may talk.
    Allowed,
}

pub(super) const SETS: [Set; 3] = [Set::Ports, Set::Bindings, Set::Allowed];

impl Set {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ports => "ports",
            Self::Bindings => "bindings",
            Self::Allowed => "allowed",
        }
    }

    fn family(self) -> u8 {
        match self {
            Self::Ports | Self::Bindings => NFPROTO_BRIDGE,
            Self::Allowed => NFPROTO_INET,
        }
    }
}

/// An element of a set as the kernel keeps it: fields padded to four bytes, one behind another.
pub(super) type Key = Vec<u8>;

/// The keys that `element` stands for.
pub(super) fn keys(config: &NetConfig, element: Element) -> Vec<(Set, Key)> {
    match element {
        Element::Binding(ip) => {
            let mut port = config.veth(ip).into_bytes();
            port.resize(INTERFACE_NAME_LEN, 0);
            let mut binding = port.clone();
            binding.extend_from_slice(&NetConfig::container_mac(ip));
            binding.extend_from_slice(&[0, 0]);
            binding.extend_from_slice(&ip.octets());
            vec![(Set::Ports, port), (Set::Bindings, binding)]
        }
        Element::Allowed(Pair { from, to }) => {
            vec![(Set::Allowed, [from.octets(), to.octets()].concat())]
        }
    }
}

/// A socket for nf_tables of one network namespace.
#[derive(Debug)]
pub(super) struct Elements {
    channel: Channel,
    table: String,
}

impl Elements {
    pub(super) fn open(config: &NetConfig) -> io::Result<Self> {
        let channel = Channel::open(NETLINK_NETFILTER)?;
        Ok(Self {
            channel,
            table: config.table().to_owned(),
        })
    }

    /// Names this socket in the kernel's announcements.
    pub(super) fn port(&self) -> io::Result<u32> {
        self.channel.port()
    }

    /// Performs all changes in one transaction.
    pub(super) fn apply(&mut self, config: &NetConfig, changes: &[Change]) -> io::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut batch = vec![batch_mark(NFNL_MSG_BATCH_BEGIN)];
        for set in SETS {
            for adds in [false, true] {
                let keys: Vec<Key> = changes
                    .iter()
                    .filter_map(|change| match change {
                        Change::Add(element) => adds.then_some(*element),
                        Change::Remove(element) => (!adds).then_some(*element),
                    })
                    .flat_map(|element| keys(config, element))
                    .filter_map(|(of, key)| (of == set).then_some(key))
                    .collect();
                let chunks = keys.chunks(ELEMENTS_PER_MESSAGE);
                batch.extend(chunks.map(|chunk| self.change(set, adds, chunk)));
            }
        }
        batch.push(batch_mark(NFNL_MSG_BATCH_END));
        self.channel.transact(&batch)?.into_iter().collect()
    }

    /// The keys that the kernel holds in `set`; `None` if there is no such set.
    pub(super) fn read(&mut self, set: Set) -> io::Result<Option<BTreeSet<Key>>> {
        let body = self.list_body(set, &[]);
        let answers = match self.channel.dump(nft(NFT_MSG_GETSETELEM), &body) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            answers => answers?,
        };
        let lists = answers
            .iter()
            .filter_map(|answer| wire::attribute(answer.get(4..)?, NFTA_SET_ELEM_LIST_ELEMENTS));
        let key = |element| {
            let key = wire::attribute(element, NFTA_SET_ELEM_KEY)?;
            wire::attribute(key, NFTA_DATA_VALUE).map(<[u8]>::to_vec)
        };
        Ok(Some(
            lists
                .flat_map(wire::attributes)
                .filter_map(|(_, element)| key(element))
                .collect(),
        ))
    }

    /// The pairs that the kernel allows; `None` if the table is gone.
    pub(super) fn read_allowed(&mut self) -> io::Result<Option<Vec<Pair>>> {
        let address = |bytes: &[u8]| {
            let octets: [u8; 4] = bytes.try_into().ok()?;
            Some(Ipv4Addr::from(octets))
        };
        let pair = |key: Key| {
            Some(Pair {
                from: address(key.get(..4)?)?,
                to: address(key.get(4..8)?)?,
            })
        };
        let keys = self.read(Set::Allowed)?;
        Ok(keys.map(|keys| keys.into_iter().filter_map(pair).collect()))
    }

    /// A number that changes when anybody changes the tables, their chains, rules or sets
    /// (elements aside); `None` if a table is missing. Handles are never used twice.
    pub(super) fn fingerprint(&mut self) -> io::Result<Option<u64>> {
        let mut hasher = DefaultHasher::new();
        for family in [NFPROTO_INET, NFPROTO_BRIDGE] {
            let mut body = header(family, 0);
            wire::put_text(&mut body, NFTA_TABLE_NAME, &self.table);
            let Some(table) = self.channel.get(nft(NFT_MSG_GETTABLE), &body)? else {
                return Ok(None);
            };
            hash_attributes(&mut hasher, &table, &[NFTA_TABLE_HANDLE]);
            let parts: [(u16, u16, &[u16]); 3] = [
                (
                    NFT_MSG_GETCHAIN,
                    NFTA_CHAIN_TABLE,
                    &[NFTA_CHAIN_HANDLE, NFTA_CHAIN_POLICY],
                ),
                (NFT_MSG_GETRULE, NFTA_RULE_TABLE, &[NFTA_RULE_HANDLE]),
                (NFT_MSG_GETSET, NFTA_SET_TABLE, &[NFTA_SET_HANDLE]),
            ];
            for (message, table_attribute, hashed) in parts {
                let mut body = header(family, 0);
                wire::put_text(&mut body, table_attribute, &self.table);
                for answer in self.channel.dump(nft(message), &body)? {
                    let attributes = answer.get(4..).unwrap_or_default();
                    let table = wire::attribute(attributes, table_attribute).map(wire::text);
                    if table == Some(self.table.as_str()) {
                        hash_attributes(&mut hasher, &answer, hashed);
                    }
                }
                message.hash(&mut hasher);
            }
        }
        Ok(Some(hasher.finish()))
    }

    fn change(&self, set: Set, adds: bool, keys: &[Key]) -> Request {
        let (message, flags) = if adds {
            (NFT_MSG_NEWSETELEM, CREATE)
        } else {
            (NFT_MSG_DELSETELEM, 0)
        };
        let body = self.list_body(set, keys);
        Request {
            kind: nft(message),
            flags,
            body,
            confirmed: true,
        }
    }

    fn list_body(&self, set: Set, keys: &[Key]) -> Vec<u8> {
        let mut body = header(set.family(), 0);
        wire::put_text(&mut body, NFTA_SET_ELEM_LIST_TABLE, &self.table);
        wire::put_text(&mut body, NFTA_SET_ELEM_LIST_SET, set.name());
        if keys.is_empty() {
            return body;
        }
        wire::put_nested(&mut body, NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
            for key in keys {
                wire::put_nested(list, NFTA_LIST_ELEM, |element| {
                    wire::put_nested(element, NFTA_SET_ELEM_KEY, |data| {
                        wire::put_attribute(data, NFTA_DATA_VALUE, key);
                    });
                });
            }
        });
        body
    }
}

fn hash_attributes(hasher: &mut DefaultHasher, answer: &[u8], kinds: &[u16]) {
    let attributes = answer.get(4..).unwrap_or_default();
    for kind in kinds {
        wire::attribute(attributes, *kind).hash(hasher);
    }
}

fn nft(message: u16) -> u16 {
    NFNL_SUBSYS_NFTABLES << 8 | message
}

/// `struct nfgenmsg`; the resource id travels in network order.
fn header(family: u8, resource: u16) -> Vec<u8> {
    let [high, low] = resource.to_be_bytes();
    vec![family, 0, high, low]
}

fn batch_mark(kind: u16) -> Request {
    let body = header(0, NFNL_SUBSYS_NFTABLES);
    Request {
        kind,
        flags: 0,
        body,
        confirmed: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> NetConfig {
        let subnet = "10.77.1.0/24".parse().unwrap();
        NetConfig::new(
            "teu".parse().unwrap(),
            subnet,
            "10.77.0.0/16".parse().unwrap(),
        )
    }

    /// As `nft --debug=netlink` shows them.
    #[test]
    fn keys_have_the_kernels_layout() {
        let binding = keys(&config(), Element::Binding(Ipv4Addr::new(10, 77, 1, 2)));
        assert_eq!(
            binding[0],
            (Set::Ports, b"teuv2\0\0\0\0\0\0\0\0\0\0\0".to_vec())
        );
        let expected = b"teuv2\0\0\0\0\0\0\0\0\0\0\0\x02\x7e\x0a\x4d\x01\x02\0\0\x0a\x4d\x01\x02";
        assert_eq!(binding[1], (Set::Bindings, expected.to_vec()));
        let pair = Pair {
            from: Ipv4Addr::new(10, 77, 1, 2),
            to: Ipv4Addr::new(10, 77, 2, 3),
        };
        let expected = vec![10, 77, 1, 2, 10, 77, 2, 3];
        assert_eq!(
            keys(&config(), Element::Allowed(pair)),
            vec![(Set::Allowed, expected)]
        );
    }
}
