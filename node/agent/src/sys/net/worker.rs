//! The one owner of the node's network state: an OS thread that takes commands in order.
//!
//! A thread of its own because netlink is synchronous, because it visits other network namespaces,
//! and because waiting for the kernel must not hold up tokio. Invariants: the model (`Firewall`)
//! changes first and the kernel follows within the same command; a change that the kernel refuses
//! leads to a full reload from the model, so the two do not drift; rules stand before the link
//! that they speak of, and go after it.
//! Next: `handle` for the callers' side, `watch` for what wakes `Verify`.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use teu_node_core::firewall::{AddressPool, Change, Element, Firewall, Pair};
use tokio::sync::{mpsc, oneshot};

use super::config::{Adopted, NetConfig, SlotNet};
use super::elements::{Elements, SETS};
use super::error::NetError;
use super::link::{Links, NewVeth};
use super::netns::{self, Home, Netns, NetnsError};
use super::problem::NetProblem;
use super::{ruleset, slot, sysctl};
use crate::sys::names::SlotName;

pub(super) type Reply<T> = oneshot::Sender<Result<T, NetError>>;

/// All that may wake the worker.
#[derive(Debug)]
pub(super) enum Command {
    Prepare {
        keepers: Vec<(SlotName, u32)>,
        reply: Reply<Vec<SlotNet>>,
    },
    Release {
        slots: Vec<SlotName>,
        reply: Reply<()>,
    },
    Allow {
        pair: Pair,
        reply: Reply<()>,
    },
    Disallow {
        pair: Pair,
        reply: Reply<()>,
    },
    ReplaceAllowed {
        pairs: Vec<Pair>,
        reply: Reply<()>,
    },
    Allowed {
        reply: Reply<Vec<Pair>>,
    },
    Check {
        reply: Reply<Vec<NetProblem>>,
    },
    /// Somebody else changed nftables, or it is time to look.
    Verify,
    Close {
        reply: Reply<()>,
    },
}

#[derive(Debug)]
pub(super) struct Worker {
    config: Arc<NetConfig>,
    home: Home,
    links: Links,
    elements: Elements,
    firewall: Firewall,
    pool: AddressPool,
    slots: BTreeMap<SlotName, Ipv4Addr>,
    started: Instant,
    /// What the tables looked like after the last load.
    fingerprint: Option<u64>,
    times_restored: u64,
    must_end: bool,
}

impl Worker {
    /// Builds or repairs everything in the calling thread's namespace. Pairs that the kernel still
    /// allows between adopted containers stay allowed.
    pub(super) fn open(config: Arc<NetConfig>, adopted: Vec<Adopted>) -> Result<Self, NetError> {
        if config.subnet.prefix() < 16 {
            return Err(NetError::SubnetTooLarge);
        }
        let mut worker = Self {
            home: Home::of_this_thread().map_err(NetError::Start)?,
            links: Links::open().map_err(NetError::Start)?,
            elements: Elements::open(&config).map_err(NetError::Start)?,
            firewall: Firewall::new(config.subnet, config.location_range)?,
            pool: AddressPool::new(config.subnet, config.address_rest),
            slots: BTreeMap::new(),
            started: Instant::now(),
            fingerprint: None,
            times_restored: 0,
            must_end: false,
            config,
        };
        worker.adopt(adopted)?;
        let still_allowed = worker
            .elements
            .read_allowed()
            .map_err(NetError::ReadRules)?;
        worker
            .firewall
            .replace_allowed(still_allowed.unwrap_or_default());
        worker.remove_strays()?;
        worker.load()?;
        worker.ensure_links()?;
        Ok(worker)
    }

    /// The port that this worker's own changes are announced under.
    pub(super) fn port(&self) -> io::Result<u32> {
        self.elements.port()
    }

    /// Serves until the last handle is gone, or `Close`.
    pub(super) fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut next = inbox.blocking_recv();
        while let Some(command) = next.take() {
            match command {
                Command::Close { reply } => {
                    let _ = reply.send(self.close());
                    return;
                }
                Command::Release { slots, reply } => {
                    next = self.handle_releases(slots, reply, &mut inbox);
                }
                other => self.handle(other),
            }
            if self.must_end {
                tracing::error!("the network worker ends; restart the node agent");
                return;
            }
            next = next.or_else(|| inbox.blocking_recv());
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Prepare { keepers, reply } => {
                // A caller that no longer waits would never release what it never heard of.
                if let Err(Ok(unheard)) = reply.send(self.prepare(keepers)) {
                    let slots: Vec<SlotName> = unheard.into_iter().map(|net| net.slot).collect();
                    let _ = self.release(&slots);
                }
            }
            Command::Allow { pair, reply } => {
                let changes = self.firewall.allow(pair).map_err(NetError::from);
                let _ = reply.send(changes.and_then(|changes| self.apply(&changes)));
            }
            Command::Disallow { pair, reply } => {
                let changes = self.firewall.disallow(pair);
                let _ = reply.send(self.apply(&changes));
            }
            Command::ReplaceAllowed { pairs, reply } => {
                let changes = self.firewall.replace_allowed(pairs);
                let _ = reply.send(self.apply(&changes));
            }
            Command::Allowed { reply } => {
                let _ = reply.send(Ok(self.firewall.allowed().collect()));
            }
            Command::Check { reply } => {
                let _ = reply.send(Ok(self.check()));
            }
            Command::Verify => {
                if let Err(error) = self.verify() {
                    tracing::error!(%error, source = ?error, "the node's network cannot be repaired");
                }
            }
            // Taken by `run`.
            Command::Release { .. } | Command::Close { .. } => {}
        }
    }

    /// Releases that wait one behind another are done as one: removing links costs a grace period
    /// of some 20 ms, however many they are. Returns the command that ended the row.
    fn handle_releases(
        &mut self,
        slots: Vec<SlotName>,
        reply: Reply<()>,
        inbox: &mut mpsc::Receiver<Command>,
    ) -> Option<Command> {
        let mut row = vec![(slots, reply)];
        let mut next = None;
        while let Ok(command) = inbox.try_recv() {
            match command {
                Command::Release { slots, reply } => row.push((slots, reply)),
                other => {
                    next = Some(other);
                    break;
                }
            }
        }
        let together: Vec<SlotName> = row.iter().flat_map(|(slots, _)| slots.clone()).collect();
        let done = self.release(&together).is_ok();
        for (slots, reply) in row {
            let _ = reply.send(if done { Ok(()) } else { self.release(&slots) });
        }
        next
    }

    fn adopt(&mut self, adopted: Vec<Adopted>) -> Result<(), NetError> {
        for Adopted { slot, ip } in adopted {
            let failed = |source| NetError::Adopt {
                slot: slot.clone(),
                ip,
                source,
            };
            self.pool.adopt(ip).map_err(failed)?;
            self.firewall.attach(ip)?;
            if self.slots.insert(slot.clone(), ip).is_some() {
                return Err(NetError::SlotTaken(slot));
            }
        }
        Ok(())
    }

    /// Veths of slots that nobody knows any more; their addresses rest like others.
    fn remove_strays(&mut self) -> Result<(), NetError> {
        let known: Vec<String> = self
            .slots
            .values()
            .map(|ip| self.config.veth(*ip))
            .collect();
        let links = self.links.list().map_err(NetError::ListLinks)?;
        let strays: Vec<String> = links
            .into_iter()
            .map(|link| link.name)
            .filter(|name| self.config.is_veth_name(name) && !known.contains(name))
            .collect();
        for address in strays
            .iter()
            .filter_map(|name| self.config.address_of_veth(name))
        {
            self.pool.rest(address, self.started.elapsed());
        }
        let removed = self.links.remove(&self.config, &strays);
        removed.map_err(|source| NetError::RemoveVeths {
            count: strays.len(),
            source,
        })
    }

    /// Bridge, settings, ports: made or mended.
    fn ensure_links(&mut self) -> Result<u32, NetError> {
        let bridge = self.links.ensure_bridge(&self.config)?;
        sysctl::prepare_host(&self.config)?;
        let slots: Vec<(&SlotName, Ipv4Addr)> = self.slots.iter().map(|(s, ip)| (s, *ip)).collect();
        let ips: Vec<Ipv4Addr> = slots.iter().map(|(_, ip)| *ip).collect();
        let outcomes = self.links.reattach(&self.config, bridge, &ips);
        for ((slot, ip), outcome) in slots.iter().zip(outcomes.map_err(NetError::ListLinks)?) {
            if let Err(error) = outcome {
                tracing::warn!(%slot, %ip, %error, "a slot has lost its port on the bridge");
            }
        }
        Ok(bridge)
    }

    fn load(&mut self) -> Result<(), NetError> {
        ruleset::load(&self.config, &self.firewall)?;
        self.fingerprint = self.elements.fingerprint().map_err(NetError::ReadRules)?;
        Ok(())
    }

    /// Makes the kernel follow the model.
    fn apply(&mut self, changes: &[Change]) -> Result<(), NetError> {
        let Err(error) = self.elements.apply(&self.config, changes) else {
            return Ok(());
        };
        tracing::warn!(%error, "the firewall's sets are not as expected; loading all rules again");
        self.times_restored += 1;
        self.load()
    }

    fn prepare(&mut self, keepers: Vec<(SlotName, u32)>) -> Result<Vec<SlotNet>, NetError> {
        let mut new: Vec<NewSlot> = Vec::with_capacity(keepers.len());
        for (slot, pid) in keepers {
            if self.slots.contains_key(&slot) || new.iter().any(|other| other.slot == slot) {
                self.give_back(&new);
                return Err(NetError::SlotTaken(slot));
            }
            let opened = netns::open_of_process(pid).map_err(|source| {
                let action = "open the network namespace";
                NetError::Slot {
                    action,
                    slot: slot.clone(),
                    source,
                }
            });
            let taken =
                opened.and_then(|netns| Ok((netns, self.pool.take(self.started.elapsed())?)));
            match taken {
                Ok((netns, ip)) => new.push(NewSlot {
                    slot,
                    ip,
                    netns: Netns::Open(netns),
                }),
                Err(error) => {
                    self.give_back(&new);
                    return Err(error);
                }
            }
        }
        let outcome = self.build(&new);
        self.slots
            .extend(new.iter().map(|n| (n.slot.clone(), n.ip)));
        if let Err(error) = outcome {
            let slots: Vec<SlotName> = new.into_iter().map(|n| n.slot).collect();
            if let Err(error) = self.release(&slots) {
                tracing::warn!(%error, "cannot take back half-made slots yet");
            }
            return Err(error);
        }
        let net = |n: NewSlot| self.config.slot_net(n.slot, n.ip);
        Ok(new.into_iter().map(net).collect())
    }

    fn give_back(&mut self, new: &[NewSlot]) {
        for slot in new {
            self.pool.give_back(slot.ip, self.started.elapsed());
        }
    }

    /// Rules, then links, then the inside.
    fn build(&mut self, new: &[NewSlot]) -> Result<(), NetError> {
        let mut changes = Vec::new();
        for slot in new {
            changes.extend(self.firewall.attach(slot.ip)?);
        }
        self.apply(&changes)?;
        self.create_veths(new)?;
        for NewSlot { slot, ip, netns } in new {
            let failed = |action| {
                move |source| NetError::Slot {
                    action,
                    slot: slot.clone(),
                    source,
                }
            };
            match self
                .home
                .visit(netns, || slot::configure(&self.config, *ip))
            {
                Ok(()) => {}
                Err(NetnsError::Enter(source)) => {
                    return Err(failed("enter the network namespace")(source));
                }
                Err(NetnsError::Inside(source)) => return Err(failed("set up eth0")(source)),
                Err(NetnsError::Lost(source)) => {
                    self.must_end = true;
                    return Err(failed("return from the network namespace")(source));
                }
            }
        }
        Ok(())
    }

    fn create_veths(&mut self, new: &[NewSlot]) -> Result<(), NetError> {
        // Usually one look; a bridge that somebody removed is made again here.
        let found = self
            .links
            .find(&self.config.bridge())
            .map_err(NetError::ListLinks)?;
        let bridge = match found.filter(|link| link.is_bridge && link.is_up) {
            Some(link) => link.index,
            None => self.ensure_links()?,
        };
        let veths: Vec<NewVeth<'_>> = new
            .iter()
            .filter_map(|slot| {
                Some(NewVeth {
                    ip: slot.ip,
                    netns: slot.fd()?,
                })
            })
            .collect();
        let outcomes = self.links.create(&self.config, bridge, &veths);
        for (slot, outcome) in new.iter().zip(outcomes.map_err(NetError::ListLinks)?) {
            let failed = |source| NetError::Slot {
                action: "create a veth",
                slot: slot.slot.clone(),
                source,
            };
            outcome.map_err(failed)?;
        }
        Ok(())
    }

    /// Unknown slots are fine: releasing twice has the effect once. Permissions end first, then
    /// the port goes, and only then what ties the port to its address.
    fn release(&mut self, slots: &[SlotName]) -> Result<(), NetError> {
        let leaving: BTreeMap<SlotName, Ipv4Addr> = slots
            .iter()
            .filter_map(|slot| Some((slot.clone(), *self.slots.get(slot)?)))
            .collect();
        if leaving.is_empty() {
            return Ok(());
        }
        let changes = leaving.values().flat_map(|ip| self.firewall.detach(*ip));
        let (bindings, pairs): (Vec<Change>, Vec<Change>) =
            changes.partition(|change| matches!(change, Change::Remove(Element::Binding(_))));
        let names: Vec<String> = leaving.values().map(|ip| self.config.veth(*ip)).collect();
        let removed = self.apply(&pairs).and_then(|()| {
            let removed = self.links.remove(&self.config, &names);
            removed.map_err(|source| NetError::RemoveVeths {
                count: names.len(),
                source,
            })
        });
        if let Err(error) = removed {
            // They stay known and bound, so that releasing can be tried again.
            for ip in leaving.values() {
                self.firewall.attach(*ip)?;
            }
            return Err(error);
        }
        self.slots.retain(|slot, _| !leaving.contains_key(slot));
        for ip in leaving.values() {
            self.pool.give_back(*ip, self.started.elapsed());
        }
        self.apply(&bindings)
    }

    fn verify(&mut self) -> Result<(), NetError> {
        if !self.rules_are_right()? {
            self.times_restored += 1;
            tracing::warn!(
                tables = self.config.table(),
                "the firewall was changed by somebody else; restoring it"
            );
            self.load()?;
        }
        if self.bridge_is_wrong()? || !sysctl::forwards() {
            tracing::warn!(bridge = %self.config.bridge(), "the bridge was changed; repairing it");
            self.ensure_links()?;
        }
        Ok(())
    }

    fn rules_are_right(&mut self) -> Result<bool, NetError> {
        let fingerprint = self.elements.fingerprint().map_err(NetError::ReadRules)?;
        if fingerprint.is_none() || fingerprint != self.fingerprint {
            return Ok(false);
        }
        for set in SETS {
            let found = self.elements.read(set).map_err(NetError::ReadRules)?;
            if found != Some(ruleset::expected_keys(&self.config, &self.firewall, set)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn bridge_is_wrong(&mut self) -> Result<bool, NetError> {
        let found = self
            .links
            .find(&self.config.bridge())
            .map_err(NetError::ListLinks)?;
        Ok(!found.is_some_and(|link| link.is_bridge && link.is_up))
    }

    /// Looks at everything, changes nothing.
    fn check(&mut self) -> Vec<NetProblem> {
        let mut problems = Vec::new();
        let bridge = self.config.bridge();
        match self.bridge_is_wrong() {
            Ok(true) => problems.push(NetProblem::Bridge(bridge.clone())),
            Ok(false) => {}
            Err(error) => problems.push(NetProblem::Unknown(error.to_string())),
        }
        match self.rules_are_right() {
            Ok(false) => problems.push(NetProblem::Rules(self.config.table().to_owned())),
            Ok(true) => {}
            Err(error) => problems.push(NetProblem::Unknown(error.to_string())),
        }
        if self.times_restored > 0 {
            problems.push(NetProblem::RulesRestored {
                times: self.times_restored,
            });
        }
        if !sysctl::forwards() {
            problems.push(NetProblem::Forwarding);
        }
        match ruleset::foreign_forward_drops(&self.config) {
            Ok(chains) => {
                problems.extend(chains.into_iter().map(|chain| NetProblem::ForeignDrop {
                    chain,
                    bridge: bridge.clone(),
                }))
            }
            Err(error) => problems.push(NetProblem::Unknown(error.to_string())),
        }
        problems.extend(self.lost_ports());
        problems
    }

    fn lost_ports(&mut self) -> Vec<NetProblem> {
        let links = match self.links.list() {
            Ok(links) => links,
            Err(error) => return vec![NetProblem::Unknown(error.to_string())],
        };
        let bridge = links
            .iter()
            .find(|link| link.name == self.config.bridge())
            .map(|l| l.index);
        let has_port = |ip: Ipv4Addr| {
            let veth = self.config.veth(ip);
            links
                .iter()
                .any(|link| link.name == veth && link.master == bridge && bridge.is_some())
        };
        let lost = self.slots.iter().filter(|(_, ip)| !has_port(**ip));
        lost.map(|(slot, _)| NetProblem::Port { slot: slot.clone() })
            .collect()
    }

    /// Everything of this instance goes, links before rules.
    fn close(&mut self) -> Result<(), NetError> {
        self.slots.clear();
        self.remove_strays()?;
        let removed = self.links.remove_bridge(&self.config);
        removed.map_err(|source| NetError::Bridge {
            action: "remove",
            bridge: self.config.bridge(),
            source,
        })?;
        ruleset::remove(&self.config)
    }
}

/// A slot that is being prepared.
#[derive(Debug)]
struct NewSlot {
    slot: SlotName,
    ip: Ipv4Addr,
    netns: Netns,
}

impl NewSlot {
    fn fd(&self) -> Option<&OwnedFd> {
        match &self.netns {
            Netns::Open(fd) => Some(fd),
            Netns::OfProcess(_) => None,
        }
    }
}
