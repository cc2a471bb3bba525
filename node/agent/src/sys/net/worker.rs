//! The one owner of the node's network state: an OS thread that takes commands in order.
//!
//! A thread of its own because netlink is synchronous, because it visits other network namespaces,
//! and because waiting for the kernel must not hold up tokio. Invariants: the model (`Firewall`)
//! changes first and the kernel follows within the same command; a change that the kernel refuses
//! leads to a full reload from the model, so the two do not drift; rules stand before the link
//! that they speak of, and go after it.
//! Next: `handle` for the callers' side, `repair` for checking and mending.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc as std_mpsc};
use std::time::Instant;

use teu_node_core::firewall::{AddressPool, Change, Element, Firewall};
use tokio::sync::mpsc;

use super::command::{Command, Delivery, Reply};
use super::config::{Adopted, NetConfig, SlotNet};
use super::elements::Elements;
use super::error::NetError;
use super::link::{Links, NewVeth};
use super::netns::{self, Home, Netns, NetnsError};
use super::{ruleset, slot, sysctl};
use crate::sys::names::SlotName;

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) config: Arc<NetConfig>,
    pub(super) home: Home,
    pub(super) links: Links,
    pub(super) elements: Elements,
    pub(super) firewall: Firewall,
    pub(super) pool: AddressPool,
    pub(super) slots: BTreeMap<SlotName, Ipv4Addr>,
    pub(super) started: Instant,
    /// What the tables looked like after the last load.
    pub(super) fingerprint: Option<u64>,
    pub(super) times_restored: u64,
    pub(super) must_end: bool,
    /// Slots whose callers went away. Not more than there are slots; looked at before each
    /// command, so at the latest at the next tick of `watch`.
    pub(super) unclaimed: (
        std_mpsc::Sender<Vec<SlotName>>,
        std_mpsc::Receiver<Vec<SlotName>>,
    ),
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
            unclaimed: std_mpsc::channel(),
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
            self.take_back_unclaimed();
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

    fn take_back_unclaimed(&mut self) {
        while let Ok(slots) = self.unclaimed.1.try_recv() {
            if let Err(error) = self.release(&slots) {
                tracing::warn!(%error, "cannot take back slots that nobody waits for");
            }
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Prepare { keepers, reply } => {
                let unclaimed = self.unclaimed.0.clone();
                let prepared = self.prepare(keepers);
                let _ = reply.send(prepared.map(|nets| Delivery { nets, unclaimed }));
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
        let addresses: Vec<Ipv4Addr> = strays
            .iter()
            .filter_map(|name| self.config.address_of_veth(name))
            .collect();
        for address in &addresses {
            self.pool.rest(*address, self.started.elapsed());
        }
        let removed = self
            .links
            .remove(&self.config, &strays)
            .and_then(|()| self.links.forget(&self.config, addresses.into_iter()));
        removed.map_err(|source| NetError::RemoveVeths {
            count: strays.len(),
            source,
        })
    }

    /// Bridge, settings, ports: made or mended.
    pub(super) fn ensure_links(&mut self) -> Result<u32, NetError> {
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
        self.links
            .introduce(bridge, &ips)
            .map_err(NetError::ListLinks)?;
        Ok(bridge)
    }

    pub(super) fn load(&mut self) -> Result<(), NetError> {
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
        let ips: Vec<Ipv4Addr> = new.iter().map(|slot| slot.ip).collect();
        self.links
            .introduce(bridge, &ips)
            .map_err(NetError::ListLinks)?;
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
            let removed = self
                .links
                .remove(&self.config, &names)
                .and_then(|()| self.links.forget(&self.config, leaving.values().copied()));
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
