//! What the agent asks a keeper to do.
//!
//! Owner: the supervisor. Invariant: every request gets exactly one reply; starts and destroys get
//! theirs when the thing has happened.

use teu_protocol::{
    ids::{ProcessId, ReaderId},
    image_config::signal::Signal,
};

use super::{Container, Stage, Supervisor, launch::Wanted};
use crate::{
    keeper::{
        LOG_DIR,
        log::LogWriter,
        places::Speaker,
        plan::{ExecPlan, HostEntry, StartPlan},
        stub::{HostsHead, failed, write_hosts},
        wire::{KeeperEvent, Outcome, Refusal, Request, RequestBody, SignalScope, StartStep},
    },
    sys::{fork, pty, rootfs::Root},
};

/// Processes that a keeper remembers. Ended ones count until they are forgotten; beyond this,
/// those whose end was told make room.
const PROCESSES_MAX: usize = 256;

impl Supervisor {
    pub(super) fn request(&mut self, request: Request) {
        let number = request.number;
        let outcome = match request.body {
            RequestBody::Start(plan) => self.start(number, &plan),
            RequestBody::Exec(plan) => self.exec(number, &plan),
            RequestBody::Destroy => {
                self.destroy(number);
                return;
            }
            RequestBody::Signal {
                process,
                signal,
                scope,
            } => self.signal(&process, signal, scope).map(Some),
            RequestBody::Resize {
                process,
                rows,
                columns,
            } => self.resize(&process, rows, columns).map(Some),
            RequestBody::Stdin {
                process,
                bytes,
                eof,
            } => self.stdin(&process, &bytes, eof).map(Some),
            RequestBody::Ack {
                process,
                follower,
                cursor,
            } => self.acknowledge(&process, follower, cursor).map(Some),
            RequestBody::Place {
                process,
                reader,
                generation,
                owner,
                cursor,
            } => {
                let speaker = Speaker { reader, generation };
                let placed = self.known(&process);
                let placed = placed.and_then(|one| one.place(speaker, owner, cursor));
                return self.answer_placed(number, placed);
            }
            RequestBody::Release {
                process,
                reader,
                generation,
            } => self
                .known(&process)
                .map(|one| one.places.release(Speaker { reader, generation }))
                .map(Some),
            RequestBody::ReleaseOwned { owner } => {
                for process in self.processes.values_mut() {
                    process.places.release_owned(owner);
                }
                Ok(Some(()))
            }
            RequestBody::Input {
                process,
                reader,
                generation,
                offset,
                bytes,
                eof,
            } => {
                let speaker = Speaker { reader, generation };
                let taken = self.input(&process, speaker, offset, &bytes, eof);
                return self.answer_placed(number, taken);
            }
            RequestBody::Unwritten { process, cursor } => {
                let output = self.known(&process).map(|one| one.unwritten(cursor));
                let outcome = output.map_or_else(Outcome::Refused, Outcome::Output);
                return self.reply(number, outcome);
            }
            RequestBody::Ping => Ok(Some(())),
            RequestBody::Forget { process } => self.forget(&process).map(Some),
            RequestBody::WriteHosts { hosts } => self.write_hosts(&hosts).map(Some),
        };
        match outcome {
            Ok(Some(())) => self.reply(number, Outcome::Done),
            // Answered when it has happened.
            Ok(None) => {}
            Err(refusal) => self.refuse(number, refusal),
        }
    }

    fn known(
        &mut self,
        process: &ProcessId,
    ) -> Result<&mut crate::keeper::process::Process, Refusal> {
        self.processes
            .get_mut(process)
            .ok_or(Refusal::NoSuchProcess)
    }

    fn start(&mut self, number: u64, plan: &StartPlan) -> Result<Option<()>, Refusal> {
        let trees = self
            .agent
            .as_mut()
            .map_or_else(Vec::new, |agent| agent.take_fds(plan.mounts.len()));
        if !matches!(self.stage, Stage::Warm) {
            return Err(Refusal::NotWarm);
        }
        let Some(mut launch) = self.stub.take() else {
            return Err(Refusal::NotWarm);
        };
        let id = plan.container.main_process();
        let prepared = self
            .cgroup
            .limit(&plan.limits)
            .map_err(failed(StartStep::SetLimits))
            .and_then(|()| {
                LogWriter::open(&plan.dir.join(LOG_DIR), id, plan.log)
                    .map_err(failed(StartStep::OpenLog))
            })
            .and_then(|log| {
                launch
                    .give_plan(plan, &trees)
                    .map_err(failed(StartStep::ReadPlan))?;
                Ok(log)
            });
        // From here on the slot is spent, whatever comes of it.
        self.stage = Stage::Ending;
        let log = prepared?;
        self.stage = Stage::Starting;
        launch.id = id;
        launch.wanted = Some(Wanted {
            number,
            log,
            open_stdin: plan.process.open_stdin,
            reader: plan.process.reader,
            timeout_ms: plan.process.timeout_ms,
        });
        self.launches.insert(id, launch);
        self.container = Some(Container {
            id: plan.container,
            dir: plan.dir.clone(),
            ids: plan.ids,
            log: plan.log,
            pids: plan.limits.pids,
            hosts: HostsHead {
                hostname: plan.hostname.clone(),
                address: plan.address,
            },
        });
        fork::return_memory_early();
        Ok(None)
    }

    fn exec(&mut self, number: u64, plan: &ExecPlan) -> Result<Option<()>, Refusal> {
        if !matches!(self.stage, Stage::Running) {
            return Err(Refusal::NotRunning);
        }
        if self.processes.contains_key(&plan.id) || self.launches.contains_key(&plan.id) {
            return Err(Refusal::ProcessExists);
        }
        if self.processes.len() + self.launches.len() >= PROCESSES_MAX {
            let told = self
                .processes
                .values()
                .find(|one| one.told)
                .map(|one| one.id);
            self.forget(&told.ok_or(Refusal::TooManyProcesses)?)?;
        }
        let launch = self.fork_tenant(plan, number);
        let launch = launch.map_err(|refusal| self.explained(refusal))?;
        self.launches.insert(plan.id, launch);
        Ok(None)
    }

    /// The reply comes from [`Supervisor::end`], when nothing is left.
    fn destroy(&mut self, number: u64) {
        self.destroyer = Some(number);
        let main = self.container.as_ref().map(|one| one.id.main_process());
        let running = main
            .and_then(|id| self.processes.get(&id))
            .is_some_and(|one| one.ended.is_none());
        if running && self.cgroup.kill_all().is_ok() {
            // Its end is noticed as any other's, with its last output and its record.
            return;
        }
        self.stage = Stage::Ending;
    }

    fn signal(
        &mut self,
        process: &ProcessId,
        signal: Signal,
        scope: SignalScope,
    ) -> Result<(), Refusal> {
        let process = self.known(process)?;
        if signal == Signal::KILL
            && scope == SignalScope::Group
            && let Some(cgroup) = &process.cgroup
        {
            return cgroup.kill_all().map_err(failed(StartStep::Signal));
        }
        let Some(pidfd) = process.pidfd.as_ref().filter(|_| process.ended.is_none()) else {
            return Err(Refusal::NoSuchProcess);
        };
        fork::send_signal(pidfd, signal.number()).map_err(failed(StartStep::Signal))?;
        process.signalled = Some(signal.number().into());
        Ok(())
    }

    fn resize(&mut self, process: &ProcessId, rows: u16, columns: u16) -> Result<(), Refusal> {
        let terminal = self
            .known(process)?
            .terminal
            .as_ref()
            .ok_or(Refusal::NoTerminal)?;
        pty::resize(terminal, rows, columns).map_err(failed(StartStep::MakeTerminal))
    }

    fn answer_placed(&mut self, number: u64, placed: Result<u64, Refusal>) {
        let outcome = placed.map_or_else(Outcome::Refused, |input| Outcome::Placed { input });
        self.reply(number, outcome);
    }

    /// Of an agent that knows no places: one of its number, which ends with the agent.
    fn acknowledge(
        &mut self,
        process: &ProcessId,
        follower: u64,
        cursor: Option<u64>,
    ) -> Result<(), Refusal> {
        let mut reader = [0; 16];
        reader[..8].copy_from_slice(&follower.to_le_bytes());
        let speaker = Speaker {
            reader: ReaderId::from_bytes(reader),
            generation: 0,
        };
        let process = self.known(process)?;
        match cursor {
            Some(cursor) => process.place(speaker, None, Some(cursor)).map(drop),
            None => {
                process.places.release(speaker);
                Ok(())
            }
        }
    }

    fn input(
        &mut self,
        process: &ProcessId,
        speaker: Speaker,
        offset: u64,
        bytes: &[u8],
        eof: bool,
    ) -> Result<u64, Refusal> {
        let taken = self
            .known(process)?
            .take_input(speaker, offset, bytes, eof)?;
        self.pass_input_on(process, bytes)?;
        Ok(taken)
    }

    fn stdin(&mut self, process: &ProcessId, bytes: &[u8], eof: bool) -> Result<(), Refusal> {
        self.known(process)?.queue_stdin(bytes, eof)?;
        self.pass_input_on(process, bytes)
    }

    fn pass_input_on(&mut self, process: &ProcessId, bytes: &[u8]) -> Result<(), Refusal> {
        let id = *process;
        let process = self.known(process)?;
        if process.stdin_is_open() {
            self.write_stdin(id);
        } else if !bytes.is_empty() {
            // Thrown away, but the sender's credit must come back.
            let total = process.stdin_consumed();
            self.event(KeeperEvent::StdinConsumed { process: id, total });
        }
        Ok(())
    }

    /// Only an ended process can be forgotten; its log stays until the agent removes it.
    fn forget(&mut self, process: &ProcessId) -> Result<(), Refusal> {
        if self.known(process)?.ended.is_none() {
            return Err(Refusal::ProcessExists);
        }
        if let Some(cgroup) = self.processes.remove(process).and_then(|one| one.cgroup)
            && cgroup.pids().is_empty()
        {
            let _ = cgroup.remove_tracking();
        }
        Ok(())
    }

    fn write_hosts(&mut self, hosts: &[HostEntry]) -> Result<(), Refusal> {
        let (Some(container), Some(init)) = (&self.container, self.main_process()) else {
            return Err(Refusal::NotRunning);
        };
        let path = format!("/proc/{}/root", init.pid);
        let root = Root::open(std::path::Path::new(&path), container.ids)
            .map_err(failed(StartStep::WriteFiles))?;
        write_hosts(&root, &container.hosts, hosts).map_err(failed(StartStep::WriteFiles))
    }
}
