//! The node's machine: takes the master's orders and what became of them, says what to do.
//!
//! Owner: the agent's event loop. Invariants (kept by property tests): each order is answered once;
//! an effect names a known container; a container's life-cycle effects never overlap; when all
//! containers are destroyed nothing is left in here. Next: [`crate::container`] for one life.

mod route;

use std::{collections::BTreeMap, time::Duration};

use teu_protocol::{
    ids::{AttachmentId, ContainerId, ProcessId, VolumeId},
    message::{
        ContainerState, NodeContainer, NodeVolume, ResourceLimits, VolumeMount, VolumeState,
    },
};

use crate::{
    container::{Container, Fate, Out},
    effect::Effect,
    input::{Input, Now},
    orders::Orders,
    record::{ContainerRecord, FurtherProcess},
    volume::{Holder, Volumes},
};

pub use crate::container::Found;

/// Containers on one node, destroyed ones that are not yet gone included: its bridge takes 1,023 that run;
/// exited ones hold no port and no address.
pub const MAX_CONTAINERS: usize = 4_096;

/// Everything that a node decides.
#[derive(Debug)]
pub struct NodeCore {
    platform: String,
    containers: BTreeMap<ContainerId, Container>,
    orders: Orders,
    volumes: Volumes,
}

impl NodeCore {
    /// A node of this platform (`linux/amd64`) that runs nothing.
    #[must_use]
    pub fn new(platform: impl Into<String>) -> Self {
        Self {
            platform: platform.into(),
            containers: BTreeMap::new(),
            orders: Orders::default(),
            volumes: Volumes::default(),
        }
    }

    /// Takes over a container that an earlier agent left. Before the first input.
    /// `processes` are the further ones that its keeper has.
    /// `readers` have places at them.
    pub fn adopt(
        &mut self,
        record: ContainerRecord,
        found: Found,
        processes: &[ProcessId],
        readers: &[AttachmentId],
    ) {
        let mut container = Container::found(record, found);
        container.readers.extend(readers);
        for id in processes {
            let known = container
                .record
                .processes
                .iter()
                .find(|one| one.id == *id)
                .cloned();
            let nameless = FurtherProcess {
                id: *id,
                command: Vec::new(),
                bound: None,
            };
            container.processes.adopt(known.unwrap_or(nameless));
        }
        container.record.processes = container.processes.remembered();
        self.containers.insert(container.id(), container);
    }

    /// Everything that it runs, for a report.
    #[must_use]
    pub fn containers(&self) -> Vec<NodeContainer> {
        let told = |container: &Container| {
            let mut told = container.record.told(container.state());
            told.processes = container.processes.told(container.id());
            told.readers = container.readers.iter().copied().collect();
            told
        };
        self.containers.values().map(told).collect()
    }

    /// What a container has mounted.
    #[must_use]
    pub fn mounts(&self, container: ContainerId) -> Option<&[VolumeMount]> {
        let known = self.containers.get(&container)?;
        Some(&known.record.volumes)
    }

    /// What people call a container: its tag, or the beginning of its id.
    #[must_use]
    pub fn name(&self, container: ContainerId) -> String {
        let known = self.containers.get(&container);
        known.map_or_else(|| container.short(), Container::name)
    }

    /// Its volumes, for a report. `None`: the pool cannot be read.
    #[must_use]
    pub fn volumes(&self) -> Option<Vec<NodeVolume>> {
        self.volumes.told()
    }

    /// Volumes that are missing or out of order.
    pub fn unwell(&self) -> impl Iterator<Item = (VolumeId, VolumeState)> + '_ {
        self.volumes.unwell()
    }

    /// Limits promised to containers that use them, and how many containers there are.
    pub fn promised(&self) -> (u32, impl Iterator<Item = ResourceLimits> + '_) {
        let ended = |one: &Container| matches!(one.state(), ContainerState::Exited { .. });
        let promised = self.containers.values().filter(move |one| !ended(one));
        let count = u32::try_from(self.containers.len()).unwrap_or(u32::MAX);
        (count, promised.map(|one| one.record.limits))
    }

    /// Containers whose removal failed.
    pub fn stuck(&self) -> impl Iterator<Item = ContainerId> + '_ {
        self.containers
            .values()
            .filter(|one| one.is_stuck())
            .map(Container::id)
    }

    /// When [`Input::Tick`] is wanted, if at all.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.containers
            .values()
            .filter_map(Container::kill_at)
            .chain(self.volumes.next_deadline())
            .min()
    }

    /// Takes what happened; says what to do, in order.
    #[must_use]
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Order { request, bulk } => self.order(*request, &bulk, now, &mut effects),
            Input::Answered { request, result } => {
                self.out(&mut effects).answer(request, result);
            }
            Input::Allowance {
                request,
                to,
                from,
                from_ip,
                allowed,
                result,
            } => {
                self.allowance(request, (to, from, from_ip), allowed, result, &mut effects);
            }
            Input::LinkUp => effects.push(Effect::Report),
            Input::LinkDown => self.orders.forget_streams(),
            Input::Tick => {
                for container in self.containers.values_mut() {
                    container.tick(
                        now,
                        &mut Out {
                            orders: &mut self.orders,
                            effects: &mut effects,
                        },
                    );
                }
                let holders = holders(&self.containers);
                self.volumes.tick(&holders, now, &mut effects);
            }
            Input::Volumes(list) => self.volumes.listed(list, now, &mut effects),
            Input::VolumeDone { ticket, result } => {
                let out = &mut Out {
                    orders: &mut self.orders,
                    effects: &mut effects,
                };
                let holders = holders(&self.containers);
                self.volumes.done(ticket, result, &holders, now, out);
            }
            Input::Prepared { container, .. }
            | Input::Woken { container, .. }
            | Input::Exited { container, .. }
            | Input::KeeperLost { container }
            | Input::Released { container }
            | Input::Removed { container, .. }
            | Input::ExecStarted { container, .. }
            | Input::ProcessEnded { container, .. } => {
                self.outcome(container, input, now, &mut effects);
            }
        }
        self.revoke(effects)
    }

    fn out<'a>(&'a mut self, effects: &'a mut Vec<Effect>) -> Out<'a> {
        Out {
            orders: &mut self.orders,
            effects,
        }
    }

    fn outcome(&mut self, id: ContainerId, input: Input, now: Now, effects: &mut Vec<Effect>) {
        let Some(container) = self.containers.get_mut(&id) else {
            return;
        };
        let out = &mut Out {
            orders: &mut self.orders,
            effects,
        };
        let mut fate = Fate::Stays;
        match input {
            Input::Prepared { result, .. } => fate = container.prepared(result, now, out),
            Input::Woken { result, .. } => container.woken(result, now, out),
            Input::Exited { end, .. } => container.exited(end, now, out),
            Input::KeeperLost { .. } => container.keeper_lost(now, out),
            Input::Released { .. } => container.released(out),
            Input::Removed { result, .. } => fate = container.removed(result, out),
            Input::ExecStarted {
                process, result, ..
            } => {
                container.process_started(process, result, out);
            }
            Input::ProcessEnded { process, end, .. } => container.process_ended(process, end, out),
            Input::Order { .. }
            | Input::Answered { .. }
            | Input::Allowance { .. }
            | Input::Volumes(_)
            | Input::VolumeDone { .. }
            | Input::LinkUp
            | Input::LinkDown
            | Input::Tick => {}
        }
        let had: Vec<VolumeId> = container
            .record
            .volumes
            .iter()
            .map(|one| one.volume)
            .collect();
        if fate == Fate::Gone {
            self.containers.remove(&id);
        }
        // Something may have waited until its mounts are gone.
        let holders = holders(&self.containers);
        for volume in had {
            self.volumes.advance(volume, &holders, now, effects);
        }
    }

    /// An address that is given back must open no door for its next owner: whoever allowed the
    /// container that ends here allows it no longer. (The master does the same on other nodes.)
    fn revoke(&mut self, effects: Vec<Effect>) -> Vec<Effect> {
        let mut all = Vec::with_capacity(effects.len());
        for mut effect in effects {
            if let Effect::Release {
                container, revoke, ..
            }
            | Effect::Remove {
                container, revoke, ..
            } = &mut effect
            {
                for other in self.containers.values_mut() {
                    let before = other.record.allowed_from.len();
                    other
                        .record
                        .allowed_from
                        .retain(|(from, _)| from != container);
                    if other.record.allowed_from.len() != before {
                        revoke.push(other.id());
                        all.push(Effect::Persist(Box::new(other.record.clone())));
                    }
                }
            }
            all.push(effect);
        }
        all
    }
}

/// Who has a volume.
fn holders(containers: &BTreeMap<ContainerId, Container>) -> impl Fn(VolumeId) -> Vec<Holder> + '_ {
    move |volume| {
        let has = |one: &&Container| one.record.volumes.iter().any(|at| at.volume == volume);
        let ended = |one: &Container| matches!(one.state(), ContainerState::Exited { .. });
        let users = containers
            .values()
            .filter(has)
            .filter(|one| !ended(one) || one.lingers());
        users
            .map(|one| Holder {
                container: one.id(),
                name: one.name(),
                lingers: one.lingers(),
                starts: one.starts(),
            })
            .collect()
    }
}
