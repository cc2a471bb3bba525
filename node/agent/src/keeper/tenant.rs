//! A further process in a running container (exec).
//!
//! Owner: forked by the container's reaper for the keeper. Not done by libcontainer 0.7, whose tenant builder leaves `user` out
//! of the namespaces that it joins (the process would run as the host's root behind a mount
//! namespace) and drops seccomp from the specification. Here the process gets exactly what the
//! first one has: namespaces, ids, capabilities, `no_new_privs`, seccomp, and the container's limits.
//! Invariants: nothing of the container is looked at by a process of the host's root, or with a
//! descriptor of the host open; the process that joins is the container's root before a child of it
//! is born where the container can see it, and from then on it is not dumpable.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    rc::Rc,
};

use teu_protocol::image_config::user::IdInContainer;

use super::{
    payload::{ChildStdio, Payload},
    plan::{ExecPlan, IdRange},
    report::Report,
    stub::failed,
    wire::{Refusal, StartStep},
};
use crate::sys::{
    cgroup::Cgroup,
    credentials,
    fork::{self, ForkOptions},
    seccomp::SeccompProgram,
};

/// What a tenant inherits from its keeper.
#[derive(Debug)]
pub(super) struct Tenant<'a> {
    pub plan: &'a ExecPlan,
    pub hostname: &'a str,
    pub ids: IdRange,
    /// The container's first process.
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
        let owner = self.ids.host(IdInContainer::ROOT);
        self.stdio.give(owner, owner).map_err(failed(join))?;
        let payload = Payload::new(
            &self.plan.process,
            self.hostname,
            self.stdio.clone(),
            Rc::clone(&self.report),
            Rc::clone(&self.seccomp),
        );
        let mut kept = payload.descriptors().to_vec();
        kept.push(self.init_pidfd.as_raw_fd());
        fork::close_all_but(&kept).map_err(failed(join))?;
        credentials::join_as_root(self.init_pidfd).map_err(failed(join))?;
        // Only a child is born into the pid namespace that was joined; as a sibling, the reaper is
        // its parent.
        let (pid, pidfd) = fork::fork_sibling(move || {
            // A fresh child leads no process group yet, so this cannot fail.
            let _ = rustix::process::setsid();
            payload.execute()
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
