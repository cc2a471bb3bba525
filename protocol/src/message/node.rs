//! What the master orders from a node, and what the node tells.

use std::{collections::BTreeMap, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::{
    ContainerState, Finding, ImageManifest, Lifetime, LogStart, NodeCapacity, NodeUsage, Place,
    ProcessInfo, ProcessSpec, ResourceLimits, RollBack, SnapshotInfo, SnapshotSchedule, SpawnSpec,
    TermSize, Termination, TransferKey, VolumeMount, VolumeRecord, VolumeState, VolumeUsage,
};
use crate::ids::{
    AttachmentId, ContainerId, Digest, ProcessId, PublicKey, RequestId, SessionId, StreamId, Tag,
    VolumeId,
};
use crate::image_config::signal::Signal;

/// An order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeRequest {
    /// Unique at the node; the same id again has the effect once.
    pub id: RequestId,
    /// What.
    pub body: NodeRequestBody,
}

/// Layers in one `RemoveLayers`: four of the largest images.
pub const MAX_REMOVED_LAYERS: usize = 1_024;

/// What the master orders. The same shapes as the clients' requests, stamped by the master.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum NodeRequestBody {
    /// → `Spawned`. The bulk holds the pre-boot files' contents.
    Spawn(Box<NodeSpawn>),
    /// → `State`.
    Wake(ContainerId),
    /// → `State`, when it has exited.
    Stop {
        /// Which.
        container: ContainerId,
        /// Instead of the image's stop signal.
        signal: Option<Signal>,
        /// Milliseconds until SIGKILL.
        grace_ms: u32,
    },
    /// → `Done`.
    Signal {
        /// Which.
        container: ContainerId,
        /// Which process.
        process: Option<ProcessId>,
        /// The signal.
        signal: Signal,
    },
    /// → `Done`, also if there is no such container.
    Destroy(ContainerId),
    /// → `Done`: the process's id is the master's choice.
    Exec {
        /// Where.
        container: ContainerId,
        /// Who it becomes.
        id: ProcessId,
        /// What.
        process: ProcessSpec,
        /// Ends with this attachment: the master orders its end.
        bound: Option<AttachmentId>,
    },
    /// → `Opened`.
    Attach {
        /// Where.
        container: ContainerId,
        /// Which process.
        process: ProcessId,
        /// From where in its output.
        from: LogStart,
        /// The process waits for this reader.
        lossless: bool,
        /// The client's place.
        #[serde(default)]
        place: Option<Place>,
        /// The attachment that the place ends with.
        #[serde(default)]
        owner: Option<AttachmentId>,
        /// Goes on until the process ends (else: what was written until now).
        follow: bool,
        /// Input is forwarded to the process.
        input: bool,
        /// The stream.
        stream: StreamId,
        /// Credit granted to the node.
        window: u64,
    },
    /// → `Done`: the attachment ended, so no process of the container waits for its readers any more.
    ReleaseReaders {
        /// Where.
        container: ContainerId,
        /// Whose places.
        attachment: AttachmentId,
    },
    /// → `Done`: no account of the location possesses these layers any more. The node removes each as soon as no
    /// container uses it; what it does not have is fine. At most [`MAX_REMOVED_LAYERS`].
    RemoveLayers(Vec<Digest>),
    /// → `Done`.
    Resize {
        /// Where.
        container: ContainerId,
        /// Which process.
        process: ProcessId,
        /// The size.
        size: TermSize,
    },
    /// → `Opened`.
    Tunnel {
        /// Where.
        container: ContainerId,
        /// The port.
        port: u16,
        /// The stream.
        stream: StreamId,
        /// Credit granted to the node.
        window: u64,
    },
    /// → `Done`. `from_ip` may connect to the container.
    Allow {
        /// Who is connected to.
        to: ContainerId,
        /// Who connects.
        from: ContainerId,
        /// Its address.
        from_ip: Ipv4Addr,
    },
    /// → `Done`.
    Disallow {
        /// Who is connected to.
        to: ContainerId,
        /// Who connected.
        from: ContainerId,
        /// Its address.
        from_ip: Ipv4Addr,
    },
    /// What is asked of a volume.
    Volume(Box<VolumeOrder>),
    /// → `Detail`.
    Detail(ContainerId),
    /// → `Findings`: how the node fares.
    Doctor,
}

/// Answers to orders.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum NodeReplyBody {
    /// It is done.
    Done,
    /// The container is there.
    Spawned {
        /// Its address.
        ip: Ipv4Addr,
        /// Running or asleep (or exited already).
        state: ContainerState,
        /// Program and arguments as executed.
        command: Vec<String>,
    },
    /// The container as it is now.
    State(ContainerState),
    /// The stream is open.
    Opened {
        /// Credit granted to the client.
        window: u64,
        /// How many bytes of the client's input the node has.
        #[serde(default)]
        input: Option<u64>,
    },
    /// More about a container.
    Detail {
        /// Its further processes that run.
        processes: Vec<ProcessInfo>,
        /// Names of the variables of its environment.
        env_names: Vec<String>,
        /// Ports that the image declares.
        exposed_ports: Vec<String>,
        /// Paths of its pre-boot files.
        files: Vec<String>,
        /// How it ended, if it did.
        termination: Option<Termination>,
    },
    /// The volume as it is now (made, cloned, changed).
    Volume(Box<NodeVolume>),
    /// A volume's snapshots, oldest first.
    Snapshots(Vec<SnapshotInfo>),
    /// What a volume takes.
    VolumeUsage(VolumeUsage),
    /// How the node fares.
    Findings(Vec<Finding>),
}

/// What the master orders of a volume. All but the streams may be repeated under another id, after a
/// restart of either side: what is done already is answered as done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum VolumeOrder {
    /// → `Volume`, when it is durable.
    Create(VolumeRecord),
    /// → `Done`, when nothing of it is left; also if there is no such volume.
    Destroy(VolumeId),
    /// → `Snapshots`.
    Snapshots(VolumeId),
    /// → `Done`, when it is durable.
    Snapshot {
        /// Of what.
        volume: VolumeId,
        /// Its name.
        name: Tag,
    },
    /// → `Done`.
    DestroySnapshot {
        /// Of what.
        volume: VolumeId,
        /// Its name.
        name: Tag,
    },
    /// → `Done`, when it is durable and every container sees it.
    RollBack(RollBack),
    /// → `Volume`, when it is durable. The record's origin says of what.
    Clone(VolumeRecord),
    /// → `VolumeUsage`.
    Usage(VolumeId),
    /// → `Volume`.
    SetQuota {
        /// Of what.
        volume: VolumeId,
        /// The most bytes that its tree may refer to.
        quota_bytes: Option<u64>,
    },
    /// → `Volume`.
    SetSchedule {
        /// Of what.
        volume: VolumeId,
        /// When to make snapshots.
        schedule: Option<SnapshotSchedule>,
    },
    /// → `Opened`.
    Export {
        /// Of what.
        volume: VolumeId,
        /// Which snapshot.
        snapshot: Tag,
        /// Only what changed since this one.
        base: Option<Tag>,
        /// Authenticates the stream.
        key: TransferKey,
        /// The stream.
        stream: StreamId,
        /// Credit granted to the node.
        window: u64,
    },
    /// → `Opened`; then, once all came and is durable, a `Volume` event and the stream's `Done`.
    Import {
        /// What to make; with a known id: what to import into.
        record: VolumeRecord,
        /// Whether it is there already.
        into: bool,
        /// Authenticates the stream.
        key: TransferKey,
        /// The stream.
        stream: StreamId,
    },
}

impl VolumeOrder {
    /// The volume that this is about.
    #[must_use]
    pub const fn volume(&self) -> VolumeId {
        match self {
            Self::Create(record) | Self::Clone(record) | Self::Import { record, .. } => record.id,
            Self::Destroy(volume)
            | Self::Snapshots(volume)
            | Self::Usage(volume)
            | Self::Snapshot { volume, .. }
            | Self::DestroySnapshot { volume, .. }
            | Self::SetQuota { volume, .. }
            | Self::SetSchedule { volume, .. }
            | Self::Export { volume, .. } => *volume,
            Self::RollBack(order) => order.volume,
        }
    }
}

/// A volume as a node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeVolume {
    /// What lies with its data.
    pub record: VolumeRecord,
    /// How it fares (never `NodeLost`, nor `Missing` in a report: that is for the master to say).
    pub state: VolumeState,
}

/// A container to spawn, as the master orders it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeSpawn {
    /// The container.
    pub container: ContainerId,
    /// Whose.
    pub session: SessionId,
    /// The attachment that asked.
    pub attachment: AttachmentId,
    /// Whose: decides the range of user ids.
    pub account: PublicKey,
    /// When it was asked for: milliseconds since 1970.
    pub created_ms: u64,
    /// What the client asked for.
    pub spec: SpawnSpec,
    /// The image.
    pub image: ImageManifest,
}

/// Everything that a node runs, told when it connects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// `linux/amd64` and the like.
    pub platform: String,
    /// The agent's version.
    pub version: String,
    /// What it has.
    pub capacity: NodeCapacity,
    /// What of it is in use.
    pub usage: NodeUsage,
    /// Its containers.
    pub containers: Vec<NodeContainer>,
    /// Layers that are extracted there.
    pub layers: Vec<Digest>,
    /// Its volumes. `None`: the pool cannot be read now, so nothing can be said of them.
    #[serde(default)]
    pub volumes: Option<Vec<NodeVolume>>,
}

/// A container as a node knows it: all that a restarted master needs to adopt it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeContainer {
    /// The container.
    pub container: ContainerId,
    /// Whose.
    pub session: SessionId,
    /// The attachment that spawned it.
    pub attachment: AttachmentId,
    /// Whose.
    pub account: PublicKey,
    /// Until when.
    pub lifetime: Lifetime,
    /// Its name.
    pub tag: Option<Tag>,
    /// What the program attached.
    pub labels: BTreeMap<String, String>,
    /// The image's id.
    pub image: Digest,
    /// The image as the user named it.
    pub image_name: String,
    /// Program and arguments as executed.
    pub command: Vec<String>,
    /// When it was asked for: milliseconds since 1970.
    pub created_ms: u64,
    /// Its address.
    pub ip: Option<Ipv4Addr>,
    /// How it fares.
    pub state: ContainerState,
    /// Whether its first process has a terminal.
    pub tty: bool,
    /// Its bounds.
    pub limits: ResourceLimits,
    /// Containers that may connect to it, with their addresses.
    pub allowed_from: Vec<(ContainerId, Ipv4Addr)>,
    /// Its volumes.
    #[serde(default)]
    pub volumes: Vec<VolumeMount>,
    /// Further processes that run, and the attachment that each is bound to.
    pub processes: Vec<(ProcessInfo, Option<AttachmentId>)>,
    /// Attachments that have places at its processes.
    #[serde(default)]
    pub readers: Vec<AttachmentId>,
}

/// What a node tells unasked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum NodeEvent {
    /// Its measurements, once a second if they changed by more than noise.
    Usage(NodeUsage),
    /// A container changed.
    Container {
        /// Which.
        container: ContainerId,
        /// How it fares.
        state: ContainerState,
    },
    /// A further process ended.
    Process(ProcessInfo),
    /// A volume is new or changed (an import, a fault, a cure).
    Volume(Box<NodeVolume>),
    /// A layer was extracted.
    LayerReady(Digest),
    /// For the location's people.
    Warning(String),
}
