//! All that a node's machine can be told: a closed list.
//!
//! Owner: the agent's event loop makes them. Invariant: each [`crate::Effect`] that says it is
//! answered is answered by exactly one input, also when it failed. Next: [`crate::node`].

use std::{net::Ipv4Addr, time::Duration};

use bytes::Bytes;
use teu_protocol::{
    ids::{ContainerId, ProcessId, RequestId},
    message::{ExitStatus, NodeReplyBody, NodeRequest, Refusal},
};

use crate::volume::{ListedVolume, Ticket, VolumeDone};

/// The time, twice: one that never jumps for deadlines, one that people can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Since any fixed moment.
    pub steady: Duration,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
}

/// How a process ended, as its keeper saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessEnd {
    /// What the kernel said.
    pub status: ExitStatus,
    /// The kernel killed in its group for want of memory.
    pub out_of_memory: bool,
    /// Its timeout was over, and it was killed for that.
    pub timed_out: bool,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The master orders something; `bulk` holds the pre-boot files' contents.
    Order {
        /// The order.
        request: Box<NodeRequest>,
        /// The message's bulk parts.
        bulk: Vec<Bytes>,
    },
    /// Answers `Effect::Prepare`: the container executes (or sleeps), or nothing of it is left.
    Prepared {
        /// Which.
        container: ContainerId,
        /// Its address.
        result: Result<Ipv4Addr, Refusal>,
    },
    /// Answers `Effect::Wake`: its first process executes, or will never.
    Woken {
        /// Which.
        container: ContainerId,
        /// Whether.
        result: Result<(), Refusal>,
    },
    /// A container's first process ended.
    Exited {
        /// Whose.
        container: ContainerId,
        /// How.
        end: ProcessEnd,
    },
    /// A container's keeper is gone without having told an end.
    KeeperLost {
        /// Whose.
        container: ContainerId,
    },
    /// Answers `Effect::Release`: the sandbox is gone, the files are there.
    Released {
        /// Which.
        container: ContainerId,
    },
    /// Answers `Effect::Remove`: nothing is left, or what could not be removed.
    Removed {
        /// Which.
        container: ContainerId,
        /// Whether.
        result: Result<(), Refusal>,
    },
    /// Answers `Effect::Exec`.
    ExecStarted {
        /// Where.
        container: ContainerId,
        /// Which.
        process: ProcessId,
        /// Whether it executes.
        result: Result<(), Refusal>,
    },
    /// A further process ended.
    ProcessEnded {
        /// Where.
        container: ContainerId,
        /// Which.
        process: ProcessId,
        /// How.
        end: ProcessEnd,
    },
    /// Answers the effects that only carry an order on (`Signal`, `Attach`, …).
    Answered {
        /// The order.
        request: RequestId,
        /// What came of it.
        result: Result<NodeReplyBody, Refusal>,
    },
    /// Answers `Effect::Allow` and `Effect::Disallow`.
    Allowance {
        /// The order.
        request: RequestId,
        /// Who is connected to.
        to: ContainerId,
        /// Who connects.
        from: ContainerId,
        /// Its address.
        from_ip: Ipv4Addr,
        /// May it?
        allowed: bool,
        /// Whether the rule is in force.
        result: Result<(), Refusal>,
    },
    /// Ends `Effect::Volume`.
    VolumeDone {
        /// Which.
        ticket: Ticket,
        /// What came of it.
        result: Result<VolumeDone, Refusal>,
    },
    /// The pool was read. `None`: it cannot be. Told at the start, and whenever it was looked at.
    Volumes(Option<Vec<ListedVolume>>),
    /// The link to the master is up: READY came.
    LinkUp,
    /// The link is lost: what was streaming is over.
    LinkDown,
    /// [`crate::NodeCore::next_deadline`] has come.
    Tick,
}
