//! What `--format json` prints: one shape for every verb (docs/reference/json.md).
//!
//! Invariants: objects are flat; `id`, `name`, `state`, `exit_code`, `created_ms`, `node` and `node_name` mean the
//! same everywhere; states are one lower-case word with underscores; addresses of networks are `address/prefix`; fields
//! are added, never renamed (the snapshots below hold it).

use std::collections::BTreeMap;

use serde::Serialize;
use teu::{
    Cause, ContainerDetail, ContainerId, ContainerInfo, ContainerState, Digest, ExitStatus,
    ImageInfo, NodeCapacity, NodeId, NodeOffer, NodeState, NodeUsage, ProcessId, ProcessInfo,
    ProcessState, ResourceLimits, SessionId, SessionInfo, SnapshotInfo, Tag, Termination, VolumeId,
    VolumeInfo, VolumeOrigin, VolumeState, VolumeUsage,
};

/// How something ended; all empty while it has not.
#[derive(Debug, Default, Serialize)]
struct Ending {
    /// As a shell has it: the code, or 128 and the signal.
    exit_code: Option<u8>,
    /// The signal, if one ended it.
    signal: Option<u8>,
    cause: Option<&'static str>,
}

impl From<&Termination> for Ending {
    fn from(termination: &Termination) -> Self {
        Self {
            exit_code: Some(termination.status.shell_code()),
            signal: match termination.status {
                ExitStatus::Code(_) => None,
                ExitStatus::Signal(number) => Some(number),
            },
            cause: Some(match termination.cause {
                Cause::Exited => "exited",
                Cause::Stopped => "stopped",
                Cause::OutOfMemory => "out_of_memory",
                Cause::SessionEnded => "session_ended",
                Cause::NodeLost => "node_lost",
                Cause::TimedOut => "timed_out",
            }),
        }
    }
}

/// A container.
#[derive(Debug, Serialize)]
pub(crate) struct Container<'a> {
    id: ContainerId,
    name: Option<&'a Tag>,
    state: &'static str,
    #[serde(flatten)]
    ending: Ending,
    created_ms: u64,
    started_ms: Option<u64>,
    ended_ms: Option<u64>,
    node: NodeId,
    node_name: &'a str,
    /// The link to the node is down: `state` is what was last heard.
    node_lost: bool,
    session: &'a str,
    ip: Option<std::net::Ipv4Addr>,
    image: &'a Digest,
    image_name: &'a str,
    command: &'a [String],
    labels: &'a BTreeMap<String, String>,
    tty: bool,
    #[serde(flatten)]
    limits: &'a ResourceLimits,
    allowed_from: &'a [ContainerId],
    /// `local->port`: listeners of this machine.
    ports: &'a [String],
    /// `name:path[:ro]`, as `-v` takes it.
    volumes: &'a [String],
}

/// A state in one word.
pub(crate) const fn container_state(state: &ContainerState) -> &'static str {
    match state {
        ContainerState::Requested => "requested",
        ContainerState::Preparing => "preparing",
        ContainerState::Asleep => "asleep",
        ContainerState::Running { .. } => "running",
        ContainerState::Exited { .. } => "exited",
        ContainerState::Destroyed => "destroyed",
    }
}

impl<'a> Container<'a> {
    /// The exit code of one that has ended.
    pub(crate) const fn exit_code(state: &ContainerState) -> Option<u8> {
        match state {
            ContainerState::Exited { termination, .. } => Some(termination.status.shell_code()),
            _ => None,
        }
    }

    pub(crate) fn new(
        info: &'a ContainerInfo,
        session: &'a str,
        node_name: &'a str,
        ports: &'a [String],
        volumes: &'a [String],
    ) -> Self {
        let (started_ms, ended_ms, ending) = match &info.state {
            ContainerState::Running { since_ms } => (Some(*since_ms), None, Ending::default()),
            ContainerState::Exited { termination, at_ms } => {
                (None, Some(*at_ms), Ending::from(termination))
            }
            _ => (None, None, Ending::default()),
        };
        Self {
            id: info.id,
            name: info.tag.as_ref(),
            state: container_state(&info.state),
            ending,
            created_ms: info.created_ms,
            started_ms,
            ended_ms,
            node: info.node,
            node_name,
            node_lost: false,
            session,
            ip: info.ip,
            image: &info.image,
            image_name: &info.image_name,
            command: &info.command,
            labels: &info.labels,
            tty: info.tty,
            limits: &info.limits,
            allowed_from: &info.allowed_from,
            ports,
            volumes,
        }
    }

    pub(crate) const fn on_lost_node(mut self, node_lost: bool) -> Self {
        self.node_lost = node_lost;
        self
    }
}

/// All about a container.
#[derive(Debug, Serialize)]
pub(crate) struct Inspected<'a> {
    #[serde(flatten)]
    container: Container<'a>,
    processes: Vec<ProcessRow<'a>>,
    env_names: &'a [String],
    exposed_ports: &'a [String],
    files: &'a [String],
}

#[derive(Debug, Serialize)]
struct ProcessRow<'a> {
    id: ProcessId,
    state: &'static str,
    #[serde(flatten)]
    ending: Ending,
    command: &'a [String],
}

impl<'a> Inspected<'a> {
    pub(crate) fn new(container: Container<'a>, detail: &'a ContainerDetail) -> Self {
        Self {
            container,
            processes: detail.processes.iter().map(process).collect(),
            env_names: &detail.env_names,
            exposed_ports: &detail.exposed_ports,
            files: &detail.files,
        }
    }
}

fn process(info: &ProcessInfo) -> ProcessRow<'_> {
    let (state, ending) = match &info.state {
        ProcessState::Running => ("running", Ending::default()),
        ProcessState::Exited(termination) => ("exited", Ending::from(termination)),
    };
    ProcessRow {
        id: info.id,
        state,
        ending,
        command: &info.command,
    }
}

/// A node.
#[derive(Debug, Serialize)]
pub(crate) struct Node<'a> {
    id: NodeId,
    name: &'a str,
    state: &'static str,
    platform: &'a str,
    /// The addresses of its containers.
    subnet: String,
    /// How many containers it can have at once.
    containers_max: u32,
    #[serde(flatten)]
    capacity: &'a NodeCapacity,
    #[serde(flatten)]
    usage: &'a NodeUsage,
}

pub(crate) const fn node_state(state: NodeState) -> &'static str {
    match state {
        NodeState::Up => "up",
        NodeState::Lost => "lost",
    }
}

impl<'a> From<&'a NodeOffer> for Node<'a> {
    fn from(node: &'a NodeOffer) -> Self {
        let (base, prefix) = node.subnet;
        Self {
            id: node.id,
            name: &node.name,
            state: node_state(node.state),
            platform: &node.platform,
            subnet: format!("{base}/{prefix}"),
            containers_max: node.containers_max,
            capacity: &node.capacity,
            usage: &node.usage,
        }
    }
}

/// An image.
#[derive(Debug, Serialize)]
pub(crate) struct Image<'a> {
    id: &'a Digest,
    /// The first of its names.
    name: Option<&'a str>,
    names: &'a [String],
    size_bytes: u64,
    layers: u32,
    platform: &'a str,
    created_ms: u64,
}

impl<'a> From<&'a ImageInfo> for Image<'a> {
    fn from(image: &'a ImageInfo) -> Self {
        Self {
            id: &image.id,
            name: image.names.first().map(String::as_str),
            names: &image.names,
            size_bytes: image.size,
            layers: image.layers,
            platform: &image.platform,
            created_ms: image.added_ms,
        }
    }
}

/// A session.
#[derive(Debug, Serialize)]
pub(crate) struct SessionRow<'a> {
    id: SessionId,
    name: Option<&'a Tag>,
    state: &'static str,
    created_ms: u64,
    attachments: u32,
    containers: u32,
}

impl<'a> From<&'a SessionInfo> for SessionRow<'a> {
    fn from(session: &'a SessionInfo) -> Self {
        Self {
            id: session.id,
            name: session.name.as_ref(),
            state: match session.attachments {
                0 => "detached",
                _ => "attached",
            },
            created_ms: session.created_ms,
            attachments: session.attachments,
            containers: session.containers,
        }
    }
}

/// A volume.
#[derive(Debug, Serialize)]
pub(crate) struct VolumeRow<'a> {
    id: VolumeId,
    name: Option<&'a Tag>,
    state: &'static str,
    created_ms: u64,
    node: NodeId,
    node_name: String,
    quota_bytes: Option<u64>,
    snapshot_every_s: Option<u64>,
    snapshots_kept: Option<u32>,
    labels: &'a BTreeMap<String, String>,
    origin: Option<&'a VolumeOrigin>,
    used_by: &'a [ContainerId],
    /// Containers by name, or short id if they have none or are another session's.
    used_by_names: Vec<String>,
}

pub(crate) const fn volume_state(state: VolumeState) -> &'static str {
    match state {
        VolumeState::Ready => "ready",
        VolumeState::NodeLost => "node_lost",
        VolumeState::Faulted => "faulted",
        VolumeState::Missing => "missing",
    }
}

impl<'a> VolumeRow<'a> {
    pub(crate) fn new(info: &'a VolumeInfo, node_name: String, used_by_names: Vec<String>) -> Self {
        let schedule = info.spec.schedule;
        Self {
            id: info.id,
            name: info.spec.tag.as_ref(),
            state: volume_state(info.state),
            created_ms: info.created_ms,
            node: info.node,
            node_name,
            quota_bytes: info.spec.quota_bytes,
            snapshot_every_s: schedule.map(|schedule| schedule.every_s),
            snapshots_kept: schedule.map(|schedule| schedule.keep),
            labels: &info.spec.labels,
            origin: info.origin.as_ref(),
            used_by: &info.used_by,
            used_by_names,
        }
    }
}

/// All about a volume.
#[derive(Debug, Serialize)]
pub(crate) struct VolumeDetail<'a> {
    #[serde(flatten)]
    pub(crate) row: VolumeRow<'a>,
    /// Nothing while its node cannot be asked.
    pub(crate) snapshots: Option<Vec<SnapshotInfo>>,
    pub(crate) usage: Option<VolumeUsage>,
}

#[cfg(test)]
pub(crate) mod tests;
