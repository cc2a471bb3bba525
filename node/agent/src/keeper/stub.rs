//! The stub: a child of the keeper that is forked ahead, prepares what no plan is needed for, waits
//! for the plan, makes the container, and ends.
//!
//! Owner: the keeper. Invariant: the stub is in the container's cgroup and in mount and cgroup
//! namespaces of its own from the start, so the container inherits the former without waiting, and
//! every mount lives exactly as long as the container. It keeps libcontainer's memory and
//! failures out of the keeper: the container's first process is a sibling of the stub.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    rc::Rc,
    time::Instant,
};

use rustix::fs::OFlags;
use teu_protocol::image_config::user::{IdInContainer, Owner};

use super::{
    payload::{ChildStdio, Payload},
    plan::{HostEntry, StartPlan},
    report::Report,
    runtime::{Libcontainer, Runtime},
    volumes::Volumes,
    wire::{Refusal, StartStep},
};
use crate::sys::{
    cgroup::{Cgroup, Hierarchies},
    fork,
    idmap::{self, UnmappedNamespace},
    namespaces, oci,
    rootfs::{FileLook, Root, Scratch},
    seccomp::SeccompProgram,
    seqpacket,
};

/// What generated files look like.
const GENERATED: FileLook = FileLook {
    mode: 0o644,
    owner: Owner::ROOT,
};

/// What a stub inherits from its keeper.
#[derive(Debug)]
pub(super) struct Stub {
    pub cgroup: Cgroup,
    pub hierarchies: Hierarchies,
    pub stdio: ChildStdio,
    pub report: Rc<OwnedFd>,
    pub seccomp: Rc<SeccompProgram>,
}

impl Stub {
    /// The stub's whole life; the result is its exit code.
    pub(super) fn run(self) -> i32 {
        let _ =
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        // libcontainer's errors lose their causes; it logs them. They go to the agent's own stderr.
        let _ = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::ERROR)
            .with_writer(teu_daemon::log::LossyLog::new(io::stderr()))
            .log_internal_errors(false)
            .try_init();
        let report = Rc::clone(&self.report);
        match self.prepare_and_start() {
            Ok(()) => 0,
            Err(refusal) => {
                let _ = Report::Failed(refusal).send(&*report, None);
                1
            }
        }
    }

    fn prepare_and_start(self) -> Result<(), Refusal> {
        let prepared = failed(StartStep::PrepareSlot);
        let scratch = self.warm().map_err(&prepared)?;
        let userns = UnmappedNamespace::new().map_err(&prepared)?;
        Report::Warm
            .send(&*self.report, None)
            .map_err(failed(StartStep::PrepareSlot))?;
        let received = self.receive_plan().map_err(failed(StartStep::ReadPlan))?;
        let Some((plan, trees)) = received else {
            return Ok(());
        };
        let mut steps = Steps::new();
        let mut runtime = Libcontainer::new(
            plan.container.to_string(),
            scratch.dir.join("bundle"),
            scratch.dir.join("state"),
        );
        let userns = userns
            .map(plan.ids)
            .map_err(failed(StartStep::MakeUserNamespace))?;
        steps.done("user namespace");
        let (pid, volumes) =
            self.create(&plan, trees, &scratch, &userns, &mut runtime, &mut steps)?;
        if !volumes.is_empty() {
            volumes
                .attach(pid)
                .map_err(failed(StartStep::MountVolumes))?;
            steps.done("volumes");
        }
        runtime
            .start()
            .map_err(failed(StartStep::CreateContainer))?;
        steps.done("start");
        Report::Created {
            pid,
            steps_us: steps.taken,
        }
        .send(&*self.report, None)
        .map_err(failed(StartStep::CreateContainer))
    }

    /// All that can be done without a plan.
    fn warm(&self) -> io::Result<Scratch> {
        // Nothing of the keeper's is open when a path of an image is walked.
        let mut kept = self.stdio.descriptors().to_vec();
        kept.push(self.report.as_raw_fd());
        fork::close_all_but(&kept)?;
        self.cgroup.join().map_err(io::Error::other)?;
        fs::write("/proc/self/oom_score_adj", "0")?;
        fork::container_rlimits()?;
        // libcontainer leaves inherited groups alone if a user has none of its own.
        fork::set_groups(&[])?;
        namespaces::own_cgroup_view()?;
        namespaces::private_mounts()?;
        // A place that every host has and that mapped users can walk to.
        let scratch = Scratch::mount(namespaces::hide_cgroups()?)?;
        namespaces::mount_sys(&scratch.dir.join("sys"), &self.hierarchies)?;
        Ok(scratch)
    }

    /// The plan comes as a memory file, because it may be larger than a message; the trees of its
    /// volumes come with it.
    fn receive_plan(&self) -> io::Result<Option<(StartPlan, Vec<OwnedFd>)>> {
        let Some(packet) = seqpacket::receive(&*self.report, true)? else {
            return Ok(None);
        };
        let mut fds = packet.fds.into_iter();
        let Some(fd) = fds.next() else {
            return Ok(None);
        };
        let mut file = fs::File::from(fd);
        io::Seek::rewind(&mut file)?;
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes)?;
        teu_protocol::message::decode_record(&bytes)
            .map(|plan| Some((plan, fds.collect())))
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn create(
        &self,
        plan: &StartPlan,
        trees: Vec<OwnedFd>,
        scratch: &Scratch,
        userns: &OwnedFd,
        runtime: &mut impl Runtime,
        steps: &mut Steps,
    ) -> Result<(i32, Volumes), Refusal> {
        scratch
            .mount_root(&plan.root, userns.as_fd())
            .map_err(failed(StartStep::MountRoot))?;
        let root = scratch
            .open_root(plan.ids)
            .map_err(failed(StartStep::MountRoot))?;
        steps.done("root");
        let mut volumes = Volumes::prepare(&root, plan.ids, &plan.mounts, trees, userns.as_fd())
            .map_err(failed(StartStep::MountVolumes))?;
        let files = failed(StartStep::WriteFiles);
        populate(&root, plan, scratch, &mut volumes).map_err(files)?;
        steps.done("files");
        drop(root);
        let owner = plan.ids.host(IdInContainer::ROOT);
        self.stdio
            .give(owner, owner)
            .map_err(failed(StartStep::CreateContainer))?;
        let userns_path = PathBuf::from(format!("/proc/self/fd/{}", userns.as_raw_fd()));
        let spec = oci::spec(&oci::SpecInput {
            root: &scratch.root(),
            read_only_root: plan.root.read_only,
            hostname: &plan.hostname,
            userns: &userns_path,
            args: &plan.process.args,
            shm_bytes: plan.shm_bytes,
        })
        .map_err(failed(StartStep::CreateContainer))?;
        let payload = Payload::new(
            &plan.process,
            &plan.hostname,
            self.stdio.clone(),
            Rc::clone(&self.report),
            Rc::clone(&self.seccomp),
        );
        steps.done("spec");
        let pid = runtime
            .create(&spec, payload)
            .map_err(failed(StartStep::CreateContainer))?;
        steps.done("create");
        Ok((pid, volumes))
    }
}

/// Times each step since the plan came.
struct Steps {
    last: Instant,
    taken: Vec<(String, u32)>,
}

impl Steps {
    fn new() -> Self {
        Self {
            last: Instant::now(),
            taken: Vec::new(),
        }
    }

    fn done(&mut self, name: &str) {
        let now = Instant::now();
        let us = u32::try_from((now - self.last).as_micros()).unwrap_or(u32::MAX);
        self.taken.push((name.to_owned(), us));
        self.last = now;
    }
}

/// Names the step that an error happened in.
pub(super) fn failed<E: std::error::Error>(step: StartStep) -> impl Fn(E) -> Refusal {
    move |error| {
        // The whole chain in one line: the keeper's peer is another process.
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !reason.contains(&text) {
                reason = format!("{reason}: {text}");
            }
            source = cause.source();
        }
        Refusal::Failed { step, reason }
    }
}

/// Everything that is in the root before the first instruction.
fn populate(
    root: &Root,
    plan: &StartPlan,
    scratch: &Scratch,
    volumes: &mut Volumes,
) -> io::Result<()> {
    for name in ["proc", "dev", "sys"] {
        root.make_mount_point(name)?;
    }
    let etc = Path::new("/etc");
    if root.make_dirs(etc, Owner::ROOT).is_err() {
        // A file, a FIFO or a loop of links: as in Docker, a directory takes its place.
        root.make_mount_point("etc")?;
    }
    let sys = root.open_at(Path::new("/sys"), OFlags::PATH | OFlags::DIRECTORY, 0)?;
    idmap::move_attached(&scratch.dir.join("sys"), sys)?;
    let write = |volumes: &Volumes, path: &str, contents: &str| {
        let (root, path, _) = volumes.locate(root, Path::new(path))?;
        // A device, a FIFO or a link that leads nowhere: a file takes its place, as in Docker.
        root.write_file(&path, contents.as_bytes(), GENERATED)
            .or_else(|_| {
                root.remove_file(&path)?;
                root.write_file(&path, contents.as_bytes(), GENERATED)
            })
    };
    write(volumes, "/etc/hostname", &format!("{}\n", plan.hostname))?;
    let head = HostsHead {
        hostname: plan.hostname.clone(),
        address: plan.address,
    };
    write(volumes, "/etc/hosts", &head.text(&plan.hosts))?;
    if !plan.name_servers.is_empty() {
        let text: String = plan
            .name_servers
            .iter()
            .map(|server| format!("nameserver {server}\n"))
            .collect();
        write(volumes, "/etc/resolv.conf", &text)?;
    }
    let secrets = scratch.dir.join("secrets");
    for (number, file) in plan.files.iter().enumerate() {
        let look = FileLook {
            mode: file.mode,
            owner: file.owner(),
        };
        let (root, path, in_volume) = volumes.locate(root, &file.path)?;
        if !file.secret {
            root.write_file(&path, &file.contents, look)?;
            continue;
        }
        let tree = root.make_secret(&secrets, number, &path, &file.contents, look)?;
        if in_volume {
            volumes.add_secret(file.path.clone(), tree);
        } else {
            root.attach(tree, &path)?;
        }
    }
    Ok(())
}

/// The part of `/etc/hosts` that stays the same for a container's life.
#[derive(Debug, Clone)]
pub(super) struct HostsHead {
    pub hostname: String,
    pub address: Option<std::net::IpAddr>,
}

impl HostsHead {
    pub(super) fn text(&self, extra: &[HostEntry]) -> String {
        let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n".to_owned();
        if let Some(address) = self.address {
            text.push_str(&format!("{address}\t{}\n", self.hostname));
        }
        for entry in extra {
            text.push_str(&format!("{}\t{}\n", entry.address, entry.names.join(" ")));
        }
        text
    }
}

/// Replaces `/etc/hosts` of a running container.
pub(super) fn write_hosts(root: &Root, head: &HostsHead, extra: &[HostEntry]) -> io::Result<()> {
    root.write_file(
        Path::new("/etc/hosts"),
        head.text(extra).as_bytes(),
        GENERATED,
    )
}
