//! What is to run: a container's and a process's description.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::VolumeMount;
use crate::ids::{Digest, NodeId, ReaderId, Tag};

/// A container to spawn. The contents of `files` travel as the message's bulk, one after another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpawnSpec {
    /// The image's id: SHA-256 of its configuration.
    pub image: Digest,
    /// Where; `None` lets the location choose.
    pub node: Option<NodeId>,
    /// A name, unique within the account while the container exists.
    pub tag: Option<Tag>,
    /// Free for the program; at most 64 of at most 256 bytes.
    pub labels: BTreeMap<String, String>,
    /// The first process. Its `args` are Docker's "command": they replace the image's Cmd.
    pub process: ProcessSpec,
    /// Replaces the image's Entrypoint; an empty list removes it.
    pub entrypoint: Option<Vec<String>>,
    /// Written before anything runs; at most 4 MiB together.
    pub files: Vec<PreBootFile>,
    /// Volumes, at most 32, all of one node, which is then the container's.
    #[serde(default)]
    pub volumes: Vec<VolumeMount>,
    /// Upper bounds.
    pub limits: ResourceLimits,
    /// Made ready but not started until `Wake`.
    pub asleep: bool,
    /// Until when.
    pub lifetime: Lifetime,
    /// The host name inside; default: the tag, or the short id.
    pub hostname: Option<String>,
    /// The image as the user named it, for lists.
    pub image_name: String,
    /// A process of the node's is the container's first one: it starts the program, passes signals on
    /// to it, and reaps what nobody waits for.
    #[serde(default)]
    pub init: bool,
}

impl SpawnSpec {
    /// The image as it is, anywhere, for as long as the session lasts.
    #[must_use]
    pub fn of(image: Digest, image_name: impl Into<String>) -> Self {
        Self {
            image,
            node: None,
            tag: None,
            labels: BTreeMap::new(),
            process: ProcessSpec::default(),
            entrypoint: None,
            files: Vec::new(),
            volumes: Vec::new(),
            limits: ResourceLimits::default(),
            asleep: false,
            lifetime: Lifetime::Session,
            hostname: None,
            image_name: image_name.into(),
            init: false,
        }
    }
}

/// A process to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Program and arguments; for a container `None` keeps the image's Cmd.
    pub args: Option<Vec<String>>,
    /// Added to the image's environment, the last one of a name counts. Never logged.
    pub env: Vec<(String, String)>,
    /// `user`, `uid`, `user:group` or `uid:gid`, numbers from 0 to 65535; default: the image's.
    pub user: Option<String>,
    /// Made if it is missing; default: the image's, else `/`.
    pub workdir: Option<String>,
    /// A pseudo-terminal of this size.
    pub tty: Option<TermSize>,
    /// Standard input stays open (else it reads as empty).
    pub stdin: bool,
    /// A place in its output for the client that starts it, from the first byte on: the process waits
    /// when it is far ahead of the place. Taken over by `Attach`; ends with the attachment.
    #[serde(default)]
    pub reader: Option<ReaderId>,
    /// Milliseconds from its start until the node kills it, and all that it started (of a container:
    /// all that runs in it), with the cause `TimedOut`. 1 to 31,622,400,000 (366 days).
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub cols: u16,
}

/// A file that exists before the container's first process runs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct PreBootFile {
    /// Absolute path in the container, not in /proc, /sys or /dev; directories are made as needed.
    pub path: String,
    /// Permission bits, such as 0o644.
    pub mode: u32,
    /// Owner inside the container, 0 to 65535.
    pub uid: u32,
    /// Group inside the container, 0 to 65535.
    pub gid: u32,
    /// Kept in memory only, never logged, never shown.
    pub secret: bool,
    /// Length in bytes of its content in the bulk.
    pub size: u64,
}

/// Upper bounds for a container; `None` leaves the node's default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimits {
    /// Bytes of memory; beyond, the kernel kills (cause `Oom`). At least 4 MiB.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a core. At least 10.
    pub cpu_millis: Option<u64>,
    /// Processes and threads; at most 32,768, and a quarter of what the node allows. Default: 1,024.
    pub pids: Option<u32>,
    /// Bytes that it may write into its root, file names included; writes fail beyond (`EDQUOT`). At least
    /// 16 MiB. Default: 10 GiB. Volumes have quotas of their own.
    #[serde(default)]
    pub storage_bytes: Option<u64>,
}

/// Until when a container exists, unless destroyed earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lifetime {
    /// The session's end.
    Session,
    /// The end of the attachment (client process) that spawned it, or the session's.
    Attachment,
    /// The end of its first process (`run -d --rm`), or the session's.
    FirstProcess,
}

/// How long `Stop` waits before it kills, unless told: as Docker does.
#[must_use]
pub const fn default_grace_ms() -> u32 {
    10_000
}
