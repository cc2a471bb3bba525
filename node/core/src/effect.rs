//! All that a node's machine can want done: a closed list.
//!
//! Owner: [`crate::node`] makes them, the agent performs them. Invariant: an effect names only
//! containers that the machine knows, and at most one of `Prepare`, `Wake`, `Release` and `Remove`
//! is under way for a container. Next: the agent's `agent/perform`.

use std::net::Ipv4Addr;

use teu_protocol::{
    ids::{AttachmentId, ContainerId, ProcessId, RequestId, StreamId},
    image_config::signal::Signal,
    message::{LogStart, NodeEvent, NodeReplyBody, Place, Refusal, TermSize, Termination},
};

use crate::{
    plan::{ExecPlan, SpawnPlan},
    record::ContainerRecord,
    volume::VolumeWork,
};

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Answer an order.
    Reply {
        /// Which.
        id: RequestId,
        /// With what.
        result: Result<NodeReplyBody, Refusal>,
    },
    /// Tell the master, if the link is up (else the next report has it).
    Tell(NodeEvent),
    /// Tell the master everything: [`crate::NodeCore::containers`] and the machine's measurements.
    Report,
    /// Fetch what is missing, take a slot, write the record, start. Answered by `Prepared`.
    Prepare(Box<SpawnPlan>),
    /// Nobody wants the container that is being prepared: `Prepared` should come soon.
    Cancel(ContainerId),
    /// Start a container that sleeps. Answered by `Woken`.
    Wake(ContainerId),
    /// Give back the sandbox, network and address of a container that ended; keep its files.
    /// First cut what `revoke` lists. Answered by `Released`.
    Release {
        /// Which.
        container: ContainerId,
        /// Containers here to which it could connect.
        revoke: Vec<ContainerId>,
        /// Its address.
        ip: Option<Ipv4Addr>,
    },
    /// Kill it and remove everything of it. Answered by `Removed`.
    Remove {
        /// Which.
        container: ContainerId,
        /// Containers here to which it could connect.
        revoke: Vec<ContainerId>,
        /// Its address.
        ip: Option<Ipv4Addr>,
    },
    /// Send a signal. Answered by `Answered` if there is a request.
    Signal {
        /// Whom to answer.
        request: Option<RequestId>,
        /// Where.
        container: ContainerId,
        /// Which process.
        process: ProcessId,
        /// The signal.
        signal: Signal,
    },
    /// Start a further process. Answered by `ExecStarted`.
    Exec(Box<ExecPlan>),
    /// A process ended: readers of its output may end with this once they have all of it.
    Ended {
        /// Where.
        container: ContainerId,
        /// Which.
        process: ProcessId,
        /// How and why.
        termination: Termination,
    },
    /// Its log may go: too many have ended.
    ForgetProcess {
        /// Where.
        container: ContainerId,
        /// Which.
        process: ProcessId,
    },
    /// Set a terminal's size. Answered by `Answered`.
    Resize {
        /// Whom to answer.
        request: RequestId,
        /// Where.
        container: ContainerId,
        /// Which process.
        process: ProcessId,
        /// The size.
        size: TermSize,
    },
    /// Open a stream of a process's output and input. Answered by `Answered`.
    Attach(Attach),
    /// No account possesses these layers any more: each goes when no container uses it.
    RemoveLayers(Vec<teu_protocol::ids::Digest>),
    /// An attachment ended: no process of the container waits for its places.
    ReleaseReaders {
        /// Where.
        container: ContainerId,
        /// Whose.
        attachment: AttachmentId,
    },
    /// Open a connection into a container. Answered by `Answered`.
    Tunnel {
        /// Whom to answer.
        request: RequestId,
        /// Where.
        container: ContainerId,
        /// Its address.
        ip: Ipv4Addr,
        /// Which port.
        port: u16,
        /// On which stream.
        stream: StreamId,
        /// Credit granted by the reader.
        window: u64,
    },
    /// Let a container connect to another. Answered by `Allowance`.
    Allow {
        /// Whom to answer.
        request: RequestId,
        /// Who is connected to.
        to: ContainerId,
        /// Who connects.
        from: ContainerId,
        /// Its address.
        from_ip: Ipv4Addr,
    },
    /// No longer. Answered by `Allowance`.
    Disallow {
        /// Whom to answer.
        request: RequestId,
        /// Who is connected to.
        to: ContainerId,
        /// Who connected.
        from: ContainerId,
        /// Its address.
        from_ip: Ipv4Addr,
    },
    /// A container's record changed: keep it.
    Persist(Box<ContainerRecord>),
    /// Do something with a volume. Ended by `VolumeDone`; if it is a stream's order, `Answered`
    /// comes before that.
    Volume(Box<VolumeWork>),
    /// Look at the machine. Answered by `Answered`.
    Examine {
        /// Whom to answer.
        request: RequestId,
    },
}

/// A reader of a process's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    /// Whom to answer.
    pub request: RequestId,
    /// Where.
    pub container: ContainerId,
    /// Which process.
    pub process: ProcessId,
    /// From where.
    pub from: LogStart,
    /// The process waits for this reader.
    pub lossless: bool,
    /// The client's place (the process waits for it).
    pub place: Option<Place>,
    /// The attachment that the place ends with.
    pub owner: Option<AttachmentId>,
    /// Until the process ends.
    pub follow: bool,
    /// Forward input.
    pub input: bool,
    /// On which stream.
    pub stream: StreamId,
    /// Credit granted by the reader.
    pub window: u64,
}
