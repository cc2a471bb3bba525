//! A model node: does what it is ordered, in its own time, and forgets nothing that it runs.

use std::{collections::BTreeMap, net::Ipv4Addr};

use teu_master_core::ConnectionId;
use teu_protocol::{
    ids::{ContainerId, ProcessId, RequestId, StreamId},
    message::{
        Cause, ContainerState, ExitStatus, MasterToNode, NodeCapacity, NodeContainer, NodeEvent,
        NodeReplyBody, NodeReport, NodeRequest, NodeRequestBody, NodeSpawn, NodeToMaster,
        NodeUsage, ProcessInfo, ProcessState, Refusal, RefusalCode, StreamEnd, StreamFrame,
        Termination,
    },
};

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) number: usize,
    pub(super) link: Option<ConnectionId>,
    pub(super) dial_at: u64,
    /// When the master got its report on this link.
    pub(super) reported_at: u64,
    pub(super) containers: BTreeMap<ContainerId, NodeContainer>,
    pub(super) exited_at: BTreeMap<ContainerId, u64>,
    pub(super) streams: BTreeMap<StreamId, ContainerId>,
    /// Spawns that take their time: the order, until when.
    pub(super) making: BTreeMap<ContainerId, (RequestId, Box<NodeSpawn>, u64)>,
    /// Answers given on this link: the same order again has the effect once.
    answered: BTreeMap<RequestId, Result<NodeReplyBody, Refusal>>,
    /// Orders to destroy that will fail.
    pub(super) stubborn: u8,
    /// How often destroying failed, a container.
    pub(super) failed: BTreeMap<ContainerId, u64>,
    pub(super) same_address: bool,
    last_address: u8,
}

impl Node {
    pub(super) fn new(number: usize) -> Self {
        Self {
            number,
            link: None,
            dial_at: 0,
            reported_at: u64::MAX,
            containers: BTreeMap::new(),
            exited_at: BTreeMap::new(),
            streams: BTreeMap::new(),
            making: BTreeMap::new(),
            answered: BTreeMap::new(),
            stubborn: 0,
            failed: BTreeMap::new(),
            same_address: false,
            last_address: 1,
        }
    }

    /// The link is gone: streams end, answers cannot be given.
    pub(super) fn unlinked(&mut self, dial_at: u64) {
        self.link = None;
        self.reported_at = u64::MAX;
        self.dial_at = dial_at;
        self.streams.clear();
    }

    /// The agent died: what it was about to make is not made.
    pub(super) fn crashed(&mut self, dial_at: u64) {
        self.unlinked(dial_at);
        self.making.clear();
        self.answered.clear();
    }

    pub(super) fn report(&self) -> NodeToMaster {
        NodeToMaster::Report(Box::new(NodeReport {
            platform: "linux/amd64".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            capacity: NodeCapacity {
                cpu_millis: 8_000,
                memory_bytes: 64 << 30,
                disk_bytes: 1 << 40,
                pool_bytes: 0,
            },
            usage: NodeUsage {
                memory_free_bytes: 64 << 30,
                disk_free_bytes: 1 << 40,
                ..NodeUsage::default()
            },
            containers: self
                .containers
                .values()
                .cloned()
                .chain(self.being_made())
                .collect(),
            layers: Vec::new(),
            volumes: None,
        }))
    }

    fn being_made(&self) -> impl Iterator<Item = NodeContainer> {
        self.making.values().map(|(_, spawn, _)| NodeContainer {
            ip: None,
            state: ContainerState::Preparing,
            ..described(spawn)
        })
    }

    /// Takes what the master says; returns what it says to that.
    pub(super) fn hear(&mut self, message: MasterToNode, now: u64) -> Vec<NodeToMaster> {
        match message {
            MasterToNode::Ready(_) => vec![self.report()],
            MasterToNode::Request(order) => self.obey(*order, now),
            MasterToNode::Stream(frame) => {
                if let StreamFrame::Close { stream, .. } = frame {
                    self.streams.remove(&stream);
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn obey(&mut self, order: NodeRequest, now: u64) -> Vec<NodeToMaster> {
        let id = order.id;
        if let Some(result) = self.answered.get(&id) {
            return vec![NodeToMaster::Reply {
                id,
                result: result.clone(),
            }];
        }
        let mut said = Vec::new();
        let result = match order.body {
            NodeRequestBody::Spawn(spawn) => {
                let container = spawn.container;
                match self.containers.get(&container) {
                    Some(known) => Ok(spawned(known)),
                    None => {
                        // Between at once and a third of a second, as the id has it.
                        let takes = u64::from(container.as_bytes()[3]) * 300 / 255;
                        self.making.insert(container, (id, spawn, now + takes));
                        return said;
                    }
                }
            }
            NodeRequestBody::Destroy(container) => {
                if self.stubborn > 0 && self.containers.contains_key(&container) {
                    self.stubborn -= 1;
                    *self.failed.entry(container).or_default() += 1;
                    Err(Refusal::new(
                        RefusalCode::Internal,
                        "device or resource busy",
                    ))
                } else {
                    said.extend(self.destroy(container));
                    Ok(NodeReplyBody::Done)
                }
            }
            NodeRequestBody::Exec {
                container,
                id,
                process,
                bound,
            } => self.exec(container, id, process.args.unwrap_or_default(), bound),
            NodeRequestBody::Signal {
                container,
                process: Some(process),
                signal: teu_protocol::image_config::signal::Signal::KILL,
            } => match self.kill(container, process) {
                Some(event) => {
                    said.push(event);
                    Ok(NodeReplyBody::Done)
                }
                None => Err(no_such()),
            },
            NodeRequestBody::Tunnel {
                container, stream, ..
            } => {
                if self.containers.contains_key(&container) {
                    self.streams.insert(stream, container);
                    Ok(NodeReplyBody::Opened {
                        window: 1 << 16,
                        input: None,
                    })
                } else {
                    Err(no_such())
                }
            }
            _ => Ok(NodeReplyBody::Done),
        };
        let opens_a_stream = matches!(result, Ok(NodeReplyBody::Opened { .. }));
        if !opens_a_stream && !matches!(&result, Err(refusal) if refusal.retryable) {
            self.answered.insert(id, result.clone());
        }
        said.push(NodeToMaster::Reply { id, result });
        said
    }

    /// Spawns that are due.
    pub(super) fn make(&mut self, now: u64) -> Vec<NodeToMaster> {
        let due = self.making.iter().filter(|(_, (_, _, at))| *at <= now);
        let due: Vec<_> = due.map(|(container, _)| *container).collect();
        let mut said = Vec::new();
        for container in due {
            let Some((id, spawn, _)) = self.making.remove(&container) else {
                continue;
            };
            let made = self.made(&spawn, now);
            let result = Ok(spawned(&made));
            let state = made.state;
            self.containers.insert(container, made);
            let event = NodeEvent::Container { container, state };
            said.push(NodeToMaster::Event(Box::new(event)));
            self.answered.insert(id, result.clone());
            said.push(NodeToMaster::Reply { id, result });
        }
        said
    }

    fn made(&mut self, spawn: &NodeSpawn, now: u64) -> NodeContainer {
        NodeContainer {
            ip: Some(self.address()),
            state: ContainerState::Running { since_ms: now },
            ..described(spawn)
        }
    }

    /// The next free address; or, when told to err, one that is taken.
    fn address(&mut self) -> Ipv4Addr {
        let taken: Vec<Ipv4Addr> = self.containers.values().filter_map(|c| c.ip).collect();
        if std::mem::take(&mut self.same_address)
            && let Some(ip) = taken.first()
        {
            return *ip;
        }
        loop {
            self.last_address = if self.last_address >= 254 {
                2
            } else {
                self.last_address + 1
            };
            let ip = Ipv4Addr::new(10, 20, self.number as u8, self.last_address);
            if !taken.contains(&ip) {
                return ip;
            }
        }
    }

    fn destroy(&mut self, container: ContainerId) -> Vec<NodeToMaster> {
        self.containers.remove(&container);
        self.exited_at.remove(&container);
        let mut said = Vec::new();
        if let Some((id, _, _)) = self.making.remove(&container) {
            let refusal = Refusal::new(RefusalCode::WrongState, "destroyed while being made");
            said.push(NodeToMaster::Reply {
                id,
                result: Err(refusal),
            });
        }
        let closed: Vec<_> = self
            .streams
            .iter()
            .filter(|(_, c)| **c == container)
            .map(|(s, _)| *s)
            .collect();
        for stream in closed {
            self.streams.remove(&stream);
            let close = StreamFrame::Close {
                stream,
                end: StreamEnd::Reset,
            };
            said.push(NodeToMaster::Stream(close));
        }
        said
    }

    fn exec(
        &mut self,
        container: ContainerId,
        id: ProcessId,
        command: Vec<String>,
        bound: Option<teu_protocol::ids::AttachmentId>,
    ) -> Result<NodeReplyBody, Refusal> {
        let found = self.containers.get_mut(&container).ok_or_else(no_such)?;
        if matches!(found.state, ContainerState::Exited { .. }) {
            return Err(Refusal::new(
                RefusalCode::WrongState,
                "the container has exited",
            ));
        }
        if found.processes.iter().all(|(process, _)| process.id != id) {
            let info = ProcessInfo {
                id,
                container,
                command,
                state: ProcessState::Running,
            };
            found.processes.push((info, bound));
        }
        Ok(NodeReplyBody::Done)
    }

    fn kill(&mut self, container: ContainerId, process: ProcessId) -> Option<NodeToMaster> {
        let found = self.containers.get_mut(&container)?;
        let at = found
            .processes
            .iter()
            .position(|(info, _)| info.id == process)?;
        let (info, _) = found.processes.remove(at);
        let termination = Termination {
            status: ExitStatus::Signal(9),
            cause: Cause::Stopped,
        };
        let info = ProcessInfo {
            state: ProcessState::Exited(termination),
            ..info
        };
        Some(NodeToMaster::Event(Box::new(NodeEvent::Process(info))))
    }

    /// A container's first process ends.
    pub(super) fn exit(&mut self, choice: u8, now: u64) -> Option<NodeToMaster> {
        let running = |c: &&mut NodeContainer| matches!(c.state, ContainerState::Running { .. });
        let mut running: Vec<_> = self.containers.values_mut().filter(running).collect();
        let count = running.len();
        let container = running.get_mut(usize::from(choice).checked_rem(count)?)?;
        let termination = Termination {
            status: ExitStatus::Code(0),
            cause: Cause::Exited,
        };
        container.state = ContainerState::Exited {
            termination,
            at_ms: now,
        };
        container.processes.clear();
        let (container, state) = (container.container, container.state);
        self.exited_at.insert(container, now);
        Some(NodeToMaster::Event(Box::new(NodeEvent::Container {
            container,
            state,
        })))
    }
}

fn described(spawn: &NodeSpawn) -> NodeContainer {
    NodeContainer {
        container: spawn.container,
        session: spawn.session,
        attachment: spawn.attachment,
        account: spawn.account,
        lifetime: spawn.spec.lifetime,
        tag: spawn.spec.tag.clone(),
        labels: spawn.spec.labels.clone(),
        image: spawn.spec.image,
        image_name: spawn.spec.image_name.clone(),
        command: vec!["app".into()],
        created_ms: spawn.created_ms,
        ip: None,
        state: ContainerState::Requested,
        tty: false,
        limits: spawn.spec.limits,
        allowed_from: Vec::new(),
        volumes: spawn.spec.volumes.clone(),
        processes: Vec::new(),
        readers: Vec::new(),
    }
}

fn spawned(container: &NodeContainer) -> NodeReplyBody {
    NodeReplyBody::Spawned {
        ip: container.ip.unwrap_or(Ipv4Addr::UNSPECIFIED),
        state: container.state,
        command: container.command.clone(),
    }
}

fn no_such() -> Refusal {
    Refusal::new(RefusalCode::NotFound, "no such container or process")
}
