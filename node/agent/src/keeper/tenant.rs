//! A further process in a running container (exec).
//!
//! Owner: forked by the container's reaper for the keeper. Not done by libcontainer 0.7, whose tenant builder leaves `user` out
//! of the namespaces that it joins (the process would run as the host's root behind a mount
//! namespace) and drops seccomp from the specification. Here the process gets exactly what the
//! first one has: namespaces, ids, capabilities, `no_new_privs`, seccomp, and the container's limits.
//! Invariant: nothing of the container is trusted before the process has left the host's
//! namespaces, and from then on it is not dumpable, so the container cannot look into it.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    rc::Rc,
};

use libcontainer::{
    capabilities,
    oci_spec::runtime::{Capabilities, LinuxCapabilitiesBuilder},
    syscall::{Syscall, linux::LinuxSyscall},
};

use super::{
    payload::{ChildStdio, Payload},
    plan::{ExecPlan, IdRange},
    report::Report,
    stub::{failed, own_stdio, resolve_user, working_dir},
    wire::{Refusal, StartStep},
};
use crate::sys::{
    cgroup::Cgroup,
    fork::{self, ForkOptions},
    namespaces, oci,
    rootfs::Root,
    seccomp::SeccompProgram,
    users::Identity,
};

/// What a tenant inherits from its keeper.
#[derive(Debug)]
pub(super) struct Tenant<'a> {
    pub plan: &'a ExecPlan,
    pub hostname: &'a str,
    pub ids: IdRange,
    /// The container's first process.
    pub init_pid: i32,
    pub init_pidfd: &'a OwnedFd,
    /// The process's own group, below the container's.
    pub cgroup: &'a Cgroup,
    pub stdio: ChildStdio,
    pub report: Rc<OwnedFd>,
    pub seccomp: Rc<SeccompProgram>,
}

impl Tenant<'_> {
    /// Forks the tenant. It tells its story over the report socket.
    pub(super) fn fork(self) -> io::Result<i32> {
        let birthplace = self.cgroup.birthplace().map(open_dir).transpose()?;
        let options = ForkOptions {
            into_cgroup: birthplace.as_ref().map(AsFd::as_fd),
            as_sibling: false,
        };
        let joined = birthplace.is_some();
        fork::fork(options, move || {
            let report = Rc::clone(&self.report);
            match self.run(joined) {
                Ok(()) => 0,
                Err(refusal) => {
                    let _ = Report::Failed(refusal).send(&*report, None);
                    1
                }
            }
        })
    }

    /// In the first child, still on the host: all that needs the host's privileges.
    fn run(self, joined: bool) -> Result<(), Refusal> {
        let join = StartStep::JoinContainer;
        let _ =
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        if !joined {
            self.cgroup.join().map_err(failed(join))?;
        }
        std::fs::write("/proc/self/oom_score_adj", "0").map_err(failed(join))?;
        fork::container_rlimits().map_err(failed(join))?;
        let root_path = format!("/proc/{}/root", self.init_pid);
        let root = Root::open(Path::new(&root_path), self.ids).map_err(failed(join))?;
        let identity = resolve_user(&root, &self.plan.process.user)?;
        let cwd = working_dir(&root, &self.plan.process.cwd, &identity)?;
        own_stdio(&self.stdio, self.ids, &identity).map_err(failed(join))?;
        drop(root);
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
            .map_err(failed(join))?;
        namespaces::join_container(self.init_pidfd).map_err(failed(join))?;
        let payload = Payload::new(
            &self.plan.process,
            &identity,
            self.hostname,
            self.stdio.clone(),
            Rc::clone(&self.report),
            Rc::clone(&self.seccomp),
        );
        let inner_report = Rc::clone(&self.report);
        // Only a child is born into the pid namespace that was joined; as a sibling, the reaper is
        // its parent.
        let (pid, pidfd) = fork::fork_sibling(move || {
            match become_user(&identity, &cwd) {
                Ok(()) => payload.execute(),
                Err(refusal) => {
                    let _ = Report::Failed(refusal).send(&*inner_report, None);
                }
            }
            1
        })
        .map_err(failed(join))?;
        Report::Created {
            pid,
            steps_us: Vec::new(),
        }
        .send(&*self.report, Some(pidfd.as_fd()))
        .map_err(failed(join))
    }
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Inside: gives up everything but what the container's own processes have.
fn become_user(identity: &Identity, cwd: &Path) -> Result<(), Refusal> {
    let join = StartStep::JoinContainer;
    let syscall = LinuxSyscall;
    rustix::process::setsid().map_err(failed(join))?;
    rustix::thread::set_no_new_privs(true).map_err(failed(join))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // Before the ids change, as for the first process: root may enter what its user may not.
    std::env::set_current_dir(cwd).map_err(failed(StartStep::MakeWorkingDirectory))?;
    fork::set_groups(&identity.groups).map_err(failed(join))?;
    syscall
        .set_id(identity.uid.into(), identity.gid.into())
        .map_err(failed(join))?;
    let caps: Capabilities = oci::CAPABILITIES.into_iter().collect();
    let caps = LinuxCapabilitiesBuilder::default()
        .bounding(caps.clone())
        .effective(caps.clone())
        .permitted(caps)
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build()
        .map_err(failed(join))?;
    capabilities::reset_effective(&syscall).map_err(failed(join))?;
    capabilities::drop_privileges(&caps, &syscall).map_err(failed(join))
}
