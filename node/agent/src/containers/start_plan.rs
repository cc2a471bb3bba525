//! From the core's plan to the keeper's.
//!
//! Pure. Invariant: nothing is decided here; the two differ in who owns their words.

use std::{net::IpAddr, path::PathBuf};

use teu_node_core::{
    accounts::IDS_PER_ACCOUNT,
    plan::{ExecPlan, SpawnPlan},
    record::ProcessRecord,
};
use teu_protocol::{
    ids::{AttachmentId, ReaderId},
    message::{ResourceLimits, TermSize},
};

use crate::{
    keeper::{
        self, DEFAULT_PIDS, IdRange, Limits, LogLimits, PreBootFile, ProcessPlan, RootPlan,
        StartPlan, TerminalSize, VolumeMountPlan,
    },
    state::ContainerDir,
    sys::cgroup::container_pids,
};

/// Docker's size of `/dev/shm`.
const SHM_BYTES: u64 = 64 << 20;

pub(super) struct Place<'a> {
    pub(super) dir: &'a ContainerDir,
    pub(super) uid_base: u32,
    /// Lowest first.
    pub(super) layers: Vec<PathBuf>,
    pub(super) address: IpAddr,
    pub(super) name_servers: Vec<IpAddr>,
    pub(super) mounts: Vec<VolumeMountPlan>,
}

pub(super) fn start_plan(plan: &SpawnPlan, place: Place<'_>) -> StartPlan {
    let Place {
        dir,
        uid_base,
        layers,
        address,
        name_servers,
        mounts,
    } = place;
    let files = plan
        .files
        .iter()
        .map(|(file, owner, contents)| PreBootFile {
            path: PathBuf::from(&file.path),
            contents: contents.to_vec(),
            mode: file.mode,
            uid: owner.uid,
            gid: owner.gid,
            secret: file.secret,
        });
    StartPlan {
        container: plan.record.container,
        dir: dir.path().to_owned(),
        hostname: plan.hostname.clone(),
        ids: IdRange {
            base: uid_base,
            count: IDS_PER_ACCOUNT,
        },
        root: RootPlan {
            layers,
            upper: dir.upper(),
            work: dir.work(),
            read_only: false,
        },
        process: ProcessPlan {
            timeout_ms: plan.timeout_ms,
            init: plan.init,
            ..process_plan(&plan.record.process, plan.tty, plan.stdin, plan.reader)
        },
        files: files.collect(),
        hosts: Vec::new(),
        address: Some(address),
        name_servers,
        mounts,
        limits: limits(&plan.record.limits),
        log: LogLimits::default(),
        shm_bytes: SHM_BYTES,
    }
}

/// The keeper's plan for a further process.
#[must_use]
pub fn exec_plan(plan: &ExecPlan) -> keeper::ExecPlan {
    let process = ProcessPlan {
        timeout_ms: plan.timeout_ms,
        ..process_plan(&plan.process, plan.tty, plan.stdin, plan.reader)
    };
    keeper::ExecPlan {
        id: plan.id,
        process,
    }
}

fn process_plan(
    process: &ProcessRecord,
    tty: Option<TermSize>,
    stdin: bool,
    reader: Option<(ReaderId, AttachmentId)>,
) -> ProcessPlan {
    let env = process.env.iter().map(|entry| {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        (name.to_owned(), value.to_owned())
    });
    ProcessPlan {
        args: process.args.clone(),
        env: env.collect(),
        cwd: PathBuf::from(&process.cwd),
        user: process.user.clone(),
        tty: tty.map(|size| TerminalSize {
            rows: size.rows,
            columns: size.cols,
        }),
        open_stdin: stdin,
        reader,
        timeout_ms: None,
        init: false,
    }
}

fn limits(limits: &ResourceLimits) -> Limits {
    Limits {
        memory_bytes: limits.memory_bytes,
        cpu_millis: limits
            .cpu_millis
            .map(|millis| u32::try_from(millis).unwrap_or(u32::MAX)),
        pids: limits.pids.unwrap_or(DEFAULT_PIDS.min(container_pids())),
        io: Vec::new(),
    }
}
