//! Any sequence of orders of volumes and outcomes ends clean.
//!
//! A model pool performs the work in any order. After every step: at most one change of a volume is
//! under way, nothing in use is destroyed or imported into, nothing exported is destroyed. In the
//! end everything was answered once and nothing waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use proptest::prelude::*;
use teu_node_core::{
    Effect, Input, NodeCore, Now,
    input::ProcessEnd,
    volume::{ListedVolume, MAX_TRANSFERS, VolumeDone, VolumeWork, Work},
};
use teu_protocol::{
    ids::{ContainerId, RequestId, StreamId, Tag, VolumeId},
    message::{
        ExitStatus, NodeEvent, NodeReplyBody, NodeRequest, NodeRequestBody, NodeVolume,
        RefusalCode, RollBack, SnapshotSchedule, TransferKey, VolumeMount, VolumeOrder,
        VolumeOrigin, VolumeRecord, VolumeSpec, VolumeState, VolumeUsage,
    },
};

use crate::rig;

pub(super) const VOLUMES: u8 = 3;

#[derive(Debug, Clone)]
pub(super) enum Step {
    Order(u8, Order),
    Spawn(u8, u8),
    Destroy(u8),
    Exit(u8),
    /// The n-th effect that is under way comes out, well or not.
    Outcome(usize, bool),
    /// The pool is looked at: it can be read, or not.
    List(bool),
    Later(u64),
    Link(bool),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Create,
    Clone(u8),
    Import(bool),
    Destroy,
    Snapshots,
    Snapshot(u8),
    DestroySnapshot(u8),
    RollBack,
    Usage,
    Quota,
    Schedule(bool),
    Export(u8),
}

pub(super) fn order() -> impl Strategy<Value = Order> {
    prop_oneof![
        6 => Just(Order::Create),
        2 => (0..VOLUMES).prop_map(Order::Clone),
        2 => any::<bool>().prop_map(Order::Import),
        3 => Just(Order::Destroy),
        1 => Just(Order::Snapshots),
        3 => (0..3_u8).prop_map(Order::Snapshot),
        2 => (0..3_u8).prop_map(Order::DestroySnapshot),
        2 => Just(Order::RollBack),
        1 => Just(Order::Usage),
        1 => Just(Order::Quota),
        1 => any::<bool>().prop_map(Order::Schedule),
        2 => (0..3_u8).prop_map(Order::Export),
    ]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..VOLUMES, order()).prop_map(|(volume, order)| Step::Order(volume, order)),
        2 => (0..3_u8, 0..VOLUMES).prop_map(|(container, volume)| Step::Spawn(container, volume)),
        1 => (0..3_u8).prop_map(Step::Destroy),
        1 => (0..3_u8).prop_map(Step::Exit),
        9 => (0..8_usize, prop::bool::weighted(0.8)).prop_map(|(n, ok)| Step::Outcome(n, ok)),
        1 => any::<bool>().prop_map(Step::List),
        1 => (0..90_000_u64).prop_map(Step::Later),
        1 => any::<bool>().prop_map(Step::Link),
    ]
}

pub(super) fn volume(n: u8) -> VolumeId {
    VolumeId::from_bytes([n + 1; 16])
}

pub(super) fn container(n: u8) -> ContainerId {
    ContainerId::from_bytes([n + 50; 16])
}

pub(super) fn tag(n: u8) -> Tag {
    format!("s{n}").parse().unwrap()
}

pub(super) fn record(n: u8, origin: Option<u8>) -> VolumeRecord {
    VolumeRecord {
        id: volume(n),
        account: rig::ACCOUNT,
        created_ms: 5,
        spec: VolumeSpec::default(),
        origin: origin.map(|n| VolumeOrigin {
            volume: volume(n),
            snapshot: tag(0),
        }),
    }
}

pub(super) fn body(n: u8, order: Order) -> VolumeOrder {
    let key = TransferKey([9; 32]);
    let id = volume(n);
    match order {
        Order::Create => VolumeOrder::Create(record(n, None)),
        Order::Clone(from) => VolumeOrder::Clone(record(n, Some(from))),
        Order::Import(into) => VolumeOrder::Import {
            record: record(n, None),
            into,
            key,
            stream: StreamId(1),
        },
        Order::Destroy => VolumeOrder::Destroy(id),
        Order::Snapshots => VolumeOrder::Snapshots(id),
        Order::Snapshot(s) => VolumeOrder::Snapshot {
            volume: id,
            name: tag(s),
        },
        Order::DestroySnapshot(s) => VolumeOrder::DestroySnapshot {
            volume: id,
            name: tag(s),
        },
        Order::RollBack => VolumeOrder::RollBack(RollBack {
            volume: id,
            snapshot: tag(0),
            discard_later: true,
            force: false,
        }),
        Order::Usage => VolumeOrder::Usage(id),
        Order::Quota => VolumeOrder::SetQuota {
            volume: id,
            quota_bytes: Some(2 << 20),
        },
        Order::Schedule(on) => VolumeOrder::SetSchedule {
            volume: id,
            schedule: on.then_some(SnapshotSchedule {
                every_s: 10,
                keep: 2,
            }),
        },
        Order::Export(s) => VolumeOrder::Export {
            volume: id,
            snapshot: tag(s),
            base: None,
            key,
            stream: StreamId(2),
            window: 1,
        },
    }
}

pub(super) fn spawn(n: u8, volumes: Vec<VolumeMount>) -> NodeRequestBody {
    rig::spawn(container(n), |spec| {
        spec.tag = Some(format!("c{n}").parse().unwrap());
        spec.volumes = volumes;
    })
}

pub(super) fn at(n: u8) -> VolumeMount {
    VolumeMount {
        volume: volume(n),
        path: "/data".into(),
        read_only: false,
    }
}

/// The model: what the pool has, and what was answered.
pub(super) struct World {
    pub(super) core: NodeCore,
    pub(super) now: Duration,
    pub(super) under_way: Vec<Effect>,
    pub(super) pool: BTreeMap<VolumeId, VolumeRecord>,
    pub(super) answers: BTreeMap<RequestId, Result<NodeReplyBody, RefusalCode>>,
    pub(super) told: Vec<NodeVolume>,
    pub(super) sent: BTreeSet<RequestId>,
    pub(super) next: u64,
}

pub(super) fn changes(effect: &Effect) -> Option<VolumeId> {
    let Effect::Volume(work) = effect else {
        return None;
    };
    match &work.work {
        Work::Order {
            order: VolumeOrder::Snapshots(_) | VolumeOrder::Usage(_) | VolumeOrder::Export { .. },
            ..
        } => None,
        // Of what is not known: the worker looks, one after the other.
        Work::Order {
            order: VolumeOrder::Destroy(_),
            ..
        } if work.record.is_none() => None,
        _ => Some(work.volume),
    }
}

fn is_transfer(effect: &Effect) -> bool {
    let Effect::Volume(work) = effect else {
        return false;
    };
    matches!(
        work.work,
        Work::Order {
            order: VolumeOrder::Export { .. } | VolumeOrder::Import { .. },
            ..
        }
    )
}

impl World {
    pub(super) fn new() -> Self {
        let mut world = Self {
            core: NodeCore::new("linux/amd64"),
            now: Duration::ZERO,
            under_way: Vec::new(),
            pool: BTreeMap::new(),
            answers: BTreeMap::new(),
            told: Vec::new(),
            sent: BTreeSet::new(),
            next: 0,
        };
        world.input(Input::Volumes(Some(Vec::new())));
        world
    }

    pub(super) fn input(&mut self, input: Input) {
        let now = Now {
            steady: self.now,
            unix_ms: 1_000_000_000 + u64::try_from(self.now.as_millis()).unwrap(),
        };
        for effect in self.core.handle(input, now) {
            if let Some(id) = changes(&effect) {
                let busy = self.under_way.iter().any(|one| changes(one) == Some(id));
                assert!(!busy, "{effect:?} overlaps with another");
            }
            match effect {
                Effect::Reply { id, result } => {
                    let result = result.map_err(|refusal| refusal.code);
                    assert!(self.answers.insert(id, result).is_none(), "answered twice");
                }
                Effect::Tell(NodeEvent::Volume(told)) => self.told.push(*told),
                Effect::Tell(_)
                | Effect::Report
                | Effect::Cancel(_)
                | Effect::Ended { .. }
                | Effect::Persist(_) => {}
                Effect::Volume(work) => {
                    self.look_at(&work);
                    self.under_way.push(Effect::Volume(work));
                    assert!(self.transfers() <= MAX_TRANSFERS);
                }
                other => self.under_way.push(other),
            }
        }
    }

    /// What must never reach the worker.
    fn look_at(&self, work: &VolumeWork) {
        let Work::Order { order, .. } = &work.work else {
            return;
        };
        let exported = || {
            self.under_way.iter().filter_map(|one| match one {
                Effect::Volume(other) if other.volume == work.volume => match &other.work {
                    Work::Order {
                        order: VolumeOrder::Export { snapshot, .. },
                        ..
                    } => Some(snapshot.clone()),
                    _ => None,
                },
                _ => None,
            })
        };
        match order {
            VolumeOrder::Destroy(_) => {
                assert_eq!(work.mounted_by, []);
                assert_eq!(exported().count(), 0);
                // What is not known has no mounts, whoever once had it.
                let lingers = work.record.is_some()
                    && self.under_way.iter().any(|one| {
                        matches!(one, Effect::Release { container: id, .. }
                        | Effect::Remove { container: id, .. }
                        if self.core.containers().iter().any(|known| known.container == *id
                            && known.volumes.iter().any(|at| at.volume == work.volume)))
                    });
                assert!(!lingers, "destroyed before its mounts are gone");
            }
            VolumeOrder::Import { into: true, .. } => assert_eq!(work.mounted_by, []),
            VolumeOrder::DestroySnapshot { name, .. } => {
                assert!(!exported().any(|exported| exported == *name));
            }
            _ => {}
        }
        for held in exported() {
            assert!(work.held.contains(&held));
        }
    }

    pub(super) fn outcome(&mut self, n: usize, ok: bool) {
        if self.under_way.is_empty() {
            return;
        }
        let effect = self.under_way.remove(n % self.under_way.len());
        let result = if ok { Ok(()) } else { Err(rig::failed()) };
        let input = match effect {
            Effect::Prepare(plan) => Input::Prepared {
                container: plan.record.container,
                result: result.map(|()| Ipv4Addr::new(10, 0, 0, 9)),
            },
            Effect::Release { container, .. } => Input::Released { container },
            Effect::Remove { container, .. } => Input::Removed { container, result },
            Effect::Volume(work) => return self.worked(*work, ok),
            other => panic!("{other:?} is not of this test"),
        };
        self.input(input);
    }

    fn worked(&mut self, work: VolumeWork, ok: bool) {
        let ticket = work.ticket;
        let Work::Order { request, order } = work.work else {
            let result = Ok(VolumeDone::done());
            return self.input(Input::VolumeDone { ticket, result });
        };
        let id = work.volume;
        let failed = rig::failed();
        if matches!(
            order,
            VolumeOrder::Export { .. } | VolumeOrder::Import { .. }
        ) {
            let result = if ok {
                Ok(NodeReplyBody::Opened {
                    window: 1,
                    input: None,
                })
            } else {
                Err(failed.clone())
            };
            self.input(Input::Answered { request, result });
        }
        if !ok {
            let result = Err(failed);
            return self.input(Input::VolumeDone { ticket, result });
        }
        let mut done = VolumeDone::done();
        match order {
            VolumeOrder::Create(record)
            | VolumeOrder::Clone(record)
            | VolumeOrder::Import {
                record,
                into: false,
                ..
            } => {
                self.pool.insert(id, record.clone());
                done.record = Some(record);
            }
            VolumeOrder::Destroy(_) if work.record.is_some() => {
                self.pool.remove(&id);
            }
            VolumeOrder::SetSchedule { schedule, .. } => {
                let mut record = work.record.unwrap();
                record.spec.schedule = schedule;
                self.pool.insert(id, record.clone());
                done.record = Some(record);
            }
            VolumeOrder::Usage(_) => {
                done.reply = NodeReplyBody::VolumeUsage(VolumeUsage {
                    referenced_bytes: 0,
                    exclusive_bytes: 0,
                    snapshots_bytes: 0,
                    quota_bytes: None,
                    available_bytes: 0,
                    snapshots: 0,
                });
            }
            _ => {}
        }
        if let Some(record) = done.record.clone() {
            done.reply = NodeReplyBody::Volume(Box::new(NodeVolume {
                record,
                state: VolumeState::Ready,
            }));
        }
        let result = Ok(done);
        self.input(Input::VolumeDone { ticket, result });
    }

    pub(super) fn send(&mut self, body: NodeRequestBody) -> RequestId {
        let id = rig::number(self.next);
        self.next += 1;
        self.sent.insert(id);
        let request = Box::new(NodeRequest { id, body });
        let bulk = Vec::new();
        self.input(Input::Order { request, bulk });
        id
    }

    pub(super) fn order(&mut self, order: VolumeOrder) -> RequestId {
        self.send(NodeRequestBody::Volume(Box::new(order)))
    }

    pub(super) fn list(&mut self) {
        let listed = |(id, record): (&VolumeId, &VolumeRecord)| ListedVolume {
            id: *id,
            record: Some(record.clone()),
            is_well: true,
            scheduled_ms: None,
        };
        let list = self.pool.iter().map(listed).collect();
        self.input(Input::Volumes(Some(list)));
    }

    pub(super) fn step(&mut self, step: Step) {
        match step {
            Step::Order(n, order) => drop(self.order(body(n, order))),
            Step::Spawn(n, v) => drop(self.send(spawn(n, vec![at(v)]))),
            Step::Destroy(n) => drop(self.send(NodeRequestBody::Destroy(container(n)))),
            Step::Exit(n) => self.input(Input::Exited {
                container: container(n),
                end: ProcessEnd {
                    status: ExitStatus::Code(0),
                    out_of_memory: false,
                    timed_out: false,
                },
            }),
            Step::Outcome(n, ok) => self.outcome(n, ok),
            Step::List(true) => self.list(),
            Step::List(false) => self.input(Input::Volumes(None)),
            Step::Later(ms) => {
                self.now += Duration::from_millis(ms);
                self.input(Input::Tick);
                assert!(self.core.next_deadline().is_none_or(|at| at > self.now));
            }
            Step::Link(up) => self.input(if up { Input::LinkUp } else { Input::LinkDown }),
        }
    }

    pub(super) fn transfers(&self) -> usize {
        let all = self.under_way.iter();
        all.filter(|one| is_transfer(one)).count()
    }

    pub(super) fn settle(&mut self) {
        while !self.under_way.is_empty() {
            self.outcome(0, true);
        }
    }
}
