//! Any sequence of orders and outcomes ends clean.
//!
//! A model world performs the effects, in any order and with any outcome, and injects deaths at any
//! moment. After every step: life-cycle effects of a container never overlap, effects name known
//! containers, nothing is answered twice. In the end: everything was answered, nothing is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use proptest::prelude::*;
use teu_node_core::{Effect, Input, NodeCore, Now, input::ProcessEnd};
use teu_protocol::{
    ids::{ContainerId, ProcessId, RequestId, StreamId},
    image_config::signal::Signal,
    message::{
        ExitStatus, LogStart, NodeEvent, NodeReplyBody, NodeRequest, NodeRequestBody, ProcessSpec,
    },
};

use crate::rig;

pub(super) const CONTAINERS: u8 = 3;

#[derive(Debug, Clone)]
pub(super) enum Step {
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
pub(super) enum Order {
    Spawn { asleep: bool },
    Wake,
    Stop,
    Signal(Signal),
    Destroy,
    Exec(u8),
    Attach(u8),
    Tunnel,
    AllowFrom(u8),
    DisallowFrom(u8),
    Detail,
    Doctor,
}

pub(super) fn order() -> impl Strategy<Value = Order> {
    prop_oneof![
        4 => any::<bool>().prop_map(|asleep| Order::Spawn { asleep }),
        2 => Just(Order::Wake),
        2 => Just(Order::Stop),
        1 => (1..=64_u8).prop_map(|n| Order::Signal(Signal::try_from(n).unwrap())),
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

pub(super) fn step() -> impl Strategy<Value = Step> {
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

pub(super) fn container(n: u8) -> ContainerId {
    ContainerId::from_bytes([n + 1; 16])
}

pub(super) fn process(container: u8, n: u8) -> ProcessId {
    let mut bytes = [n + 100; 16];
    bytes[0] = container;
    ProcessId::from_bytes(bytes)
}

pub(super) fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, n + 10)
}

pub(super) fn spawn(n: u8, asleep: bool) -> NodeRequestBody {
    rig::spawn(container(n), |spec| spec.asleep = asleep)
}

pub(super) fn body(n: u8, order: Order) -> NodeRequestBody {
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
            place: None,
            owner: None,
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

pub(super) struct World {
    pub(super) core: NodeCore,
    pub(super) now: Duration,
    /// Effects that want an answer.
    pub(super) under_way: Vec<Effect>,
    /// How often each order was answered.
    pub(super) answers: BTreeMap<RequestId, usize>,
    /// How often each was sent.
    pub(super) sent: BTreeMap<RequestId, usize>,
    pub(super) last: Option<NodeRequest>,
    pub(super) next: u64,
}

pub(super) fn life_cycle(effect: &Effect) -> Option<ContainerId> {
    match effect {
        Effect::Prepare(plan) => Some(plan.record.container),
        Effect::Wake(id)
        | Effect::Release { container: id, .. }
        | Effect::Remove { container: id, .. } => Some(*id),
        _ => None,
    }
}

pub(super) fn named(effect: &Effect) -> Option<ContainerId> {
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
    pub(super) fn new() -> Self {
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

    pub(super) fn input(&mut self, input: Input) {
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

    pub(super) fn outcome(&mut self, n: usize, ok: bool) {
        if self.under_way.is_empty() {
            return;
        }
        let n = n % self.under_way.len();
        let effect = self.under_way.remove(n);
        let result = if ok { Ok(()) } else { Err(rig::failed()) };
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

    pub(super) fn order(&mut self, body: NodeRequestBody) {
        let request = NodeRequest {
            id: rig::number(self.next),
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

    pub(super) fn step(&mut self, step: Step) {
        let end = ProcessEnd {
            status: ExitStatus::Code(0),
            out_of_memory: false,
            timed_out: false,
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

    pub(super) fn finish(&mut self) {
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
