//! Processes that are being made: from the fork of a stub or tenant to "it executes" or "it cannot".
//!
//! Owner: the supervisor. Invariant: a request to start is answered once, after the program
//! executes; a child that died in between is not lost.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    time::{Duration, Instant},
};

use teu_protocol::ids::{AttachmentId, ProcessId, ReaderId};

use super::{Stage, Supervisor};
use crate::{
    keeper::{
        log::LogWriter,
        places::Speaker,
        plan::ExecPlan,
        process::{Pipes, Process},
        reaper::{Reaper, ReaperParts},
        report::Report,
        stub::Stub,
        wire::{Outcome, Refusal, StartStep, Started},
    },
    sys::{
        cgroup::Cgroup,
        fork::{self, ForkOptions},
        seqpacket,
    },
};

/// A process on its way.
pub(super) struct Launch {
    pub id: ProcessId,
    pub socket: OwnedFd,
    pub pipes: Pipes,
    pub wanted: Option<Wanted>,
    pub terminal: Option<OwnedFd>,
    pub created: Option<(i32, Vec<(String, u32)>)>,
    pub failure: Option<Refusal>,
    /// Of a further process, whose pid is the reaper's to know.
    pub pidfd: Option<OwnedFd>,
    pub cgroup: Option<Cgroup>,
}

/// What the agent asked for.
pub(super) struct Wanted {
    pub number: u64,
    pub log: LogWriter,
    pub open_stdin: bool,
    pub reader: Option<(ReaderId, AttachmentId)>,
    pub timeout_ms: Option<u64>,
}

/// A stub that waits has no container yet; its place in the table needs a name.
const NOBODY: ProcessId = ProcessId::from_bytes([0; 16]);

impl Supervisor {
    pub(super) fn fork_stub(&self) -> io::Result<Launch> {
        let (ours, theirs) = seqpacket::pair()?;
        let (pipes, stdio) = Pipes::new()?;
        let stub = Stub {
            cgroup: self.cgroup.clone(),
            hierarchies: self.config.hierarchies.clone(),
            stdio,
            report: Rc::new(theirs),
            seccomp: Rc::clone(&self.config.seccomp),
        };
        fork::fork(ForkOptions::default(), move || stub.run())?;
        Ok(Launch::new(NOBODY, ours, pipes))
    }

    pub(super) fn fork_tenant(&mut self, plan: &ExecPlan, number: u64) -> Result<Launch, Refusal> {
        let step = StartStep::JoinContainer;
        // A dead one is noticed here at the latest.
        self.reap_inside();
        let reaper = match self.reaper.take() {
            Some(reaper) => reaper,
            None => self.make_reaper()?,
        };
        let reaper = &*self.reaper.insert(reaper);
        let Some(container) = &self.container else {
            return Err(Refusal::NotRunning);
        };
        let log = LogWriter::open(
            &container.dir.join(crate::keeper::LOG_DIR),
            plan.id,
            container.log,
        )
        .map_err(crate::keeper::stub::failed(StartStep::OpenLog))?;
        let failed = crate::keeper::stub::failed::<io::Error>(step);
        let (ours, theirs) = seqpacket::pair().map_err(&failed)?;
        let (pipes, stdio) = Pipes::new().map_err(&failed)?;
        let cgroup = self.cgroup.below(&plan.id.to_string());
        cgroup
            .create_tracking()
            .map_err(crate::keeper::stub::failed(step))?;
        if let Err(error) = reaper.exec(plan, &stdio, &theirs) {
            let _ = cgroup.remove_tracking();
            return Err(failed(error));
        }
        let mut launch = Launch::new(plan.id, ours, pipes);
        launch.wanted = Some(Wanted {
            number,
            log,
            open_stdin: plan.process.open_stdin,
            reader: plan.process.reader,
            timeout_ms: plan.process.timeout_ms,
        });
        launch.cgroup = Some(cgroup);
        Ok(launch)
    }

    fn make_reaper(&self) -> Result<Reaper, Refusal> {
        let (Some(container), Some(init)) = (&self.container, self.main_process()) else {
            return Err(Refusal::NotRunning);
        };
        let Some(init_pidfd) = &init.pidfd else {
            return Err(Refusal::NotRunning);
        };
        let failed = crate::keeper::stub::failed::<io::Error>(StartStep::JoinContainer);
        Reaper::start(ReaperParts {
            hostname: container.hosts.hostname.clone(),
            ids: container.ids,
            init_pidfd: init_pidfd.try_clone().map_err(&failed)?,
            cgroup: self.cgroup.clone(),
            seccomp: Rc::clone(&self.config.seccomp),
        })
        .map_err(failed)
    }

    pub(super) fn main_process(&self) -> Option<&Process> {
        let id = self.container.as_ref()?.id.main_process();
        self.processes.get(&id)
    }

    /// Something came over a launch's socket.
    pub(super) fn follow_launch(&mut self, id: ProcessId) {
        let is_stub = self.stub.as_ref().is_some_and(|stub| stub.id == id);
        let launch = if is_stub {
            self.stub.as_mut()
        } else {
            self.launches.get_mut(&id)
        };
        let Some(launch) = launch else { return };
        loop {
            match seqpacket::receive(&launch.socket, false) {
                Ok(Some(packet)) => match Report::parse(&packet.bytes) {
                    Ok(Report::Warm) => {
                        self.stage = Stage::Warm;
                        self.greet();
                        return;
                    }
                    Ok(Report::Created { pid, steps_us }) => {
                        launch.created = Some((pid, steps_us));
                        launch.pidfd = packet.fds.into_iter().next();
                    }
                    Ok(Report::Terminal) => launch.terminal = packet.fds.into_iter().next(),
                    Ok(Report::Failed(refusal)) => {
                        // The first failure is the cause of those after it.
                        launch.failure.get_or_insert(refusal);
                    }
                    Err(_) => {}
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(None) | Err(_) => break,
            }
        }
        if is_stub {
            self.stub_ended();
        } else if let Some(launch) = self.launches.remove(&id) {
            self.conclude(launch);
            if self.launches.is_empty() {
                self.reaped.clear();
                self.reaped_inside.clear();
            }
        }
    }

    /// A stub that ends without a plan: the slot is of no use.
    fn stub_ended(&mut self) {
        let failure = self.stub.take().and_then(|stub| stub.failure);
        let reason = failure.map_or_else(|| "the stub died".to_owned(), |one| one.to_string());
        self.stage = Stage::Broken(reason);
        self.greet();
    }

    /// The socket has ended: the process executes, or never will.
    fn conclude(&mut self, launch: Launch) {
        let is_main = self
            .container
            .as_ref()
            .is_some_and(|one| one.id.main_process() == launch.id);
        let number = launch.wanted.as_ref().map(|wanted| wanted.number);
        let cgroup = launch.cgroup.clone();
        let log = launch.wanted.as_ref().map(|wanted| wanted.log.path());
        match launch.into_process() {
            Ok((process, steps_us)) => {
                let (id, pid, inside) = (process.id, process.pid, process.pid_inside);
                self.processes.insert(id, process);
                if is_main {
                    self.stage = Stage::Running;
                }
                if let Some(number) = number {
                    self.reply(number, Outcome::Started(Started { pid, steps_us }));
                }
                let early = match inside {
                    Some(inside) => self.reaped_inside.remove(&inside),
                    None => self.reaped.remove(&pid),
                };
                if let Some(status) = early {
                    self.process_ended(id, status);
                }
            }
            Err(refusal) => {
                let refusal = self.explained(refusal);
                if let Some(cgroup) = cgroup {
                    let _ = cgroup.remove_tracking();
                }
                if is_main {
                    self.stage = Stage::Ending;
                } else if let Some(log) = log {
                    // Nobody knows the process, so nobody would remove it. Whoever hears the refusal
                    // finds nothing of it.
                    let _ = std::fs::remove_file(log);
                }
                if let Some(number) = number {
                    self.refuse(number, refusal);
                }
            }
        }
    }
}

impl Supervisor {
    /// What the kernel's word for a failed start means here.
    pub(super) fn explained(&self, refusal: Refusal) -> Refusal {
        let Refusal::Failed {
            step: StartStep::JoinContainer | StartStep::CreateContainer,
            reason,
        } = &refusal
        else {
            return refusal;
        };
        if self.main_process().is_some_and(Process::is_dead) {
            return Refusal::NotRunning;
        }
        let no_process_more = reason.contains(EAGAIN_TEXT) || reason.contains("EAGAIN");
        match self.cgroup.pids() {
            pids if no_process_more && pids.len() as u64 + 2 >= self.pids_limit() => {
                Refusal::PidsLimit {
                    limit: self.pids_limit(),
                }
            }
            _ => refusal,
        }
    }

    fn pids_limit(&self) -> u64 {
        self.container
            .as_ref()
            .map_or(u64::MAX, |one| u64::from(one.pids))
    }
}

/// What a failed fork(2) says at the limit of processes.
const EAGAIN_TEXT: &str = "os error 11";

impl Launch {
    fn new(id: ProcessId, socket: OwnedFd, pipes: Pipes) -> Self {
        Self {
            id,
            socket,
            pipes,
            wanted: None,
            terminal: None,
            created: None,
            failure: None,
            pidfd: None,
            cgroup: None,
        }
    }

    /// Hands the plan and the trees of its volumes to a waiting stub.
    pub(super) fn give_plan(
        &self,
        plan: &crate::keeper::StartPlan,
        trees: &[OwnedFd],
    ) -> io::Result<()> {
        use io::Write;
        let file = rustix::fs::memfd_create("teu-plan", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut file = std::fs::File::from(file);
        let bytes = rmp_serde::to_vec_named(plan).map_err(io::Error::other)?;
        file.write_all(&bytes)?;
        let fds: Vec<_> = std::iter::once(file.as_fd())
            .chain(trees.iter().map(AsFd::as_fd))
            .collect();
        seqpacket::send(&self.socket, b"plan", &fds)
    }

    fn into_process(self) -> Result<(Process, Vec<(String, u32)>), Refusal> {
        if let Some(refusal) = self.failure {
            return Err(refusal);
        }
        let died = || Refusal::Failed {
            step: StartStep::CreateContainer,
            reason: "the process that makes it died (out of memory?)".to_owned(),
        };
        let (pid, steps_us) = self.created.ok_or_else(died)?;
        let wanted = self.wanted.ok_or_else(died)?;
        let mut process = match self.terminal {
            None => Process::with_pipes(self.id, pid, wanted.log, self.pipes, wanted.open_stdin),
            Some(master) => {
                Process::with_terminal(self.id, pid, wanted.log, master, wanted.open_stdin)
                    .map_err(crate::keeper::stub::failed(StartStep::MakeTerminal))?
            }
        };
        process.cgroup = self.cgroup;
        if let Some((reader, owner)) = wanted.reader {
            // Before anything of its output is read.
            let speaker = Speaker {
                reader,
                generation: 0,
            };
            process.place(speaker, Some(owner), Some(0))?;
        }
        process.deadline = wanted
            .timeout_ms
            .and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)));
        if let Some(pidfd) = self.pidfd {
            process.pid_inside = Some(pid);
            process.pid = fork::pid_of(&pidfd);
            process.pidfd = Some(pidfd);
        }
        Ok((process, steps_us))
    }
}
