//! What a node remembers of a container over its own restart.
//!
//! Owner: [`crate::node`]; the agent keeps it as `record.mp` (mode 0600: it has environment values,
//! which a further process needs; contents of pre-boot files are never in it).
//! Invariant: with it and the keeper's word, a restarted agent knows what the earlier one knew.

use std::{collections::BTreeMap, net::Ipv4Addr};

use serde::{Deserialize, Serialize};
use teu_protocol::{
    ids::{AttachmentId, ContainerId, Digest, ProcessId, PublicKey, SessionId, Tag},
    image_config::{ProcessTemplate, signal::Signal},
    message::{ContainerState, Lifetime, NodeContainer, NodeSpawn, ResourceLimits, VolumeMount},
};

/// A process as it is (or was) executed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value`. Never logged.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty: root.
    pub user: String,
    /// What asks it to end.
    pub stop_signal: Signal,
}

impl std::fmt::Debug for ProcessRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessRecord")
            .field("args", &self.args)
            .finish_non_exhaustive()
    }
}

impl From<ProcessTemplate> for ProcessRecord {
    fn from(from: ProcessTemplate) -> Self {
        let ProcessTemplate {
            args,
            env,
            cwd,
            user,
            stop_signal,
        } = from;
        Self {
            args,
            env,
            cwd,
            user,
            stop_signal,
        }
    }
}

impl From<ProcessRecord> for ProcessTemplate {
    fn from(from: ProcessRecord) -> Self {
        let ProcessRecord {
            args,
            env,
            cwd,
            user,
            stop_signal,
        } = from;
        Self {
            args,
            env,
            cwd,
            user,
            stop_signal,
        }
    }
}

/// A container, but for how it fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
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
    /// When it was asked for: milliseconds since 1970.
    pub created_ms: u64,
    /// Its bounds.
    pub limits: ResourceLimits,
    /// Its first process has a terminal.
    pub tty: bool,
    /// Its first process.
    pub process: ProcessRecord,
    /// Ports that the image declares.
    pub exposed_ports: Vec<String>,
    /// Paths of its pre-boot files.
    pub files: Vec<String>,
    /// Its address, once it has one and as long as it has it.
    pub ip: Option<Ipv4Addr>,
    /// Containers that may connect to it, with their addresses.
    pub allowed_from: Vec<(ContainerId, Ipv4Addr)>,
    /// Its volumes.
    #[serde(default)]
    pub volumes: Vec<VolumeMount>,
    /// When its first process began: milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Further processes that run.
    pub processes: Vec<FurtherProcess>,
}

/// A further process, but for how it fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FurtherProcess {
    /// The process.
    pub id: ProcessId,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Ends with this attachment.
    pub bound: Option<AttachmentId>,
}

impl ContainerRecord {
    /// The record of a container that is being spawned.
    #[must_use]
    pub fn new(spawn: &NodeSpawn, process: ProcessRecord, exposed_ports: Vec<String>) -> Self {
        let spec = &spawn.spec;
        Self {
            container: spawn.container,
            session: spawn.session,
            attachment: spawn.attachment,
            account: spawn.account,
            lifetime: spec.lifetime,
            tag: spec.tag.clone(),
            labels: spec.labels.clone(),
            image: spawn.image.id,
            image_name: spec.image_name.clone(),
            created_ms: spawn.created_ms,
            limits: spec.limits,
            tty: spec.process.tty.is_some(),
            process,
            exposed_ports,
            files: spec.files.iter().map(|file| file.path.clone()).collect(),
            ip: None,
            allowed_from: Vec::new(),
            volumes: spec.volumes.clone(),
            since_ms: None,
            processes: Vec::new(),
        }
    }

    /// As it is told to the master, without its processes.
    #[must_use]
    pub fn told(&self, state: ContainerState) -> NodeContainer {
        NodeContainer {
            container: self.container,
            session: self.session,
            attachment: self.attachment,
            account: self.account,
            lifetime: self.lifetime,
            tag: self.tag.clone(),
            labels: self.labels.clone(),
            image: self.image,
            image_name: self.image_name.clone(),
            command: self.process.args.clone(),
            created_ms: self.created_ms,
            ip: self.ip,
            state,
            tty: self.tty,
            limits: self.limits,
            allowed_from: self.allowed_from.clone(),
            volumes: self.volumes.clone(),
            processes: Vec::new(),
            readers: Vec::new(),
        }
    }
}
