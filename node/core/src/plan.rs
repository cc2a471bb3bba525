//! From an order to a plan that can be performed without further questions.
//!
//! Owner: pure functions, called by [`crate::node`]. Invariant: what a plan contains has been
//! checked: bounds, platform, command, files that fit their bytes; everything else is refused with
//! a message that says what to do. Next: Docker's rules are in `teu_protocol::image_config`.

use std::fmt;

use bytes::{Bytes, BytesMut};
use teu_protocol::{
    ids::{AttachmentId, ContainerId, ProcessId, ReaderId},
    image_config::{
        ComposeError, ImageConfig, Overrides, compose,
        user::{self, Owner},
    },
    message::{
        LayerRef, NodeSpawn, PreBootFile, ProcessSpec, Refusal, RefusalCode, ResourceLimits,
        TermSize,
    },
};

use crate::{
    record::{ContainerRecord, ProcessRecord},
    volume::check_mounts,
};

/// Contents of all pre-boot files of a container (the message's bound is 8 MiB).
pub const MAX_FILES_BYTES: u64 = 4 * 1024 * 1024;
/// Below this the kernel kills before a program's first page.
pub const MIN_MEMORY_BYTES: u64 = 4 * 1024 * 1024;
/// The kernel's smallest quota is 1 ms in 100 ms.
pub const MIN_CPU_MILLIS: u64 = 10;
/// A host name's bound in Linux.
pub const MAX_HOSTNAME_BYTES: usize = 64;

/// A container that can be prepared. Its `Debug` shows no content and no environment.
#[derive(Clone, PartialEq)]
pub struct SpawnPlan {
    /// What is remembered of it.
    pub record: ContainerRecord,
    /// Bottom first.
    pub layers: Vec<LayerRef>,
    /// The host name inside.
    pub hostname: String,
    /// A terminal of this size.
    pub tty: Option<TermSize>,
    /// Standard input stays open.
    pub stdin: bool,
    /// The place of the client that spawns it.
    pub reader: Option<(ReaderId, AttachmentId)>,
    /// Killed this long after its start.
    pub timeout_ms: Option<u64>,
    /// An init of ours in front of the program.
    pub init: bool,
    /// Written before anything runs, with their owners and contents.
    pub files: Vec<(PreBootFile, Owner, Bytes)>,
    /// Not to be started yet.
    pub asleep: bool,
}

impl fmt::Debug for SpawnPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpawnPlan")
            .field("container", &self.record.container)
            .field("command", &self.record.process.args)
            .field("asleep", &self.asleep)
            .finish_non_exhaustive()
    }
}

/// A further process that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecPlan {
    /// Where.
    pub container: ContainerId,
    /// Who it becomes.
    pub id: ProcessId,
    /// What.
    pub process: ProcessRecord,
    /// A terminal of this size.
    pub tty: Option<TermSize>,
    /// Standard input stays open.
    pub stdin: bool,
    /// Killed this long after its start.
    pub timeout_ms: Option<u64>,
    /// Ends with this attachment.
    pub bound: Option<AttachmentId>,
    /// The place of the client that starts it.
    pub reader: Option<(ReaderId, AttachmentId)>,
}

/// Plans a container for a node of `platform` (`linux/amd64`).
///
/// # Errors
/// A refusal if it can never work here.
pub fn plan_spawn(spawn: &NodeSpawn, bulk: &[Bytes], platform: &str) -> Result<SpawnPlan, Refusal> {
    let spec = &spawn.spec;
    check_limits(&spec.limits)?;
    let config = ImageConfig::parse(&spawn.image.config)
        .map_err(|error| Refusal::new(RefusalCode::BadImage, error.to_string()))?;
    check_platform(&config, platform)?;
    if spawn.image.layers.is_empty() {
        let message = "the image has no layers, so there is nothing to run in it";
        return Err(Refusal::new(RefusalCode::BadImage, message));
    }
    let hostname = hostname(spawn)?;
    let overrides = Overrides {
        entrypoint: spec.entrypoint.clone(),
        command: spec.process.args.clone().unwrap_or_default(),
        env: env(&spec.process)?,
        working_dir: spec.process.workdir.clone(),
        user: spec.process.user.clone(),
        stop_signal: None,
        hostname: hostname.clone(),
        tty: spec.process.tty.is_some(),
    };
    let process = compose(&config, &overrides).map_err(refuse_compose)?;
    check_user(&process.user)?;
    let mut record = ContainerRecord::new(spawn, process.into(), config.exposed_ports);
    check_mounts(&mut record.volumes)?;
    Ok(SpawnPlan {
        record,
        layers: spawn.image.layers.clone(),
        hostname,
        tty: spec.process.tty,
        stdin: spec.process.stdin,
        reader: spec.process.reader.map(|reader| (reader, spawn.attachment)),
        timeout_ms: spec.process.timeout_ms,
        init: spec.init,
        files: with_contents(&spec.files, bulk)?,
        asleep: spec.asleep,
    })
}

/// Plans a further process in the container of `record`.
///
/// # Errors
/// A refusal if the process is contradictory.
pub fn plan_exec(
    record: &ContainerRecord,
    id: ProcessId,
    spec: &ProcessSpec,
    bound: Option<AttachmentId>,
) -> Result<ExecPlan, Refusal> {
    let overrides = Overrides {
        command: spec.args.clone().unwrap_or_default(),
        env: env(spec)?,
        working_dir: spec.workdir.clone(),
        user: spec.user.clone(),
        tty: spec.tty.is_some(),
        ..Overrides::default()
    };
    let template = teu_protocol::image_config::ProcessTemplate::from(record.process.clone());
    let process = template.exec(&overrides).map_err(|error| match error {
        ComposeError::NoCommand => {
            bad("no command was given: name the program to run in the container".to_owned())
        }
        other => refuse_compose(other),
    })?;
    check_user(&process.user)?;
    Ok(ExecPlan {
        container: record.container,
        id,
        process: process.into(),
        tty: spec.tty,
        stdin: spec.stdin,
        timeout_ms: spec.timeout_ms,
        bound,
        // What is bound to nobody could wait for ever.
        reader: spec.reader.zip(bound),
    })
}

fn bad(message: String) -> Refusal {
    Refusal::new(RefusalCode::BadRequest, message)
}

fn refuse_compose(error: ComposeError) -> Refusal {
    bad(error.to_string())
}

/// Names are looked up in the container; numbers that no container has are refused before one is made.
fn check_user(user: &str) -> Result<(), Refusal> {
    user::check_numbers(user).map_err(|error| bad(error.to_string()))
}

fn check_limits(limits: &ResourceLimits) -> Result<(), Refusal> {
    if limits
        .memory_bytes
        .is_some_and(|bytes| bytes < MIN_MEMORY_BYTES)
    {
        return Err(bad(
            "the memory limit is below 4 MiB, in which nothing can run".to_owned(),
        ));
    }
    if limits
        .cpu_millis
        .is_some_and(|millis| millis < MIN_CPU_MILLIS)
    {
        return Err(bad(
            "the CPU limit is below 0.01 of a core, the smallest possible".to_owned(),
        ));
    }
    if limits.pids == Some(0) {
        return Err(bad(
            "a limit of 0 processes lets nothing run; use 1 or more".to_owned(),
        ));
    }
    Ok(())
}

/// Variants (`arm64/v8`) are not compared: what runs on a variant is the image's own risk.
fn check_platform(config: &ImageConfig, platform: &str) -> Result<(), Refusal> {
    let (os, architecture) = platform.split_once('/').unwrap_or((platform, ""));
    let fits = |theirs: &str, ours: &str| theirs.is_empty() || theirs == ours;
    if fits(&config.os, os) && fits(&config.architecture, architecture) {
        return Ok(());
    }
    let message = format!(
        "the image is for {}, but the node is {platform}; use an image that was built for it",
        config.platform()
    );
    Err(Refusal::new(RefusalCode::WrongPlatform, message))
}

fn hostname(spawn: &NodeSpawn) -> Result<String, Refusal> {
    let Some(name) = spawn
        .spec
        .hostname
        .as_deref()
        .filter(|name| !name.is_empty())
    else {
        let tag = spawn.spec.tag.as_ref().map(|tag| tag.as_str().to_owned());
        return Ok(tag.unwrap_or_else(|| spawn.container.short()));
    };
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if plain && name.len() <= MAX_HOSTNAME_BYTES {
        Ok(name.to_owned())
    } else {
        Err(bad(
            "the host name may have at most 64 letters, digits, dots and dashes".to_owned(),
        ))
    }
}

fn env(process: &ProcessSpec) -> Result<Vec<String>, Refusal> {
    let variables = process.env.iter().map(|(name, value)| {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            // The value may be a secret: only the name is shown.
            let name: String = name.chars().take(64).collect();
            return Err(bad(format!(
                "`{name}` cannot be an environment variable's name"
            )));
        }
        Ok(format!("{name}={value}"))
    });
    variables.collect()
}

fn with_contents(
    files: &[PreBootFile],
    bulk: &[Bytes],
) -> Result<Vec<(PreBootFile, Owner, Bytes)>, Refusal> {
    let promised = files
        .iter()
        .try_fold(0_u64, |sum, file| sum.checked_add(file.size));
    let sent: u64 = bulk.iter().map(|part| part.len() as u64).sum();
    let Some(promised) = promised.filter(|bytes| *bytes <= MAX_FILES_BYTES) else {
        return Err(bad(
            "the pre-boot files have more than 4 MiB together; use a volume".to_owned(),
        ));
    };
    if promised != sent {
        let message = format!("the pre-boot files should have {promised} bytes, {sent} came");
        return Err(bad(message));
    }
    let mut rest = join(bulk);
    let split = files.iter().map(|file| {
        if !file.path.starts_with('/') || file.path.contains('\0') || file.path.ends_with('/') {
            return Err(bad(
                "a pre-boot file's path must be absolute and name a file".to_owned(),
            ));
        }
        let owner = Owner::of(file.uid, file.gid)
            .map_err(|error| bad(format!("the owner of the file `{}`: {error}", file.path)))?;
        // Fits: the sum of all sizes is the length of `rest`.
        let length = usize::try_from(file.size)
            .unwrap_or(usize::MAX)
            .min(rest.len());
        Ok((file.clone(), owner, rest.split_to(length)))
    });
    split.collect()
}

fn join(parts: &[Bytes]) -> Bytes {
    if let [one] = parts {
        return one.clone();
    }
    let mut all = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    for part in parts {
        all.extend_from_slice(part);
    }
    all.freeze()
}

#[cfg(test)]
mod tests;
