//! The master's orders, one by one.
//!
//! Owner: [`super::NodeCore`]. Invariant: each order is answered here, or an effect carries it on,
//! or a container keeps it waiting. To add an order: an arm in [`NodeCore::order`].

use std::net::Ipv4Addr;

use bytes::Bytes;
use teu_protocol::{
    ids::{ContainerId, ProcessId, RequestId},
    message::{
        NodeReplyBody, NodeRequest, NodeRequestBody, NodeSpawn, ProcessSpec, Refusal, RefusalCode,
        VolumeMount,
    },
};

use super::{MAX_CONTAINERS, NodeCore, holders};
use crate::{
    container::{Container, Out},
    effect::{Attach, Effect},
    input::Now,
    orders::Begin,
    plan::{plan_exec, plan_spawn},
    process::Start,
    volume::looks,
};

/// Rules of one container: each costs an element in a kernel set.
const MAX_ALLOWED_FROM: usize = 1_024;

impl NodeCore {
    pub(super) fn order(
        &mut self,
        order: NodeRequest,
        bulk: &[Bytes],
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let id = order.id;
        if only_looks(&order.body) {
            self.orders.forget(id);
        }
        match self.orders.begin(id) {
            Begin::Fresh => {}
            Begin::Pending => return,
            Begin::Answered(result) => {
                return effects.push(Effect::Reply {
                    id,
                    result: *result,
                });
            }
            Begin::Full => {
                let message = "the node has too many orders under way; try again in a moment";
                let result = Err(Refusal::new(RefusalCode::Unavailable, message));
                return effects.push(Effect::Reply { id, result });
            }
        }
        match order.body {
            NodeRequestBody::Spawn(spawn) => self.spawn(id, &spawn, bulk, effects),
            NodeRequestBody::Destroy(container) => match self.containers.get_mut(&container) {
                Some(found) => {
                    found.destroy(
                        id,
                        &mut Out {
                            orders: &mut self.orders,
                            effects,
                        },
                    );
                }
                None => self.out(effects).answer(id, Ok(NodeReplyBody::Done)),
            },
            NodeRequestBody::Volume(order) => {
                let out = &mut Out {
                    orders: &mut self.orders,
                    effects,
                };
                let holders = holders(&self.containers);
                self.volumes.order(id, *order, &holders, now, out);
            }
            NodeRequestBody::Wake(container) if self.is_rolling_back_for(container) => {
                let message = "a volume of the container is being rolled back; try again in a \
                               moment";
                self.out(effects)
                    .refuse(id, RefusalCode::Unavailable, message);
            }
            NodeRequestBody::Doctor => effects.push(Effect::Examine { request: id }),
            NodeRequestBody::RemoveLayers(digests) => {
                effects.push(Effect::RemoveLayers(digests));
                self.out(effects).answer(id, Ok(NodeReplyBody::Done));
            }
            body => {
                let container = target(&body);
                let Some(found) = container.and_then(|id| self.containers.get_mut(&id)) else {
                    let message = "the node has no such container";
                    return self.out(effects).refuse(id, RefusalCode::NotFound, message);
                };
                let out = &mut Out {
                    orders: &mut self.orders,
                    effects,
                };
                found.ordered(id, body, now, out);
            }
        }
    }

    fn spawn(
        &mut self,
        request: RequestId,
        spawn: &NodeSpawn,
        bulk: &[Bytes],
        effects: &mut Vec<Effect>,
    ) {
        if let Some(known) = self.containers.get_mut(&spawn.container) {
            return known.spawn_again(
                request,
                &mut Out {
                    orders: &mut self.orders,
                    effects,
                },
            );
        }
        if self.containers.len() >= MAX_CONTAINERS {
            let message = format!("the node has {MAX_CONTAINERS} containers; destroy some first");
            return self
                .out(effects)
                .refuse(request, RefusalCode::NoCapacity, message);
        }
        let planned = plan_spawn(spawn, bulk, &self.platform).and_then(|plan| {
            let volumes = &plan.record.volumes;
            self.volumes.may_mount(spawn.account, volumes)?;
            Ok(plan)
        });
        match planned {
            Ok(plan) => {
                let mut container = Container::preparing(plan.record.clone(), plan.asleep, request);
                container
                    .readers
                    .extend(plan.reader.map(|(_, owner)| owner));
                self.containers.insert(spawn.container, container);
                effects.push(Effect::Prepare(Box::new(plan)));
            }
            Err(refusal) => self.out(effects).answer(request, Err(refusal)),
        }
    }

    fn is_rolling_back_for(&self, container: ContainerId) -> bool {
        let mounts = self
            .containers
            .get(&container)
            .map(|one| &one.record.volumes);
        mounts.is_some_and(|mounts| {
            let rolls = |mount: &VolumeMount| self.volumes.is_rolling_back(mount.volume);
            mounts.iter().any(rolls)
        })
    }

    /// A firewall rule is in force, or is not: the record says so before the answer does.
    pub(super) fn allowance(
        &mut self,
        request: RequestId,
        (to, from, from_ip): (ContainerId, ContainerId, Ipv4Addr),
        allowed: bool,
        result: Result<(), Refusal>,
        effects: &mut Vec<Effect>,
    ) {
        if let (Ok(()), Some(container)) = (&result, self.containers.get_mut(&to)) {
            let list = &mut container.record.allowed_from;
            list.retain(|known| *known != (from, from_ip));
            if allowed && container.has_network() {
                container.record.allowed_from.push((from, from_ip));
            }
            effects.push(Effect::Persist(Box::new(container.record.clone())));
        }
        self.out(effects)
            .answer(request, result.map(|()| NodeReplyBody::Done));
    }
}

impl Container {
    fn ordered(&mut self, id: RequestId, body: NodeRequestBody, now: Now, out: &mut Out<'_>) {
        let container = self.id();
        match body {
            NodeRequestBody::Wake(_) => self.wake(id, out),
            NodeRequestBody::Stop {
                signal, grace_ms, ..
            } => {
                self.stop(id, signal, grace_ms, now, out);
            }
            NodeRequestBody::Signal {
                process, signal, ..
            } => {
                self.signal(id, process, signal, out);
            }
            NodeRequestBody::Exec {
                id: process,
                process: spec,
                bound,
                ..
            } => {
                self.exec(id, process, &spec, bound, out);
            }
            NodeRequestBody::Attach {
                process,
                from,
                lossless,
                place,
                owner,
                follow,
                input,
                stream,
                window,
                ..
            } => {
                if self.has_log(process) {
                    let request = id;
                    self.readers.extend(owner.filter(|_| place.is_some()));
                    out.effects.push(Effect::Attach(Attach {
                        request,
                        container,
                        process,
                        from,
                        lossless,
                        place,
                        owner,
                        follow,
                        input,
                        stream,
                        window,
                    }));
                } else {
                    out.refuse(
                        id,
                        RefusalCode::NotFound,
                        "there is no output of such a process",
                    );
                }
            }
            NodeRequestBody::ReleaseReaders { attachment, .. } => {
                self.release_readers(attachment, out);
                out.answer(id, Ok(NodeReplyBody::Done));
            }
            NodeRequestBody::Resize { process, size, .. } => {
                if self.is_running() && self.has_log(process) {
                    out.effects.push(Effect::Resize {
                        request: id,
                        container,
                        process,
                        size,
                    });
                } else {
                    out.refuse(id, RefusalCode::WrongState, "the process is not running");
                }
            }
            NodeRequestBody::Tunnel {
                port,
                stream,
                window,
                ..
            } => match self.record.ip {
                Some(ip) if self.is_running() => {
                    let request = id;
                    out.effects.push(Effect::Tunnel {
                        request,
                        container,
                        ip,
                        port,
                        stream,
                        window,
                    });
                }
                _ => out.refuse(id, RefusalCode::WrongState, "the container is not running"),
            },
            NodeRequestBody::Allow { to, from, from_ip } => {
                let full = self.record.allowed_from.len() >= MAX_ALLOWED_FROM;
                if full {
                    let message = format!("{MAX_ALLOWED_FROM} containers are allowed already");
                    out.refuse(id, RefusalCode::LimitReached, message);
                } else if self.has_network() {
                    out.effects.push(Effect::Allow {
                        request: id,
                        to,
                        from,
                        from_ip,
                    });
                } else {
                    let message = "the container has no network: it is not ready, or has exited";
                    out.refuse(id, RefusalCode::WrongState, message);
                }
            }
            NodeRequestBody::Disallow { to, from, from_ip } => {
                if self.has_network() {
                    out.effects.push(Effect::Disallow {
                        request: id,
                        to,
                        from,
                        from_ip,
                    });
                } else {
                    out.answer(id, Ok(NodeReplyBody::Done));
                }
            }
            NodeRequestBody::Detail(_) => {
                let detail = self.detail();
                out.answer(id, Ok(detail));
            }
            NodeRequestBody::Spawn(_)
            | NodeRequestBody::Destroy(_)
            | NodeRequestBody::Volume(_)
            | NodeRequestBody::RemoveLayers(_)
            | NodeRequestBody::Doctor => {}
        }
    }

    fn exec(
        &mut self,
        request: RequestId,
        process: ProcessId,
        spec: &ProcessSpec,
        bound: Option<teu_protocol::ids::AttachmentId>,
        out: &mut Out<'_>,
    ) {
        if !self.is_running() && !self.processes.is_known(process) {
            return out.refuse(
                request,
                RefusalCode::WrongState,
                "the container is not running",
            );
        }
        let plan = match plan_exec(&self.record, process, spec, bound) {
            Ok(plan) => plan,
            Err(refusal) => return out.answer(request, Err(refusal)),
        };
        match self
            .processes
            .start(process, &plan.process.args, bound, request)
        {
            Start::Fresh => {
                self.readers.extend(bound.filter(|_| plan.reader.is_some()));
                out.effects.push(Effect::Exec(Box::new(plan)));
            }
            Start::Joined => {}
            Start::Already => out.answer(request, Ok(NodeReplyBody::Done)),
            Start::Full => {
                let message = "too many processes were started in this container at once";
                out.refuse(request, RefusalCode::LimitReached, message);
            }
        }
    }

    fn has_log(&self, process: ProcessId) -> bool {
        let main = process == self.id().main_process();
        self.has_files() && (main || self.processes.is_known(process))
    }

    fn detail(&self) -> NodeReplyBody {
        let name = |entry: &String| {
            entry
                .split_once('=')
                .map_or_else(|| entry.clone(), |(name, _)| name.to_owned())
        };
        NodeReplyBody::Detail {
            processes: self
                .processes
                .told(self.id())
                .into_iter()
                .map(|(info, _)| info)
                .collect(),
            env_names: self.record.process.env.iter().map(name).collect(),
            exposed_ports: self.record.exposed_ports.clone(),
            files: self.record.files.clone(),
            termination: self.termination(),
        }
    }
}

/// Orders that change nothing may be repeated as often as asked: their answers are not kept.
fn only_looks(body: &NodeRequestBody) -> bool {
    match body {
        NodeRequestBody::Detail(_) | NodeRequestBody::Doctor => true,
        NodeRequestBody::Volume(order) => looks(order),
        _ => false,
    }
}

const fn target(body: &NodeRequestBody) -> Option<ContainerId> {
    match body {
        NodeRequestBody::Wake(container)
        | NodeRequestBody::Destroy(container)
        | NodeRequestBody::Detail(container)
        | NodeRequestBody::Stop { container, .. }
        | NodeRequestBody::Signal { container, .. }
        | NodeRequestBody::Exec { container, .. }
        | NodeRequestBody::Attach { container, .. }
        | NodeRequestBody::ReleaseReaders { container, .. }
        | NodeRequestBody::Resize { container, .. }
        | NodeRequestBody::Tunnel { container, .. }
        | NodeRequestBody::Allow { to: container, .. }
        | NodeRequestBody::Disallow { to: container, .. } => Some(*container),
        NodeRequestBody::Spawn(_)
        | NodeRequestBody::Volume(_)
        | NodeRequestBody::RemoveLayers(_)
        | NodeRequestBody::Doctor => None,
    }
}
