//! How containers and processes fare.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::{ResourceLimits, VolumeMount};
use crate::ids::{ContainerId, Digest, NodeId, ProcessId, Tag};

/// A container as its session sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerInfo {
    /// The container.
    pub id: ContainerId,
    /// Its name, if it has one.
    pub tag: Option<Tag>,
    /// Where it runs.
    pub node: NodeId,
    /// Its address, from `Preparing`'s end on.
    pub ip: Option<Ipv4Addr>,
    /// The image's id.
    pub image: Digest,
    /// The image as the user named it.
    pub image_name: String,
    /// Program and arguments as executed.
    pub command: Vec<String>,
    /// What the program attached.
    pub labels: BTreeMap<String, String>,
    /// When the spawn was asked for: milliseconds since 1970.
    pub created_ms: u64,
    /// How it fares.
    pub state: ContainerState,
    /// Whether its first process has a terminal.
    pub tty: bool,
    /// Its bounds.
    pub limits: ResourceLimits,
    /// Containers that may connect to it.
    pub allowed_from: Vec<ContainerId>,
    /// Its volumes.
    #[serde(default)]
    pub volumes: Vec<VolumeMount>,
}

/// Requested → Preparing → Running → Exited; Asleep lies between Preparing and Running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Accepted by the master, not yet by the node.
    Requested,
    /// Layers are fetched, the root is made.
    Preparing,
    /// Ready, waiting to be woken.
    Asleep,
    /// Its first process is executing.
    Running {
        /// Milliseconds since 1970.
        since_ms: u64,
    },
    /// Its first process ended; logs stay readable until it is destroyed.
    Exited {
        /// How it ended.
        termination: Termination,
        /// Milliseconds since 1970.
        at_ms: u64,
    },
    /// Nothing of it is left. Never sent: handles of a program show it once they know.
    Destroyed,
}

/// How and why something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Termination {
    /// What the kernel said.
    pub status: ExitStatus,
    /// Why.
    pub cause: Cause,
}

/// What the kernel said of a process that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(u8),
    /// This signal ended it.
    Signal(u8),
}

impl ExitStatus {
    /// As a shell would have it: the code, or 128 + the signal.
    #[must_use]
    pub const fn shell_code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128u8.saturating_add(signal),
        }
    }

    /// The exit code of a process that exited by itself; `None` if a signal ended it.
    #[must_use]
    pub const fn code(self) -> Option<u8> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal(_) => None,
        }
    }

    /// The signal that ended the process, if one did.
    #[must_use]
    pub const fn signal(self) -> Option<u8> {
        match self {
            Self::Code(_) => None,
            Self::Signal(signal) => Some(signal),
        }
    }

    /// Exited with code 0.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Code(0))
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Why something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// By itself.
    Exited,
    /// Somebody asked (`Stop`, `Signal`).
    Stopped,
    /// Out of its memory limit.
    OutOfMemory,
    /// Its `timeout_ms` was over.
    TimedOut,
    /// Its session or attachment ended.
    SessionEnded,
    /// The node restarted, or lost the container's supervisor.
    NodeLost,
}

/// A further process in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// The process.
    pub id: ProcessId,
    /// Where.
    pub container: ContainerId,
    /// Program and arguments.
    pub command: Vec<String>,
    /// How it fares.
    pub state: ProcessState,
}

/// How a process fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessState {
    /// It runs.
    Running,
    /// It ended.
    Exited(Termination),
}
