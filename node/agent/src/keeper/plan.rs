//! What the agent asks a keeper to run: plain values, complete, decided elsewhere.
//!
//! Owner: the agent builds plans from the master's spawn requests; keepers only follow them.
//! Invariant: `Debug` never shows environment values or file contents.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};
use teu_node_core::stream::ACKNOWLEDGED_WITHIN;
use teu_protocol::{
    ids::{AttachmentId, ContainerId, ProcessId, ReaderId},
    image_config::user::{IdInContainer, Owner},
};

/// An account's range of user and group ids on this host: container id 0 is `base`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    pub base: u32,
    /// 65536 unless a test says otherwise.
    pub count: u32,
}

impl IdRange {
    /// As they are inside of the container.
    pub const INSIDE: Self = Self {
        base: 0,
        count: IdInContainer::COUNT,
    };

    /// The host's id for a container's one. A range that is too short (a test's) ends with its last.
    #[must_use]
    pub const fn host(self, id: IdInContainer) -> u32 {
        let (id, last) = (id.get(), self.count.saturating_sub(1));
        self.base + if id < last { id } else { last }
    }
}

/// Everything that a container's start needs.
#[derive(Clone, Serialize, Deserialize)]
pub struct StartPlan {
    pub container: ContainerId,
    /// The container's own directory: `logs/` and `exit.json` are kept there.
    pub dir: PathBuf,
    pub hostname: String,
    pub ids: IdRange,
    pub root: RootPlan,
    pub process: ProcessPlan,
    /// Written before anything runs.
    pub files: Vec<PreBootFile>,
    /// Extra lines of `/etc/hosts`: address and names. Localhost and the container's own hostname
    /// are always there, the latter at `address`.
    pub hosts: Vec<HostEntry>,
    /// The container's own address, for its line in `/etc/hosts`.
    pub address: Option<std::net::IpAddr>,
    /// Name servers for `/etc/resolv.conf`; empty leaves the image's file alone.
    pub name_servers: Vec<std::net::IpAddr>,
    pub mounts: Vec<VolumeMountPlan>,
    pub limits: Limits,
    pub log: LogLimits,
    /// Size of `/dev/shm`.
    pub shm_bytes: u64,
}

impl fmt::Debug for StartPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartPlan")
            .field("container", &self.container)
            .field("layers", &self.root.layers.len())
            .field("files", &self.files.len())
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

/// The root filesystem: overlay over extracted layers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RootPlan {
    /// Extracted layer directories, lowest first; owners as in the archive (0..). May be empty.
    pub layers: Vec<PathBuf>,
    /// The writable layer, owned by the account's mapped root; on the same file system as `work`.
    pub upper: PathBuf,
    /// overlayfs's scratch directory, empty.
    pub work: PathBuf,
    pub read_only: bool,
}

/// One program to run.
#[derive(Clone, Serialize, Deserialize)]
pub struct ProcessPlan {
    /// Program and arguments; a program without `/` is looked for in `PATH`.
    pub args: Vec<String>,
    /// `PATH`, `HOME`, `HOSTNAME` and (with a terminal) `TERM` are added if they are missing.
    pub env: Vec<(String, String)>,
    /// Made if it is missing. Empty means `/`.
    pub cwd: PathBuf,
    /// `name`, `uid`, `name:group`, `uid:gid`; empty means root.
    pub user: String,
    /// With a terminal of this size, or with pipes.
    pub tty: Option<TerminalSize>,
    /// Whether stdin is a pipe that [`input`](super::KeeperLink::input) feeds, or `/dev/null`.
    pub open_stdin: bool,
    /// The place of the client that starts it, at its first byte of output.
    #[serde(default)]
    pub reader: Option<(ReaderId, AttachmentId)>,
    /// From its start until it is killed, with all that it started.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// For a first process: an init of ours is the first one, in front of the program.
    #[serde(default)]
    pub init: bool,
}

impl fmt::Debug for ProcessPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessPlan")
            .field("program", &self.args.first())
            .field("cwd", &self.cwd)
            .field("user", &self.user)
            .field("tty", &self.tty)
            .field("open_stdin", &self.open_stdin)
            .finish_non_exhaustive()
    }
}

/// In characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub rows: u16,
    pub columns: u16,
}

/// A file that is there before the first instruction.
#[derive(Clone, Serialize, Deserialize)]
pub struct PreBootFile {
    pub path: PathBuf,
    #[serde(with = "serde_bytes")]
    pub contents: Vec<u8>,
    pub mode: u32,
    pub uid: IdInContainer,
    pub gid: IdInContainer,
    /// Kept on a tmpfs, never on a disk.
    pub secret: bool,
}

impl PreBootFile {
    #[must_use]
    pub const fn owner(&self) -> Owner {
        Owner {
            uid: self.uid,
            gid: self.gid,
        }
    }
}

impl fmt::Debug for PreBootFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreBootFile")
            .field("path", &self.path)
            .field("bytes", &self.contents.len())
            .field("secret", &self.secret)
            .finish_non_exhaustive()
    }
}

/// One line of `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEntry {
    pub address: std::net::IpAddr,
    pub names: Vec<String>,
}

/// A volume seen in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMountPlan {
    /// The volume's tree as the pool says now (`Pool::tree`), in the agent's mount namespace.
    pub source: PathBuf,
    /// Where the container sees it; made if the image lacks it. Links in the image are followed
    /// inside of it.
    pub target: PathBuf,
    pub read_only: bool,
    /// The tree's owners are 0.. (as on any node) and are mapped into the account's range.
    pub idmapped: bool,
}

/// What the container may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory without swap.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    pub pids: u32,
    pub io: Vec<IoLimit>,
}

/// Enough for any server; on the smallest node (24,576 for all) two dozen fork bombs leave the host its own.
pub const DEFAULT_PIDS: u32 = 1_024;

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: None,
            cpu_millis: None,
            pids: DEFAULT_PIDS,
            io: Vec::new(),
        }
    }
}

/// Throughput of one block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoLimit {
    pub major: u32,
    pub minor: u32,
    pub read_bytes_per_s: Option<u64>,
    pub write_bytes_per_s: Option<u64>,
    pub read_ops_per_s: Option<u64>,
    pub write_ops_per_s: Option<u64>,
}

/// How much output is kept, for each process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    pub segment_bytes: u64,
    pub segments: u32,
}

impl LogLimits {
    /// How far a place may lag before its process has to wait: what it has not read is never rotated
    /// away. One full segment is always kept; a reader's acknowledgement is up to
    /// [`ACKNOWLEDGED_WITHIN`] late.
    #[must_use]
    pub fn lag_max(self) -> u64 {
        let kept = self
            .segment_bytes
            .saturating_sub(ACKNOWLEDGED_WITHIN + LAG_SLACK);
        // In a smaller log a late acknowledgement would stop the process for ever.
        kept.clamp(ACKNOWLEDGED_WITHIN + LAG_SLACK, super::FOLLOWER_LAG_MAX)
    }
}

/// Records that are under way while a process is found to be ahead, and their headers.
const LAG_SLACK: u64 = 256 << 10;

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            segment_bytes: 8 << 20,
            segments: 2,
        }
    }
}

/// A further process in a running container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecPlan {
    pub id: ProcessId,
    pub process: ProcessPlan,
}
