//! Any sequence of orders and outcomes ends clean.
//!
//! A model world performs the effects, in any order and with any outcome, and injects deaths at any
//! moment. After every step: life-cycle effects of a container never overlap, effects name known
//! containers, nothing is answered twice. In the end: everything was answered, nothing is left.

#![allow(clippy::panic)] // A test that meets the impossible has failed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use proptest::prelude::*;
use teu_node_core::{Effect, Input, NodeCore, Now, input::ProcessEnd};
use teu_protocol::{
    ids::{
        AttachmentId, ContainerId, Digest, ProcessId, PublicKey, RequestId, SessionId, StreamId,
    },
    message::{
        Cause, Compression, ContainerState, ExitStatus, ImageManifest, LayerRef, Lifetime,
        LogStart, NodeEvent, NodeReplyBody, NodeRequest, NodeRequestBody, NodeSpawn, ProcessSpec,
        Refusal, RefusalCode, ResourceLimits, SpawnSpec,
    },
};

const CONTAINERS: u8 = 3;

#[derive(Debug, Clone)]
enum Step {
    Order(u8, Order),
    /// The order before is sent again.
    Again,
    /// The n-th effect that is under way comes out, well or not.
    Outcome(usize, bool),
    Exit(u8),
    ProcessEnd(u8, u8),
    KeeperLost(u8),
    Later(u64),
    Link(bool),
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Spawn { asleep: bool },
    Wake,
    Stop,
    Signal(u8),
    Destroy,
    Exec(u8),
    Attach(u8),
    Tunnel,
    AllowFrom(u8),
    DisallowFrom(u8),
    Detail,
    Doctor,
}

fn order() -> impl Strategy<Value = Order> {
    prop_oneof![
        4 => any::<bool>().prop_map(|asleep| Order::Spawn { asleep }),
        2 => Just(Order::Wake),
        2 => Just(Order::Stop),
        1 => (0..70_u8).prop_map(Order::Signal),
        2 => Just(Order::Destroy),
        3 => (0..3_u8).prop_map(Order::Exec),
        2 => (0..3_u8).prop_map(Order::Attach),
        1 => Just(Order::Tunnel),
        2 => (0..CONTAINERS).prop_map(Order::AllowFrom),
        1 => (0..CONTAINERS).prop_map(Order::DisallowFrom),
        1 => Just(Order::Detail),
        1 => Just(Order::Doctor),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..CONTAINERS, order()).prop_map(|(container, order)| Step::Order(container, order)),
        1 => Just(Step::Again),
        8 => (0..8_usize, prop::bool::weighted(0.8)).prop_map(|(n, ok)| Step::Outcome(n, ok)),
        1 => (0..CONTAINERS).prop_map(Step::Exit),
        1 => (0..CONTAINERS, 0..3_u8).prop_map(|(container, process)| {
            Step::ProcessEnd(container, process)
        }),
        1 => (0..CONTAINERS).prop_map(Step::KeeperLost),
        1 => (0..20_000_u64).prop_map(Step::Later),
        1 => any::<bool>().prop_map(Step::Link),
    ]
}

fn container(n: u8) -> ContainerId {
    ContainerId::from_bytes([n + 1; 16])
}

fn process(container: u8, n: u8) -> ProcessId {
    let mut bytes = [n + 100; 16];
    bytes[0] = container;
    ProcessId::from_bytes(bytes)
}

fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, n + 10)
}

fn spawn(n: u8, asleep: bool) -> NodeRequestBody {
    let config = br#"{"os":"linux","architecture":"amd64","config":{"Cmd":["sh"]}}"#.to_vec();
    let digest = Digest::of(b"layer");
    NodeRequestBody::Spawn(Box::new(NodeSpawn {
        container: container(n),
        session: SessionId::from_bytes([1; 16]),
        attachment: AttachmentId::from_bytes([2; 16]),
        account: PublicKey::from_bytes([3; 32]),
        created_ms: 5,
        spec: SpawnSpec {
            image: Digest::of(&config),
            node: None,
            tag: None,
            labels: BTreeMap::new(),
            process: ProcessSpec::default(),
            entrypoint: None,
            files: Vec::new(),
            volumes: Vec::new(),
            limits: ResourceLimits::default(),
            asleep,
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

fn body(n: u8, order: Order) -> NodeRequestBody {
    let id = container(n);
    let which = |p: u8| {
        if p == 0 {
            id.main_process()
        } else {
            process(n, p)
        }
    };
    match order {
        Order::Spawn { asleep } => spawn(n, asleep),
        Order::Wake => NodeRequestBody::Wake(id),
        Order::Stop => NodeRequestBody::Stop {
            container: id,
            signal: None,
            grace_ms: 5_000,
        },
        Order::Signal(signal) => NodeRequestBody::Signal {
            container: id,
            process: None,
            signal,
        },
        Order::Destroy => NodeRequestBody::Destroy(id),
        Order::Exec(p) => NodeRequestBody::Exec {
            container: id,
            id: process(n, p),
            process: ProcessSpec {
                args: Some(vec!["ps".into()]),
                ..ProcessSpec::default()
            },
            bound: None,
        },
        Order::Attach(p) => NodeRequestBody::Attach {
            container: id,
            process: which(p),
            from: LogStart::Oldest,
            lossless: false,
            follow: true,
            input: false,
            stream: StreamId(1),
            window: 1,
        },
        Order::Tunnel => NodeRequestBody::Tunnel {
            container: id,
            port: 80,
            stream: StreamId(2),
            window: 1,
        },
        Order::AllowFrom(from) => NodeRequestBody::Allow {
            to: id,
            from: container(from),
            from_ip: ip(from),
        },
        Order::DisallowFrom(from) => NodeRequestBody::Disallow {
            to: id,
            from: container(from),
            from_ip: ip(from),
        },
        Order::Detail => NodeRequestBody::Detail(id),
        Order::Doctor => NodeRequestBody::Doctor,
    }
}

struct World {
    core: NodeCore,
    now: Duration,
    /// Effects that want an answer.
    under_way: Vec<Effect>,
    /// How often each order was answered.
    answers: BTreeMap<RequestId, usize>,
    /// How often each was sent.
    sent: BTreeMap<RequestId, usize>,
    last: Option<NodeRequest>,
    next: u64,
}

fn number(n: u64) -> RequestId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    RequestId::from_bytes(bytes)
}

fn life_cycle(effect: &Effect) -> Option<ContainerId> {
    match effect {
        Effect::Prepare(plan) => Some(plan.record.container),
        Effect::Wake(id)
        | Effect::Release { container: id, .. }
        | Effect::Remove { container: id, .. } => Some(*id),
        _ => None,
    }
}

fn named(effect: &Effect) -> Option<ContainerId> {
    match effect {
        Effect::Cancel(id)
        | Effect::Signal { container: id, .. }
        | Effect::Resize { container: id, .. }
        | Effect::Tunnel { container: id, .. }
        | Effect::ForgetProcess { container: id, .. }
        | Effect::Allow { to: id, .. }
        | Effect::Disallow { to: id, .. }
        | Effect::Tell(NodeEvent::Container { container: id, .. }) => Some(*id),
        Effect::Exec(plan) => Some(plan.container),
        Effect::Attach(attach) => Some(attach.container),
        Effect::Persist(record) => Some(record.container),
        other => life_cycle(other),
    }
}

impl World {
    fn new() -> Self {
        Self {
            core: NodeCore::new("linux/amd64"),
            now: Duration::ZERO,
            under_way: Vec::new(),
            answers: BTreeMap::new(),
            sent: BTreeMap::new(),
            last: None,
            next: 0,
        }
    }

    fn input(&mut self, input: Input) {
        let before: BTreeSet<ContainerId> = self.known();
        let now = Now {
            steady: self.now,
            unix_ms: 7,
        };
        let effects = self.core.handle(input, now);
        let after = self.known();
        for effect in effects {
            if let Some(id) = named(&effect) {
                assert!(
                    before.contains(&id) || after.contains(&id),
                    "{effect:?} of a stranger"
                );
            }
            if let Some(id) = life_cycle(&effect) {
                let busy = self
                    .under_way
                    .iter()
                    .any(|other| life_cycle(other) == Some(id));
                assert!(!busy, "{effect:?} overlaps with another");
            }
            self.perform(effect);
        }
    }

    fn known(&self) -> BTreeSet<ContainerId> {
        self.core
            .containers()
            .into_iter()
            .map(|one| one.container)
            .collect()
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Reply { id, .. } => *self.answers.entry(id).or_default() += 1,
            Effect::Tell(_)
            | Effect::Report
            | Effect::Cancel(_)
            | Effect::Ended { .. }
            | Effect::ForgetProcess { .. }
            | Effect::Persist(_)
            | Effect::Signal { request: None, .. } => {}
            wants_an_answer => self.under_way.push(wants_an_answer),
        }
    }

    fn outcome(&mut self, n: usize, ok: bool) {
        if self.under_way.is_empty() {
            return;
        }
        let n = n % self.under_way.len();
        let effect = self.under_way.remove(n);
        let failed = || Refusal::new(RefusalCode::Internal, "the test says no");
        let result = if ok { Ok(()) } else { Err(failed()) };
        let answered = |request| {
            let result = result.clone().map(|()| NodeReplyBody::Done);
            Input::Answered { request, result }
        };
        let input = match effect {
            Effect::Prepare(plan) => Input::Prepared {
                container: plan.record.container,
                result: result.map(|()| ip(plan.record.container.as_bytes()[0] - 1)),
            },
            Effect::Wake(container) => Input::Woken { container, result },
            Effect::Release { container, .. } => Input::Released { container },
            Effect::Remove { container, .. } => Input::Removed { container, result },
            Effect::Exec(plan) => Input::ExecStarted {
                container: plan.container,
                process: plan.id,
                result,
            },
            Effect::Allow {
                request,
                to,
                from,
                from_ip,
            } => Input::Allowance {
                request,
                to,
                from,
                from_ip,
                allowed: true,
                result,
            },
            Effect::Disallow {
                request,
                to,
                from,
                from_ip,
            } => Input::Allowance {
                request,
                to,
                from,
                from_ip,
                allowed: false,
                result,
            },
            Effect::Signal {
                request: Some(request),
                ..
            }
            | Effect::Resize { request, .. }
            | Effect::Tunnel { request, .. }
            | Effect::Examine { request } => answered(request),
            Effect::Attach(attach) => answered(attach.request),
            other => panic!("{other:?} wants no answer"),
        };
        self.input(input);
    }

    fn order(&mut self, body: NodeRequestBody) {
        let request = NodeRequest {
            id: number(self.next),
            body,
        };
        self.next += 1;
        self.sent.insert(request.id, 1);
        self.last = Some(request.clone());
        self.input(Input::Order {
            request: Box::new(request),
            bulk: Vec::new(),
        });
    }

    fn step(&mut self, step: Step) {
        let end = ProcessEnd {
            status: ExitStatus::Code(0),
            out_of_memory: false,
        };
        match step {
            Step::Order(n, order) => self.order(body(n, order)),
            Step::Again => {
                let Some(request) = self.last.clone() else {
                    return;
                };
                *self.sent.entry(request.id).or_default() += 1;
                self.input(Input::Order {
                    request: Box::new(request),
                    bulk: Vec::new(),
                });
            }
            Step::Outcome(n, ok) => self.outcome(n, ok),
            Step::Exit(n) => self.input(Input::Exited {
                container: container(n),
                end,
            }),
            Step::ProcessEnd(n, p) => self.input(Input::ProcessEnded {
                container: container(n),
                process: process(n, p),
                end,
            }),
            Step::KeeperLost(n) => self.input(Input::KeeperLost {
                container: container(n),
            }),
            Step::Later(ms) => {
                self.now += Duration::from_millis(ms);
                self.input(Input::Tick);
                assert!(self.core.next_deadline().is_none_or(|at| at > self.now));
            }
            Step::Link(up) => self.input(if up { Input::LinkUp } else { Input::LinkDown }),
        }
    }

    fn finish(&mut self) {
        for _ in 0..2 {
            while !self.under_way.is_empty() {
                self.outcome(0, true);
            }
            for n in 0..CONTAINERS {
                self.order(NodeRequestBody::Destroy(container(n)));
            }
        }
        while !self.under_way.is_empty() {
            self.outcome(0, true);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn any_sequence_ends_clean(steps in proptest::collection::vec(step(), 0..60)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.finish();
        prop_assert!(world.core.containers().is_empty());
        prop_assert_eq!(world.core.next_deadline(), None);
        for (id, sent) in &world.sent {
            let answers = world.answers.get(id).copied().unwrap_or(0);
            prop_assert!(answers >= 1 && answers <= *sent, "order {id}: {answers} of {sent}");
        }
    }
}

fn state(world: &World, n: u8) -> Option<ContainerState> {
    world
        .core
        .containers()
        .into_iter()
        .find(|one| one.container == container(n))
        .map(|c| c.state)
}

#[test]
fn a_container_that_ignores_the_stop_signal_is_killed_after_the_grace() {
    let mut world = World::new();
    world.order(spawn(0, false));
    world.outcome(0, true);
    world.order(body(0, Order::Stop));
    assert_eq!(world.core.next_deadline(), Some(Duration::from_secs(5)));
    world.now = Duration::from_secs(5);
    let now = Now {
        steady: world.now,
        unix_ms: 7,
    };
    let effects = world.core.handle(Input::Tick, now);
    assert!(matches!(
        effects.as_slice(),
        [Effect::Signal {
            signal: 9,
            request: None,
            ..
        }]
    ));
    let end = ProcessEnd {
        status: ExitStatus::Signal(9),
        out_of_memory: false,
    };
    world.input(Input::Exited {
        container: container(0),
        end,
    });
    let Some(ContainerState::Exited { termination, .. }) = state(&world, 0) else {
        panic!()
    };
    assert_eq!(termination.cause, Cause::Stopped);
    assert_eq!(world.answers.values().copied().collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn an_address_that_is_given_back_opens_no_door() {
    let mut world = World::new();
    for n in 0..2 {
        world.order(spawn(n, false));
        world.outcome(0, true);
    }
    world.order(body(0, Order::AllowFrom(1)));
    world.outcome(0, true);
    assert_eq!(
        world.core.containers()[0].allowed_from,
        [(container(1), ip(1))]
    );
    world.order(NodeRequestBody::Destroy(container(1)));
    let [
        Effect::Remove {
            revoke, ip: gone, ..
        },
    ] = world.under_way.as_slice()
    else {
        panic!()
    };
    assert_eq!(
        (revoke.as_slice(), *gone),
        (&[container(0)][..], Some(ip(1)))
    );
    assert_eq!(world.core.containers()[0].allowed_from, []);
}

#[test]
fn an_end_that_comes_before_the_word_of_the_start_is_told_after_it() {
    let mut world = World::new();
    world.order(spawn(0, false));
    let end = ProcessEnd {
        status: ExitStatus::Code(3),
        out_of_memory: false,
    };
    world.input(Input::Exited {
        container: container(0),
        end,
    });
    assert_eq!(state(&world, 0), Some(ContainerState::Preparing));
    world.outcome(0, true);
    let Some(ContainerState::Exited { termination, .. }) = state(&world, 0) else {
        panic!()
    };
    assert_eq!(termination.status, ExitStatus::Code(3));
    assert!(matches!(
        world.under_way.as_slice(),
        [Effect::Release { .. }]
    ));
}
