//! What a client can ask, and the answers. One variant each, in pairs.

use serde::{Deserialize, Serialize};

use super::{
    ContainerInfo, ImageInfo, ImageManifest, Place, ProcessInfo, ProcessSpec, Refusal, RollBack,
    SnapshotInfo, SnapshotSchedule, SpawnSpec, TermSize, Termination, VolumeInfo, VolumeSpec,
    VolumeUsage,
};
use crate::ids::{
    ContainerId, Digest, NodeId, ProcessId, PublicKey, RequestId, SessionId, StreamId, Tag,
    VolumeId,
};
use crate::image_config::signal::Signal;

/// Asks for something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client (UUIDv7). The same id again has the effect once.
    pub id: RequestId,
    /// What.
    pub body: RequestBody,
}

/// Answers a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's id.
    pub id: RequestId,
    /// What came of it.
    pub result: Result<ReplyBody, Refusal>,
}

/// What can be asked. Whoever names a container that is not its session's gets `NotFound`.
///
/// Those that have `stream` open it; `window` is the credit in bytes that the client grants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RequestBody {
    /// → `Spawned`, when the first process is executing (or the container is asleep).
    Spawn(Box<SpawnSpec>),
    /// → `Container`: starts a container that was spawned asleep, when it is executing.
    Wake(ContainerId),
    /// → `Container`, when it has exited. Sends the image's stop signal (default SIGTERM), then
    /// SIGKILL after the grace.
    Stop {
        /// Which.
        container: ContainerId,
        /// Instead of the image's stop signal.
        signal: Option<Signal>,
        /// Milliseconds until SIGKILL.
        grace_ms: u32,
    },
    /// → `Done`. Sends a signal to a process (`None`: the first one).
    Signal {
        /// Which.
        container: ContainerId,
        /// Which process.
        process: Option<ProcessId>,
        /// The signal.
        signal: Signal,
    },
    /// → `Done`, when nothing of it is left.
    Destroy(ContainerId),
    /// → `Detail`. Finds by id, unique id prefix (4 digits or more), tag or `id:tag`.
    Find(String),
    /// → `Containers`: the session's.
    List,
    /// → `Started`: runs a further process. Its output is read with `Attach`.
    Exec {
        /// Where.
        container: ContainerId,
        /// What.
        process: ProcessSpec,
        /// Ends with the attachment that started it.
        bound: bool,
    },
    /// → `Opened`: a process's output from a cursor on, live until it ends, and its input.
    /// Ends with `Exited`.
    Attach {
        /// Where.
        container: ContainerId,
        /// Which process (`None`: the first one).
        process: Option<ProcessId>,
        /// From where in its output.
        from: LogStart,
        /// The process waits for this reader when it is far behind, so nothing is lost.
        lossless: bool,
        /// The client's place, which this stream takes over from the one that had it before. The
        /// process waits for it until the client closes the stream, or its attachment ends.
        #[serde(default)]
        place: Option<Place>,
        /// The stream.
        stream: StreamId,
        /// Credit granted.
        window: u64,
    },
    /// → `Opened`: output that was written, then (`follow`) what is being written.
    /// Ends with `Done` when all was sent, or `Exited` if following.
    Logs {
        /// Where.
        container: ContainerId,
        /// From where.
        from: LogStart,
        /// Goes on until the process ends.
        follow: bool,
        /// The stream.
        stream: StreamId,
        /// Credit granted.
        window: u64,
    },
    /// → `Done`: the size of a process's terminal.
    Resize {
        /// Where.
        container: ContainerId,
        /// Which process (`None`: the first one).
        process: Option<ProcessId>,
        /// The size.
        size: TermSize,
    },
    /// → `Opened`: one TCP connection to a port in the container.
    Tunnel {
        /// Where.
        container: ContainerId,
        /// The port.
        port: u16,
        /// The stream.
        stream: StreamId,
        /// Credit granted.
        window: u64,
    },
    /// → `Done`: `from` may open connections to `to`.
    Allow {
        /// Who is connected to.
        to: ContainerId,
        /// Who connects.
        from: ContainerId,
    },
    /// → `Done`: no longer; open connections are cut.
    Disallow {
        /// Who is connected to.
        to: ContainerId,
        /// Who connected.
        from: ContainerId,
    },
    /// → `Image`: by name (`nginx` means `nginx:latest`), id or unique id prefix.
    FindImage(String),
    /// → `Images`: the account's.
    Images,
    /// → `Layers`: which of these the account still has to upload.
    MissingLayers(Vec<Digest>),
    /// → `Upload`: sends a layer's blob on `stream`, from the offset that the answer tells. The client
    /// closes with `Done`; the master verifies and closes with `Done` or `Failed`.
    UploadLayer {
        /// Its digest.
        digest: Digest,
        /// Its length in bytes.
        size: u64,
        /// The stream.
        stream: StreamId,
    },
    /// → `Image`: adds an image whose layers are there, under these names.
    AddImage {
        /// The image.
        manifest: ImageManifest,
        /// Names, `name:tag`.
        names: Vec<String>,
    },
    /// → `Done`: removes a name, or an image by id (layers that nothing uses go with it).
    RemoveImage(String),
    /// → `Volume`, when it is durable on its node.
    CreateVolume {
        /// Where; `None` lets the location choose.
        node: Option<NodeId>,
        /// What.
        spec: VolumeSpec,
        /// If the account has a volume of this tag already, that is the answer (as it is; else `TagTaken`).
        ensure: bool,
    },
    /// → `Volume`. Finds the account's by id, unique id prefix (4 digits or more), tag or `id:tag`.
    FindVolume(String),
    /// → `Volumes`: the account's.
    Volumes,
    /// → `Done`, when nothing of it is left. `Busy` while a container has it mounted.
    DestroyVolume(VolumeId),
    /// → `Snapshots`, oldest first.
    Snapshots(VolumeId),
    /// → `Done`, when it is durable. Files' contents are those that were written when it was asked for.
    Snapshot {
        /// Of what.
        volume: VolumeId,
        /// Its name; `TagTaken` if the volume has one of that name.
        name: Tag,
    },
    /// → `Done`.
    DestroySnapshot {
        /// Of what.
        volume: VolumeId,
        /// Its name.
        name: Tag,
    },
    /// → `Done`, when it is durable and every container sees the tree of the snapshot.
    RollBack(RollBack),
    /// → `Volume`: a new one on the same node that begins as the snapshot.
    CloneVolume {
        /// Of what.
        volume: VolumeId,
        /// Which snapshot.
        snapshot: Tag,
        /// The new volume.
        spec: VolumeSpec,
    },
    /// → `VolumeUsage`.
    VolumeUsage(VolumeId),
    /// → `Volume`: with another quota (`None`: without).
    SetQuota {
        /// Of what.
        volume: VolumeId,
        /// The most bytes that its tree may refer to.
        quota_bytes: Option<u64>,
    },
    /// → `Volume`: with another schedule (`None`: without; what it made stays).
    SetSchedule {
        /// Of what.
        volume: VolumeId,
        /// When to make snapshots.
        schedule: Option<SnapshotSchedule>,
    },
    /// → `Opened`: a snapshot as a stream of the pool's own format, in an envelope that nodes of
    /// this location verify. Ends with `Done`.
    ExportVolume {
        /// Of what.
        volume: VolumeId,
        /// Which snapshot.
        snapshot: Tag,
        /// Only what changed since this older snapshot.
        base: Option<Tag>,
        /// The stream.
        stream: StreamId,
        /// Credit granted.
        window: u64,
    },
    /// → `Importing`: the client sends what an export gave, then `Eof` (a `Close` would end the
    /// stream for both); the node closes with `Done` when it is durable, or `Failed` with nothing left of it. The volume then has the
    /// exported snapshot, and its tree.
    ImportVolume {
        /// Into what.
        target: ImportTarget,
        /// The stream.
        stream: StreamId,
    },
    /// → `Sessions`: the account's.
    Sessions,
    /// → `Done`: ends a session of the account and destroys what it owns.
    EndSession(SessionId),
    /// → `Doctor`: how the location fares.
    Doctor,
    /// → `Done`: lets a key connect (administrators).
    EnrolAccount(EnrolledAccount),
    /// → `Done`: stops a key from connecting and ends its sessions (administrators).
    RevokeAccount(PublicKey),
    /// → `Enrolled`: lets a node's key connect (administrators).
    EnrolNode {
        /// The node's key.
        key: PublicKey,
        /// Its name.
        name: String,
    },
}

/// Answers, one a kind of request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ReplyBody {
    /// It is done.
    Done,
    /// The container runs (or sleeps).
    Spawned(Box<ContainerInfo>),
    /// The container as it is now.
    Container(Box<ContainerInfo>),
    /// The container and more about it.
    Detail(Box<ContainerDetail>),
    /// The session's containers.
    Containers(Vec<ContainerInfo>),
    /// The process runs.
    Started(ProcessId),
    /// The stream is open.
    Opened {
        /// Credit granted to the client.
        window: u64,
        /// `Attach` with a place: how many bytes of the client's input the node has. Input goes on from
        /// there. `None`: the node cannot tell.
        #[serde(default)]
        input: Option<u64>,
    },
    /// The stream is open for the blob's bytes from here on.
    Upload {
        /// Bytes that are there already. Equal to the size: nothing to send, the stream is not opened.
        offset: u64,
        /// Credit granted to the client.
        window: u64,
    },
    /// The image.
    Image(ImageInfo),
    /// The account's images.
    Images(Vec<ImageInfo>),
    /// Layers to upload.
    Layers(Vec<Digest>),
    /// The volume as it is now.
    Volume(Box<VolumeInfo>),
    /// The account's volumes.
    Volumes(Vec<VolumeInfo>),
    /// A volume's snapshots, oldest first.
    Snapshots(Vec<SnapshotInfo>),
    /// What a volume takes.
    VolumeUsage(VolumeUsage),
    /// The stream is open for the export's bytes.
    Importing {
        /// What they become.
        volume: VolumeId,
        /// Credit granted to the client.
        window: u64,
    },
    /// The account's sessions.
    Sessions(Vec<SessionInfo>),
    /// How the location fares.
    Doctor(DoctorReport),
    /// The node's id.
    Enrolled(crate::ids::NodeId),
}

/// What an import becomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImportTarget {
    /// A new volume; the stream must be a full one.
    New {
        /// Where; `None` lets the location choose.
        node: Option<NodeId>,
        /// What.
        spec: VolumeSpec,
    },
    /// One that has the stream's base as its newest snapshot and is not mounted. Its tree becomes that of
    /// the imported snapshot: what was written since the base is lost.
    Into(VolumeId),
}

/// All about a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerDetail {
    /// What lists show.
    pub info: ContainerInfo,
    /// Its further processes that run.
    pub processes: Vec<ProcessInfo>,
    /// Names of the variables of its environment (values are never shown).
    pub env_names: Vec<String>,
    /// Ports that the image declares.
    pub exposed_ports: Vec<String>,
    /// Paths of its pre-boot files.
    pub files: Vec<String>,
    /// How it ended, if it did.
    pub termination: Option<Termination>,
}

/// Where to start in a process's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogStart {
    /// The oldest byte that is kept.
    Oldest,
    /// Only what comes from now on.
    Now,
    /// A cursor from a `Data` frame.
    Cursor(u64),
    /// This many lines before the end.
    Tail(u32),
}

/// A session of the account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// The session.
    pub id: SessionId,
    /// Its name, if persistent.
    pub name: Option<Tag>,
    /// Connected client processes.
    pub attachments: u32,
    /// Its containers.
    pub containers: u32,
    /// Milliseconds since 1970.
    pub created_ms: u64,
}

/// How the location fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorReport {
    /// The master's version.
    pub version: String,
    /// What was found, good and bad.
    pub findings: Vec<Finding>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// What was looked at.
    pub subject: String,
    /// What was seen.
    pub message: String,
    /// How to mend it.
    pub cure: Option<String>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Severity {
    /// As it should be.
    Good,
    /// Works, but somebody should look.
    Warning,
    /// Something does not work.
    Bad,
}

/// An account to enrol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolledAccount {
    /// Its key.
    pub key: PublicKey,
    /// For people.
    pub name: String,
    /// May enrol and revoke.
    pub admin: bool,
}
