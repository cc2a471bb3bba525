//! What agent and keeper say to each other over the keeper's unix socket.
//!
//! Pure: values and framing. A frame is a length (u32, little endian) and MessagePack with named
//! fields. Invariant: every request has one reply with its number; events have none.
//! The socket lies in a directory that only root may enter: there is no other authentication.

use std::io;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use teu_protocol::{
    ids::{AttachmentId, ContainerId, ProcessId, ReaderId},
    image_config::signal::Signal,
};

use super::{
    log::LogRecord,
    plan::{ExecPlan, StartPlan},
};
use crate::sys::names::SlotName;

/// Largest frame: 8 MiB of pre-boot files and a plan around them.
pub const FRAME_MAX: usize = 10 << 20;
/// How much stdin a keeper holds for a process that does not read: the sender's first credit.
pub const STDIN_WINDOW: u64 = 256 << 10;
/// A place may lag this far before the process has to wait (less in a small log).
pub const FOLLOWER_LAG_MAX: u64 = 4 << 20;
/// What this keeper understands, told in its Hello. 0: no `Place`, `Input`, `Unwritten`. A keeper
/// outlives its agent, so an agent asks an older one only for what that knows.
pub(super) const VERSION: u32 = 1;

/// From the agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) number: u64,
    pub(crate) body: RequestBody,
}

/// What an agent can ask for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum RequestBody {
    Start(Box<StartPlan>),
    Exec(Box<ExecPlan>),
    Signal {
        process: ProcessId,
        signal: Signal,
        scope: SignalScope,
    },
    Resize {
        process: ProcessId,
        rows: u16,
        columns: u16,
    },
    Stdin {
        process: ProcessId,
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
        eof: bool,
    },
    /// Of agents that know no places: as `Place` and `Release` of a place that ends with the agent.
    Ack {
        process: ProcessId,
        follower: u64,
        cursor: Option<u64>,
    },
    /// A client takes over its place, or stands further on.
    Place {
        process: ProcessId,
        reader: ReaderId,
        generation: u64,
        /// Whose it is; `None`: it ends with the agent.
        owner: Option<AttachmentId>,
        /// Everything before this was received. Beyond the end: the end. `None`: the client gives input only,
        /// and the process does not wait for it.
        cursor: Option<u64>,
    },
    /// The client needs no place any more.
    Release {
        process: ProcessId,
        reader: ReaderId,
        generation: u64,
    },
    /// No process waits for this attachment's places any more.
    ReleaseOwned {
        owner: AttachmentId,
    },
    /// Input of a place: `bytes` follow `offset` bytes that came before.
    Input {
        process: ProcessId,
        reader: ReaderId,
        generation: u64,
        offset: u64,
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
        eof: bool,
    },
    /// Output from `cursor` on that could not be written to the log yet.
    Unwritten {
        process: ProcessId,
        cursor: u64,
    },
    Forget {
        process: ProcessId,
    },
    WriteHosts {
        hosts: Vec<super::plan::HostEntry>,
    },
    Destroy,
    /// Answered with `Done`: the keeper lives.
    Ping,
}

/// Whom a signal reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SignalScope {
    /// The process itself.
    Leader,
    /// The process and all that it forked. SIGKILL only: other signals go to the leader.
    Group,
}

/// From the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    Hello(KeeperHello),
    Reply { number: u64, outcome: Outcome },
    Event(KeeperEvent),
}

/// The first message on every connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeeperHello {
    pub slot: SlotName,
    /// The keeper's own pid; its network namespace is the slot's.
    pub keeper_pid: i32,
    /// Absent while the slot is warm.
    pub container: Option<ContainerId>,
    pub processes: Vec<ProcessState>,
    /// Set if the slot could not be prepared; such a keeper only waits to be destroyed.
    pub broken: Option<String>,
    /// See [`VERSION`].
    #[serde(default)]
    pub version: u32,
}

/// One process as its keeper knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessState {
    pub id: ProcessId,
    /// As the host sees it.
    pub pid: i32,
    /// The log's end cursor.
    pub log_end: u64,
    pub stdin_consumed: u64,
    pub exit: Option<ProcessExit>,
    /// Attachments that have places here.
    #[serde(default)]
    pub readers: Vec<AttachmentId>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessExit {
    pub status: ExitStatus,
    /// The kernel killed it, or something in its container, for want of memory.
    pub oom: bool,
    /// The keeper killed it, for its timeout was over.
    #[serde(default)]
    pub timed_out: bool,
}

/// As wait(2) tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
}

impl ExitStatus {
    /// Of a process that ended; `None` if it was only stopped.
    #[must_use]
    pub fn of(status: rustix::process::WaitStatus) -> Option<Self> {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Some(Self::Code(code)),
            (None, Some(signal)) => Some(Self::Signal(signal)),
            (None, None) => None,
        }
    }

    /// What a shell shows: 128 + signal.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// What happened to a request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Done,
    Started(Started),
    Refused(Refusal),
    /// Answers `Place` and `Input`: how many bytes of its input the keeper has.
    Placed {
        input: u64,
    },
    /// Answers `Unwritten`.
    Output(Vec<LogRecord>),
}

/// The first process is executing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Started {
    /// As the host sees it.
    pub pid: i32,
    /// How long each step took, in microseconds, in order.
    pub steps_us: Vec<(String, u32)>,
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// Shells and Docker answer 127.
    #[error("`{program}` was not found in the container")]
    CommandNotFound { program: String },
    /// Shells and Docker answer 126.
    #[error("`{program}` cannot be executed: {reason}")]
    NotExecutable { program: String, reason: String },
    #[error("{0}")]
    UnknownUser(String),
    #[error("cannot {step}: {reason}")]
    Failed { step: StartStep, reason: String },
    #[error("the slot is not warm: it has started a container already, or is ending")]
    NotWarm,
    #[error("the container has exited")]
    NotRunning,
    #[error("the container is at its --pids limit ({limit})")]
    PidsLimit { limit: u64 },
    #[error("no such process")]
    NoSuchProcess,
    #[error("a process with this id exists")]
    ProcessExists,
    #[error("the container has as many further processes as a keeper watches")]
    TooManyProcesses,
    #[error("more stdin than the process's credit")]
    StdinOverrun,
    #[error("the process has no terminal")]
    NoTerminal,
    #[error("a newer stream of the same client has taken the place over")]
    Superseded,
    #[error("input is missing: byte {offset} came, byte {expected} is next")]
    InputMissing { expected: u64, offset: u64 },
    #[error("the process has as many readers as a keeper watches")]
    TooManyReaders,
}

impl Refusal {
    /// The exit code that a command line shows for a program which could not be run.
    #[must_use]
    pub const fn exit_code(&self) -> Option<i32> {
        match self {
            Self::CommandNotFound { .. } => Some(127),
            Self::NotExecutable { .. } => Some(126),
            _ => None,
        }
    }
}

/// Where a start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartStep {
    PrepareSlot,
    ReadPlan,
    MakeUserNamespace,
    SetLimits,
    MountRoot,
    WriteFiles,
    ResolveUser,
    MountVolumes,
    MakeWorkingDirectory,
    BecomeUser,
    OpenLog,
    CreateContainer,
    JoinContainer,
    MakeTerminal,
    Execute,
    Signal,
    Destroy,
}

impl std::fmt::Display for StartStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::PrepareSlot => "prepare the slot",
            Self::ReadPlan => "read the plan",
            Self::MakeUserNamespace => "make the user namespace",
            Self::SetLimits => "set the limits",
            Self::MountRoot => "mount the root filesystem",
            Self::WriteFiles => "write the container's files",
            Self::ResolveUser => "find the user",
            Self::MountVolumes => "mount the volumes",
            Self::MakeWorkingDirectory => "make the working directory",
            Self::BecomeUser => "become the user",
            Self::OpenLog => "open the log",
            Self::CreateContainer => "create the container",
            Self::JoinContainer => "join the container",
            Self::MakeTerminal => "make the terminal",
            Self::Execute => "execute the program",
            Self::Signal => "send the signal",
            Self::Destroy => "destroy the container",
        })
    }
}

/// What a keeper tells unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeeperEvent {
    /// There is output up to `end`.
    LogGrown { process: ProcessId, end: u64 },
    /// In total since the process began; the sender may be [`STDIN_WINDOW`] ahead of it.
    StdinConsumed { process: ProcessId, total: u64 },
    /// The process no longer reads: the rest of its stdin is thrown away.
    StdinClosed { process: ProcessId },
    /// All its output is in the log, which ends (unless it left children that write) at `log_end`.
    Exited {
        process: ProcessId,
        exit: ProcessExit,
        log_end: u64,
    },
}

/// Turns a value into a frame.
///
/// # Errors
/// `InvalidData` for a value that is too large.
pub(crate) fn frame(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut out = vec![0; 4];
    rmp_serde::encode::write_named(&mut out, value)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let len = out.len() - 4;
    if len > FRAME_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "frame is too large",
        ));
    }
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&len.to_le_bytes());
    Ok(out)
}

/// Takes one complete frame off the front of `buffer`; `None` if it is not complete yet.
///
/// # Errors
/// `InvalidData` for a frame that is too large or does not decode.
pub(crate) fn take_frame<T: DeserializeOwned>(buffer: &mut Vec<u8>) -> io::Result<Option<T>> {
    let Some(head) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let len = u32::from_le_bytes(*head) as usize;
    if len > FRAME_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "frame is too large",
        ));
    }
    let Some(body) = buffer.get(4..4 + len) else {
        return Ok(None);
    };
    let value = teu_protocol::message::decode_record(body)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    buffer.drain(..4 + len);
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_split() {
        let request = Request {
            number: 7,
            body: RequestBody::Stdin {
                process: ProcessId::from_bytes([3; 16]),
                bytes: vec![1, 2, 3],
                eof: true,
            },
        };
        let whole = frame(&request).unwrap();
        for cut in 0..whole.len() {
            let mut buffer = whole[..cut].to_vec();
            assert!(
                take_frame::<Request>(&mut buffer).unwrap().is_none(),
                "cut at {cut}"
            );
            buffer.extend(&whole[cut..]);
            let back: Request = take_frame(&mut buffer).unwrap().unwrap();
            assert_eq!(back.number, 7);
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn oversized_and_broken_frames_are_errors() {
        let mut huge = u32::MAX.to_le_bytes().to_vec();
        assert!(take_frame::<Request>(&mut huge).is_err());
        let mut nonsense = vec![1, 0, 0, 0, 0xc1];
        assert!(take_frame::<Request>(&mut nonsense).is_err());
    }
}
