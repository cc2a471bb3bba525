//! Any sequence of orders of volumes and outcomes ends clean.
//!
//! A model pool performs the work in any order. After every step: at most one change of a volume is
//! under way, nothing in use is destroyed or imported into, nothing exported is destroyed. In the
//! end everything was answered once and nothing waits.

#![allow(clippy::panic, clippy::unwrap_used)] // A test that meets the impossible has failed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use proptest::prelude::*;
use teu_node_core::{
    Effect, Input, NodeCore, Now,
    input::ProcessEnd,
    volume::{ListedVolume, VolumeDone, VolumeWork, Work},
};
use teu_protocol::{
    ids::{
        AttachmentId, ContainerId, Digest, PublicKey, RequestId, SessionId, StreamId, Tag, VolumeId,
    },
    message::{
        Compression, ExitStatus, ImageManifest, LayerRef, Lifetime, NodeEvent, NodeReplyBody,
        NodeRequest, NodeRequestBody, NodeSpawn, NodeVolume, ProcessSpec, Refusal, RefusalCode,
        ResourceLimits, RollBack, SnapshotSchedule, SpawnSpec, TransferKey, VolumeMount,
        VolumeOrder, VolumeOrigin, VolumeRecord, VolumeSpec, VolumeState, VolumeUsage,
    },
};

const VOLUMES: u8 = 3;

#[derive(Debug, Clone)]
enum Step {
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
enum Order {
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

fn order() -> impl Strategy<Value = Order> {
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

fn step() -> impl Strategy<Value = Step> {
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

fn volume(n: u8) -> VolumeId {
    VolumeId::from_bytes([n + 1; 16])
}

fn container(n: u8) -> ContainerId {
    ContainerId::from_bytes([n + 50; 16])
}

fn tag(n: u8) -> Tag {
    format!("s{n}").parse().unwrap()
}

const ACCOUNT: PublicKey = PublicKey::from_bytes([3; 32]);

fn record(n: u8, origin: Option<u8>) -> VolumeRecord {
    VolumeRecord {
        id: volume(n),
        account: ACCOUNT,
        created_ms: 5,
        spec: VolumeSpec::default(),
        origin: origin.map(|n| VolumeOrigin {
            volume: volume(n),
            snapshot: tag(0),
        }),
    }
}

fn body(n: u8, order: Order) -> VolumeOrder {
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

fn spawn(n: u8, volumes: Vec<VolumeMount>) -> NodeRequestBody {
    let config = br#"{"os":"linux","architecture":"amd64","config":{"Cmd":["sh"]}}"#.to_vec();
    let digest = Digest::of(b"layer");
    NodeRequestBody::Spawn(Box::new(NodeSpawn {
        container: container(n),
        session: SessionId::from_bytes([1; 16]),
        attachment: AttachmentId::from_bytes([2; 16]),
        account: ACCOUNT,
        created_ms: 5,
        spec: SpawnSpec {
            image: Digest::of(&config),
            node: None,
            tag: Some(format!("c{n}").parse().unwrap()),
            labels: BTreeMap::new(),
            process: ProcessSpec::default(),
            entrypoint: None,
            files: Vec::new(),
            volumes,
            limits: ResourceLimits::default(),
            asleep: false,
            lifetime: Lifetime::Session,
            hostname: None,
            image_name: "busybox".into(),
        },
        image: ImageManifest {
            id: Digest::of(&config),
            config,
            layers: vec![LayerRef {
                digest,
                diff_id: digest,
                size: 1,
                compression: Compression::None,
            }],
        },
    }))
}

fn at(n: u8) -> VolumeMount {
    VolumeMount {
        volume: volume(n),
        path: "/data".into(),
        read_only: false,
    }
}

/// The model: what the pool has, and what was answered.
struct World {
    core: NodeCore,
    now: Duration,
    under_way: Vec<Effect>,
    pool: BTreeMap<VolumeId, VolumeRecord>,
    answers: BTreeMap<RequestId, Result<NodeReplyBody, RefusalCode>>,
    told: Vec<NodeVolume>,
    sent: BTreeSet<RequestId>,
    next: u64,
}

fn changes(effect: &Effect) -> Option<VolumeId> {
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

impl World {
    fn new() -> Self {
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

    fn input(&mut self, input: Input) {
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

    fn outcome(&mut self, n: usize, ok: bool) {
        if self.under_way.is_empty() {
            return;
        }
        let effect = self.under_way.remove(n % self.under_way.len());
        let failed = || Refusal::new(RefusalCode::Internal, "the test says no");
        let result = if ok { Ok(()) } else { Err(failed()) };
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
        let failed = Refusal::new(RefusalCode::Internal, "the test says no");
        if matches!(
            order,
            VolumeOrder::Export { .. } | VolumeOrder::Import { .. }
        ) {
            let result = if ok {
                Ok(NodeReplyBody::Opened { window: 1 })
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

    fn send(&mut self, body: NodeRequestBody) -> RequestId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next.to_be_bytes());
        let id = RequestId::from_bytes(bytes);
        self.next += 1;
        self.sent.insert(id);
        let request = Box::new(NodeRequest { id, body });
        let bulk = Vec::new();
        self.input(Input::Order { request, bulk });
        id
    }

    fn order(&mut self, order: VolumeOrder) -> RequestId {
        self.send(NodeRequestBody::Volume(Box::new(order)))
    }

    fn list(&mut self) {
        let listed = |(id, record): (&VolumeId, &VolumeRecord)| ListedVolume {
            id: *id,
            record: Some(record.clone()),
            is_well: true,
            scheduled_ms: None,
        };
        let list = self.pool.iter().map(listed).collect();
        self.input(Input::Volumes(Some(list)));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Order(n, order) => drop(self.order(body(n, order))),
            Step::Spawn(n, v) => drop(self.send(spawn(n, vec![at(v)]))),
            Step::Destroy(n) => drop(self.send(NodeRequestBody::Destroy(container(n)))),
            Step::Exit(n) => self.input(Input::Exited {
                container: container(n),
                end: ProcessEnd {
                    status: ExitStatus::Code(0),
                    out_of_memory: false,
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

    fn settle(&mut self) {
        while !self.under_way.is_empty() {
            self.outcome(0, true);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn any_sequence_ends_clean(steps in proptest::collection::vec(step(), 0..80)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.settle();
        for n in 0..3 {
            world.send(NodeRequestBody::Destroy(container(n)));
        }
        world.settle();
        world.list();
        let told: Vec<VolumeId> = world.core.volumes().unwrap().iter()
            .map(|one| one.record.id).collect();
        let there: Vec<VolumeId> = world.pool.keys().copied().collect();
        prop_assert_eq!(told, there, "the core and the pool agree");
        for n in 0..VOLUMES {
            let id = world.order(VolumeOrder::Destroy(volume(n)));
            world.settle();
            prop_assert_eq!(&world.answers[&id], &Ok(NodeReplyBody::Done));
        }
        prop_assert_eq!(world.core.volumes(), Some(Vec::new()));
        prop_assert_eq!(world.core.next_deadline(), None);
        for id in &world.sent {
            prop_assert!(world.answers.contains_key(id), "order {} was not answered", id);
        }
    }
}

fn code(world: &World, id: RequestId) -> Option<RefusalCode> {
    world.answers[&id].as_ref().err().copied()
}

#[test]
fn what_waits_for_a_volume_that_is_not_made_is_refused() {
    let mut world = World::new();
    world.order(body(0, Order::Create));
    let scheduled = world.order(body(0, Order::Schedule(false)));
    let again = world.order(body(0, Order::Create));
    world.outcome(0, false);
    assert_eq!(code(&world, scheduled), Some(RefusalCode::NotFound));
    world.settle();
    assert_eq!(code(&world, again), None, "it tries for itself");
}

#[test]
fn a_volume_in_use_is_not_destroyed_and_one_that_is_destroyed_is_not_used() {
    let mut world = World::new();
    world.order(body(0, Order::Create));
    let early = world.send(spawn(0, vec![at(0)]));
    assert_eq!(code(&world, early), Some(RefusalCode::Busy));
    world.settle();
    world.send(spawn(1, vec![at(0)]));
    let destroy = world.order(body(0, Order::Destroy));
    assert_eq!(code(&world, destroy), Some(RefusalCode::Busy));
    world.settle();
    world.step(Step::Exit(1));
    // Its mounts are not gone yet: the order waits, and bars new users.
    let destroy = world.order(body(0, Order::Destroy));
    assert!(!world.answers.contains_key(&destroy));
    let late = world.send(spawn(2, vec![at(0)]));
    assert_eq!(code(&world, late), Some(RefusalCode::Busy));
    world.settle();
    assert_eq!(world.answers[&destroy], Ok(NodeReplyBody::Done));
    let late = world.send(spawn(2, vec![at(0)]));
    assert_eq!(code(&world, late), Some(RefusalCode::NotFound));
}

#[test]
fn anothers_volume_does_not_exist() {
    let mut world = World::new();
    let theirs = VolumeRecord {
        account: PublicKey::from_bytes([4; 32]),
        ..record(0, None)
    };
    world.order(VolumeOrder::Create(theirs));
    world.settle();
    let spawned = world.send(spawn(0, vec![at(0)]));
    assert_eq!(code(&world, spawned), Some(RefusalCode::NotFound));
    let cloned = world.order(body(1, Order::Clone(0)));
    assert_eq!(code(&world, cloned), Some(RefusalCode::NotFound));
    let imported = world.order(body(0, Order::Import(true)));
    assert_eq!(code(&world, imported), Some(RefusalCode::NotFound));
}

#[test]
fn an_unreadable_pool_says_nothing_and_a_lost_volume_is_missing() {
    let mut world = World::new();
    world.order(body(0, Order::Create));
    world.order(body(1, Order::Create));
    world.settle();
    world.input(Input::Volumes(None));
    assert_eq!(world.core.volumes(), None);
    let states = |world: &mut World| -> Vec<VolumeState> {
        world.told.drain(..).map(|one| one.state).collect()
    };
    assert_eq!(states(&mut world), [VolumeState::Faulted; 2]);
    let refused = world.order(body(0, Order::Destroy));
    assert_eq!(code(&world, refused), Some(RefusalCode::Faulted));
    world.pool.remove(&volume(0));
    world.list();
    assert_eq!(
        states(&mut world),
        [VolumeState::Missing, VolumeState::Ready]
    );
    assert_eq!(world.core.volumes().map(|all| all.len()), Some(1));
    let spawned = world.send(spawn(0, vec![at(0)]));
    assert_eq!(code(&world, spawned), Some(RefusalCode::NotFound));
    let forgotten = world.order(body(0, Order::Destroy));
    world.settle();
    assert_eq!(world.answers[&forgotten], Ok(NodeReplyBody::Done));
    assert_eq!(world.core.unwell().count(), 0);
}

#[test]
fn numbers_and_names_are_checked() {
    let mut world = World::new();
    world.order(body(0, Order::Create));
    world.settle();
    let id = volume(0);
    let schedule = |every_s, keep| VolumeOrder::SetSchedule {
        volume: id,
        schedule: Some(SnapshotSchedule { every_s, keep }),
    };
    let bad = [
        VolumeOrder::SetQuota {
            volume: id,
            quota_bytes: Some((1 << 20) - 1),
        },
        VolumeOrder::Snapshot {
            volume: id,
            name: "auto-mine".parse().unwrap(),
        },
        schedule(9, 1),
        schedule(10, 0),
        schedule(10, 1_001),
        schedule(u64::MAX, 1),
    ];
    for order in bad {
        let refused = world.order(order);
        assert_eq!(code(&world, refused), Some(RefusalCode::BadRequest));
    }
    for order in [schedule(10, 1), schedule(10, 1_000)] {
        let done = world.order(order);
        world.settle();
        assert_eq!(code(&world, done), None);
    }
}

#[test]
fn a_schedule_snapshots_once_a_period() {
    let mut world = World::new();
    world.order(body(0, Order::Create));
    world.order(body(0, Order::Schedule(true)));
    world.settle();
    assert_eq!(world.core.next_deadline(), Some(Duration::from_secs(10)));
    world.step(Step::Later(10_000));
    let [Effect::Volume(work)] = world.under_way.as_slice() else {
        panic!("{:?}", world.under_way)
    };
    let name = "auto-19700112T134650Z".parse().unwrap();
    assert_eq!(work.work, Work::Scheduled { name, keep: 2 });
    // A slow pool: what comes meanwhile waits, once.
    world.step(Step::Later(10_000));
    world.step(Step::Later(10_000));
    assert_eq!(world.under_way.len(), 1);
    world.outcome(0, true);
    assert_eq!(world.under_way.len(), 1);
    world.outcome(0, true);
    assert_eq!(world.under_way.len(), 0);
    world.order(body(0, Order::Schedule(false)));
    world.settle();
    assert_eq!(world.core.next_deadline(), None);
}
