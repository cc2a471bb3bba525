//! What is known of the session: the offer and the containers, as the location last told.
//!
//! Owner: the session task writes ([`ViewWriter`]), handles read ([`View`]). Invariant: what is
//! shown is what READY and the events after it said; READY replaces everything.

use std::{collections::HashMap, time::Duration};

use teu_protocol::{
    ids::{ContainerId, VolumeId},
    message::{
        ContainerInfo, ContainerState, EventBody, NodeOffer, Offer, ProcessInfo, Ready, VolumeInfo,
    },
};
use tokio::sync::{broadcast, watch};

use crate::events::{self, LocationEvent};

use crate::Error;

/// A container as its handles see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContainerView {
    /// As last told.
    pub(crate) info: ContainerInfo,
    /// It is destroyed.
    pub(crate) gone: bool,
    /// It ended while the connection was lost for so long.
    pub(crate) cut: Option<Duration>,
}

impl ContainerView {
    /// What to say of one that is gone.
    pub(crate) const fn why_gone(&self) -> Error {
        let container = self.info.id;
        match self.cut {
            Some(away) => Error::EndedByCut { container, away },
            None => Error::Gone(container),
        }
    }
}

type Containers = HashMap<ContainerId, watch::Receiver<ContainerView>>;

/// The reading side.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) offer: watch::Receiver<Offer>,
    containers: watch::Receiver<Containers>,
    events: broadcast::WeakSender<LocationEvent>,
}

impl View {
    pub(crate) fn containers(&self) -> Vec<ContainerInfo> {
        self.containers
            .borrow()
            .values()
            .map(|view| view.borrow().info.clone())
            .collect()
    }

    /// `None` if the session is over.
    pub(crate) fn events(&self) -> Option<broadcast::Receiver<LocationEvent>> {
        Some(self.events.upgrade()?.subscribe())
    }

    pub(crate) fn volume(&self, id: VolumeId) -> Option<VolumeInfo> {
        let offer = self.offer.borrow();
        offer.volumes.iter().find(|known| known.id == id).cloned()
    }

    pub(crate) fn container(&self, id: ContainerId) -> Option<watch::Receiver<ContainerView>> {
        self.containers.borrow().get(&id).cloned()
    }
}

/// The writing side.
#[derive(Debug)]
pub(super) struct ViewWriter {
    offer: watch::Sender<Offer>,
    containers: watch::Sender<Containers>,
    writers: HashMap<ContainerId, watch::Sender<ContainerView>>,
    events: broadcast::Sender<LocationEvent>,
    seq: u64,
}

/// An event is missing: what is known is no longer the truth.
#[derive(Debug)]
pub(super) struct EventMissing {
    pub(super) expected: u64,
    pub(super) got: u64,
}

impl ViewWriter {
    pub(super) fn new() -> (Self, View) {
        let (offer, offer_rx) = watch::channel(Offer::default());
        let (containers, containers_rx) = watch::channel(Containers::new());
        let (events, _) = broadcast::channel(events::KEPT);
        let view = View {
            offer: offer_rx,
            containers: containers_rx,
            events: events.downgrade(),
        };
        (
            Self {
                offer,
                containers,
                writers: HashMap::new(),
                events,
                seq: 0,
            },
            view,
        )
    }

    /// READY replaces what was known; containers that it does not name are gone.
    pub(super) fn replace(&mut self, ready: Ready) {
        self.seq = ready.seq;
        self.offer.send_replace(ready.offer);
        let here: std::collections::HashSet<ContainerId> =
            ready.containers.iter().map(|info| info.id).collect();
        let gone: Vec<ContainerId> = self
            .writers
            .keys()
            .filter(|id| !here.contains(id))
            .copied()
            .collect();
        gone.into_iter().for_each(|id| self.remove(id));
        ready.containers.into_iter().for_each(|info| self.put(info));
        self.tell(LocationEvent::Resumed);
    }

    /// Containers that are known and not in this READY.
    pub(super) fn missing_in(&self, ready: &Ready) -> Vec<ContainerId> {
        let here: std::collections::HashSet<ContainerId> =
            ready.containers.iter().map(|info| info.id).collect();
        let known = self.writers.keys().copied();
        known.filter(|id| !here.contains(id)).collect()
    }

    /// These are gone because the connection was lost for so long.
    pub(super) fn ended_by_cut(&self, ids: &[ContainerId], away: Duration) {
        for writer in ids.iter().filter_map(|id| self.writers.get(id)) {
            writer.send_modify(|view| view.cut = Some(away));
        }
    }

    /// Takes in the event number `seq`; those that are already known change nothing.
    pub(super) fn apply(&mut self, seq: u64, body: EventBody) -> Result<(), EventMissing> {
        if seq <= self.seq {
            return Ok(());
        }
        if seq != self.seq + 1 {
            return Err(EventMissing {
                expected: self.seq + 1,
                got: seq,
            });
        }
        self.seq = seq;
        let event = LocationEvent::from(body.clone());
        match body {
            EventBody::Node(node) => self.put_node(node),
            EventBody::NodeGone(id) => {
                self.offer
                    .send_modify(|offer| offer.nodes.retain(|node| node.id != id));
            }
            EventBody::Container(info) => self.put(*info),
            EventBody::ContainerGone(id) => self.remove(id),
            EventBody::Process(ProcessInfo { id, state, .. }) => {
                tracing::debug!(process = %id.short(), ?state, "a process changed");
            }
            EventBody::Volume(info) => self.put_volume(*info),
            EventBody::VolumeGone(id) => self.remove_volume(id),
            EventBody::Warning(text) => tracing::warn!(target: "teu", "{text}"),
        }
        self.tell(event);
        Ok(())
    }

    /// An error means that nobody listens.
    fn tell(&self, event: LocationEvent) {
        let _ = self.events.send(event);
    }

    /// Takes in what an answer says. Events are newer than answers that repeat themselves, so an
    /// answer never sets a container back to an earlier state.
    pub(super) fn learn(&mut self, info: &ContainerInfo) {
        let newer = self
            .writers
            .get(&info.id)
            .is_none_or(|writer| rank(&info.state) >= rank(&writer.borrow().info.state));
        if newer {
            self.put(info.clone());
        }
    }

    fn put(&mut self, info: ContainerInfo) {
        let id = info.id;
        let view = ContainerView {
            info,
            gone: false,
            cut: None,
        };
        if let Some(writer) = self.writers.get(&id) {
            writer.send_if_modified(|old| {
                let changed = *old != view;
                *old = view;
                changed
            });
            return;
        }
        let (writer, reader) = watch::channel(view);
        self.writers.insert(id, writer);
        self.containers.send_modify(|containers| {
            containers.insert(id, reader);
        });
    }

    /// The container is destroyed.
    pub(super) fn remove(&mut self, id: ContainerId) {
        if let Some(writer) = self.writers.remove(&id) {
            writer.send_modify(|view| view.gone = true);
        }
        self.containers.send_modify(|containers| {
            containers.remove(&id);
        });
    }

    /// A volume as an event or an answer tells of it.
    pub(super) fn put_volume(&self, info: VolumeInfo) {
        self.offer.send_if_modified(|offer| {
            match offer.volumes.iter_mut().find(|known| known.id == info.id) {
                Some(known) if *known == info => false,
                Some(known) => {
                    *known = info;
                    true
                }
                None => {
                    offer.volumes.push(info);
                    true
                }
            }
        });
    }

    /// The volume is destroyed.
    pub(super) fn remove_volume(&self, id: VolumeId) {
        self.offer.send_if_modified(|offer| {
            let before = offer.volumes.len();
            offer.volumes.retain(|known| known.id != id);
            offer.volumes.len() != before
        });
    }

    fn put_node(&mut self, node: NodeOffer) {
        self.offer.send_modify(|offer| {
            match offer.nodes.iter_mut().find(|known| known.id == node.id) {
                Some(known) => *known = node,
                None => offer.nodes.push(node),
            }
        });
    }
}

const fn rank(state: &ContainerState) -> u8 {
    match state {
        ContainerState::Requested => 0,
        ContainerState::Preparing => 1,
        ContainerState::Asleep => 2,
        ContainerState::Running { .. } => 3,
        ContainerState::Exited { .. } => 4,
    }
}
