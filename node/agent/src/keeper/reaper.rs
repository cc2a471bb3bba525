//! The reaper: the parent, inside the container's pid namespace, of all that exec starts.
//!
//! ```text
//! keeper ──fork──▶ (enters the pid namespace) ──fork──▶ reaper ──fork──▶ tenant ──fork──▶ program
//!    ▲                                                    │ ▲                               │
//!    └──────────────── Reaped {pid, status} ──────────────┘ └── orphans of the program ◀────┘
//! ```
//! Owner: the keeper makes it for a container's first exec; it ends with the container, or with the
//! keeper. Why: an orphan goes to the nearest subreaper in its own pid namespace, else to the
//! container's first process, which is the image's and often never waits; zombies would then use up
//! the container's process limit.
//! Invariants: it holds no descriptor of the container's processes once they are forked, and executes
//! nothing; it belongs to the host's user namespace and to the keepers' control group, so the container
//! can neither signal nor trace it (it is not dumpable either), nor does it count against the container's limits.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    rc::Rc,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{DumpableBehavior, Signal, WaitOptions, set_dumpable_behavior, wait},
};
use serde::{Deserialize, Serialize};
use teu_protocol::message::decode_record;

use super::{
    payload::ChildStdio,
    plan::{ExecPlan, IdRange},
    report::Report,
    stub::failed,
    tenant::Tenant,
    wire::{ExitStatus, StartStep},
};
use crate::sys::{
    cgroup::Cgroup,
    fork::{self, ForkOptions},
    namespaces,
    seccomp::SeccompProgram,
    seqpacket,
};

/// What it is called in the container's process list.
const NAME: &std::ffi::CStr = c"teu-reaper";

/// Descriptors of a request: plan, report, three streams.
const REQUEST_FDS: usize = 5;

/// What a reaper inherits from its keeper.
#[derive(Debug)]
pub(super) struct ReaperParts {
    pub hostname: String,
    pub ids: IdRange,
    /// The container's first process.
    pub init_pidfd: OwnedFd,
    /// The container's group.
    pub cgroup: Cgroup,
    pub seccomp: Rc<SeccompProgram>,
}

/// A process inside the container that the reaper has waited for; not only programs that exec started.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Reaped {
    /// As the container sees it.
    pub pid: i32,
    pub status: ExitStatus,
}

/// The keeper's end.
#[derive(Debug)]
pub(super) struct Reaper {
    pub socket: OwnedFd,
}

impl Reaper {
    /// Makes the process. If it cannot live, its socket ends.
    ///
    /// # Errors
    /// What socketpair(2) or fork(2) said.
    pub(super) fn start(parts: ReaperParts) -> io::Result<Self> {
        let (ours, theirs) = seqpacket::pair()?;
        // Neither may wait for the other: the reaper waits for the keeper, never the other way.
        rustix::io::ioctl_fionbio(&ours, true)?;
        fork::fork(ForkOptions::default(), move || {
            // The container sees what lives in its namespace: nothing of this may be looked into, not even
            // before the first step below.
            let hidden = set_dumpable_behavior(DumpableBehavior::NotDumpable).is_ok();
            if !hidden || namespaces::join_pid(&parts.init_pidfd).is_err() {
                return 1;
            }
            // Only a child is born into the namespace; as a sibling it is the keeper's.
            let options = ForkOptions {
                into_cgroup: None,
                as_sibling: true,
            };
            i32::from(fork::fork(options, move || parts.live(&theirs)).is_err())
        })?;
        Ok(Self { socket: ours })
    }

    /// Has a process started. What comes of it is told over `report`.
    ///
    /// # Errors
    /// The reaper is dead, or busy beyond measure.
    pub(super) fn exec(
        &self,
        plan: &ExecPlan,
        stdio: &ChildStdio,
        report: &OwnedFd,
    ) -> io::Result<()> {
        use io::Write;
        let file = rustix::fs::memfd_create("teu-exec", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut file = std::fs::File::from(file);
        file.write_all(&rmp_serde::to_vec_named(plan).map_err(io::Error::other)?)?;
        let fds = [
            file.as_fd(),
            report.as_fd(),
            stdio.stdin.as_fd(),
            stdio.stdout.as_fd(),
            stdio.stderr.as_fd(),
        ];
        seqpacket::send(&self.socket, b"exec", &fds)
    }

    /// What it has reaped since the last call, and whether it lives.
    pub(super) fn reaped(&self) -> (Vec<Reaped>, bool) {
        let mut all = Vec::new();
        loop {
            match seqpacket::receive(&self.socket, false) {
                Ok(Some(packet)) => all.extend(decode_record::<Reaped>(&packet.bytes).ok()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (all, true),
                Ok(None) | Err(_) => return (all, false),
            }
        }
    }
}

impl ReaperParts {
    /// The reaper's whole life; the result is its exit code.
    fn live(self, socket: &OwnedFd) -> i32 {
        i32::from(self.serve(socket).is_err())
    }

    fn serve(&self, socket: &OwnedFd) -> io::Result<()> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        fork::adopt_orphans()?;
        let _ = rustix::thread::set_name(NAME);
        fork::close_all_but(&[socket.as_raw_fd(), self.init_pidfd.as_raw_fd()])?;
        let signals = fork::signal_fd(&[libc::SIGCHLD])?;
        fork::return_memory_early();
        loop {
            let mut ready = [
                PollFd::new(socket, PollFlags::IN),
                PollFd::new(&signals, PollFlags::IN),
            ];
            match poll(&mut ready, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let asked = !ready[0].revents().is_empty();
            reap(socket, &signals)?;
            if asked {
                match seqpacket::receive(socket, false) {
                    Ok(Some(packet)) => self.start_tenant(packet),
                    Ok(None) => return Ok(()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// The descriptors are closed here as soon as the tenant has them.
    fn start_tenant(&self, packet: seqpacket::Packet) {
        let Ok([plan, report, stdin, stdout, stderr]): Result<[OwnedFd; REQUEST_FDS], _> =
            packet.fds.try_into()
        else {
            return;
        };
        let report = Rc::new(report);
        let join = StartStep::JoinContainer;
        let forked = read_plan(plan).and_then(|plan| {
            let cgroup = self.cgroup.below(&plan.id.to_string());
            let tenant = Tenant {
                plan: &plan,
                hostname: &self.hostname,
                ids: self.ids,
                init_pidfd: &self.init_pidfd,
                cgroup: &cgroup,
                stdio: ChildStdio {
                    stdin: Rc::new(stdin),
                    stdout: Rc::new(stdout),
                    stderr: Rc::new(stderr),
                },
                report: Rc::clone(&report),
                seccomp: Rc::clone(&self.seccomp),
            };
            tenant.fork()
        });
        if let Err(error) = forked {
            let _ = Report::Failed(failed(join)(error)).send(&*report, None);
        }
    }
}

fn read_plan(fd: OwnedFd) -> io::Result<ExecPlan> {
    let mut file = std::fs::File::from(fd);
    io::Seek::rewind(&mut file)?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut file, &mut bytes)?;
    decode_record(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn reap(socket: &OwnedFd, signals: &OwnedFd) -> io::Result<()> {
    // Merged signals: the descriptor only tells that there is something.
    let mut discard = [0; 128 * 4];
    let _ = rustix::io::read(signals, &mut discard);
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        let Some(status) = ExitStatus::of(status) else {
            continue;
        };
        let pid = pid.as_raw_nonzero().get();
        let bytes = rmp_serde::to_vec(&Reaped { pid, status }).map_err(io::Error::other)?;
        seqpacket::send(socket, &bytes, &[])?;
    }
    Ok(())
}
