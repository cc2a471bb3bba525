//! What happens to a container: outcomes of effects, and what its keeper tells.
//!
//! Owner: [`super::Container`]; the diagram is there. Next: [`super::wishes`] for what is ordered.

use std::net::Ipv4Addr;

use teu_protocol::{
    ids::ProcessId,
    message::{Cause, ExitStatus, NodeEvent, NodeReplyBody, Refusal, RefusalCode, Termination},
};

use super::{Container, Fate, LOST, Out, Phase};
use crate::{
    effect::Effect,
    input::{Now, ProcessEnd},
};

impl Container {
    pub(crate) fn prepared(
        &mut self,
        result: Result<Ipv4Addr, Refusal>,
        now: Now,
        out: &mut Out<'_>,
    ) -> Fate {
        let Phase::Preparing { asleep, end } = self.phase else {
            return Fate::Stays;
        };
        let ip = match result {
            Ok(ip) => ip,
            Err(refusal) => {
                let spawns = std::mem::take(&mut self.spawn_waits);
                out.answer_all(spawns, &Err(refusal));
                let destroys = std::mem::take(&mut self.destroy_waits);
                out.answer_all(destroys, &Ok(NodeReplyBody::Done));
                return Fate::Gone;
            }
        };
        self.record.ip = Some(ip);
        if asleep && end.is_none() {
            self.phase = Phase::Asleep;
        } else {
            self.phase = Phase::Running;
            self.record.since_ms = Some(now.unix_ms);
        }
        if !self.destroy_waits.is_empty() {
            self.refuse_waits(out);
            self.remove(out);
            return Fate::Stays;
        }
        if self.phase == Phase::Running {
            self.release_ended_readers(out);
        }
        if let Some(termination) = end {
            self.end(termination, now, out);
        }
        let spawned = self.spawned();
        out.answer_all(std::mem::take(&mut self.spawn_waits), &spawned);
        Fate::Stays
    }

    pub(crate) fn woken(&mut self, result: Result<(), Refusal>, now: Now, out: &mut Out<'_>) {
        let Phase::Waking { end } = self.phase else {
            return;
        };
        match result {
            Ok(()) => {
                self.phase = Phase::Running;
                self.record.since_ms = Some(now.unix_ms);
                out.effects
                    .push(Effect::Persist(Box::new(self.record.clone())));
                self.release_ended_readers(out);
                if let Some(termination) = end {
                    self.end(termination, now, out);
                } else {
                    self.tell(out);
                }
                let state = Ok(NodeReplyBody::State(self.state()));
                out.answer_all(std::mem::take(&mut self.wake_waits), &state);
            }
            Err(refusal) => {
                let status = ExitStatus::Code(match refusal.code {
                    RefusalCode::CommandNotFound => 127,
                    RefusalCode::CommandNotExecutable => 126,
                    _ => 125,
                });
                let failed = Termination {
                    status,
                    cause: Cause::Exited,
                };
                self.end(end.unwrap_or(failed), now, out);
                out.answer_all(std::mem::take(&mut self.wake_waits), &Err(refusal));
            }
        }
        if !self.destroy_waits.is_empty() && self.phase == Phase::Running {
            self.refuse_waits(out);
            self.remove(out);
        }
    }

    pub(crate) fn exited(&mut self, end: ProcessEnd, now: Now, out: &mut Out<'_>) {
        let termination = self.why(end);
        self.ended_with(termination, now, out);
    }

    pub(crate) fn keeper_lost(&mut self, now: Now, out: &mut Out<'_>) {
        // While it is prepared the worker sees it itself and answers.
        if !matches!(self.phase, Phase::Preparing { .. }) {
            self.ended_with(LOST, now, out);
        }
    }

    fn ended_with(&mut self, termination: Termination, now: Now, out: &mut Out<'_>) {
        match &mut self.phase {
            Phase::Preparing { end, .. } | Phase::Waking { end } => {
                end.get_or_insert(termination);
            }
            Phase::Asleep | Phase::Running => self.end(termination, now, out),
            Phase::Removing if self.ended.is_none() => {
                self.ended = Some((termination, now.unix_ms));
                self.tell_end(termination, out);
            }
            Phase::Exited { .. } | Phase::Removing | Phase::Stuck => {}
        }
    }

    fn end(&mut self, termination: Termination, now: Now, out: &mut Out<'_>) {
        self.phase = Phase::Exited { released: false };
        self.ended = Some((termination, now.unix_ms));
        self.kill_at = None;
        self.tell_end(termination, out);
        self.tell(out);
        let state = Ok(NodeReplyBody::State(self.state()));
        out.answer_all(std::mem::take(&mut self.stop_waits), &state);
        let (container, ip) = (self.id(), self.record.ip);
        out.effects.push(Effect::Release {
            container,
            revoke: Vec::new(),
            ip,
        });
    }

    fn tell_end(&self, termination: Termination, out: &mut Out<'_>) {
        let (container, process) = (self.id(), self.id().main_process());
        out.effects.push(Effect::Ended {
            container,
            process,
            termination,
        });
    }

    pub(crate) fn released(&mut self, out: &mut Out<'_>) {
        let Phase::Exited {
            released: released @ false,
        } = &mut self.phase
        else {
            return;
        };
        *released = true;
        self.record.ip = None;
        self.record.allowed_from.clear();
        self.end_processes(out);
        if self.destroy_waits.is_empty() {
            out.effects
                .push(Effect::Persist(Box::new(self.record.clone())));
        } else {
            self.remove(out);
        }
    }

    pub(crate) fn removed(&mut self, result: Result<(), Refusal>, out: &mut Out<'_>) -> Fate {
        if self.phase != Phase::Removing {
            return Fate::Stays;
        }
        let waits = std::mem::take(&mut self.destroy_waits);
        match result {
            Ok(()) => {
                if self.ended.is_none() {
                    self.tell_end(LOST, out);
                }
                self.end_processes(out);
                let starts = self.processes.take_waiting();
                out.answer_all(starts, &Err(destroyed_meanwhile()));
                out.answer_all(waits, &Ok(NodeReplyBody::Done));
                Fate::Gone
            }
            Err(refusal) => {
                self.phase = Phase::Stuck;
                out.answer_all(waits, &Err(refusal));
                Fate::Stays
            }
        }
    }

    pub(super) fn remove(&mut self, out: &mut Out<'_>) {
        self.phase = Phase::Removing;
        self.stop_asked = true;
        self.kill_at = None;
        let (container, ip) = (self.id(), self.record.ip);
        out.effects.push(Effect::Remove {
            container,
            revoke: Vec::new(),
            ip,
        });
    }

    /// Whoever waits for something that a destroyed container will not do.
    pub(super) fn refuse_waits(&mut self, out: &mut Out<'_>) {
        let gone = Refusal::new(
            RefusalCode::NotFound,
            "the container was destroyed meanwhile",
        );
        let waits = [
            &mut self.spawn_waits,
            &mut self.wake_waits,
            &mut self.stop_waits,
        ];
        for waiting in waits {
            out.answer_all(std::mem::take(waiting), &Err(gone.clone()));
        }
    }

    /// A restarted agent must know whose they are.
    fn remember_processes(&mut self, out: &mut Out<'_>) {
        let running = self.processes.remembered();
        if self.has_network() && running != self.record.processes {
            self.record.processes = running;
            out.effects
                .push(Effect::Persist(Box::new(self.record.clone())));
        }
    }

    /// The kernel told no end of these, but their sandbox is gone.
    fn end_processes(&mut self, out: &mut Out<'_>) {
        let status = ExitStatus::Signal(9);
        for process in self.processes.running() {
            self.process_ended(
                process,
                ProcessEnd {
                    status,
                    out_of_memory: false,
                    timed_out: false,
                },
                out,
            );
        }
    }

    pub(crate) fn process_started(
        &mut self,
        process: ProcessId,
        result: Result<(), Refusal>,
        out: &mut Out<'_>,
    ) {
        let container = self.id();
        let started = self.processes.started(container, process, result.is_ok());
        self.remember_processes(out);
        out.answer_all(started.waiting, &result.map(|()| NodeReplyBody::Done));
        if let Some(info) = started.ended {
            out.effects.push(Effect::Tell(NodeEvent::Process(info)));
        }
        if let Some(process) = started.forgotten {
            out.effects
                .push(Effect::ForgetProcess { container, process });
        }
        if !self.has_network() {
            self.end_processes(out);
        }
    }

    pub(crate) fn process_ended(&mut self, process: ProcessId, end: ProcessEnd, out: &mut Out<'_>) {
        if !self.processes.is_known(process) {
            return;
        }
        let container = self.id();
        let cause = if end.timed_out && end.status != ExitStatus::Code(0) {
            Cause::TimedOut
        } else if end.out_of_memory && end.status != ExitStatus::Code(0) {
            Cause::OutOfMemory
        } else if self.processes.was_signalled(process) || self.stop_asked {
            Cause::Stopped
        } else {
            Cause::Exited
        };
        let termination = Termination {
            status: end.status,
            cause,
        };
        out.effects.push(Effect::Ended {
            container,
            process,
            termination,
        });
        let (info, forgotten) = self.processes.end(container, process, termination);
        self.remember_processes(out);
        if let Some(info) = info {
            out.effects.push(Effect::Tell(NodeEvent::Process(info)));
        }
        if let Some(process) = forgotten {
            out.effects
                .push(Effect::ForgetProcess { container, process });
        }
    }
}

fn destroyed_meanwhile() -> Refusal {
    Refusal::new(
        RefusalCode::NotFound,
        "the container was destroyed meanwhile",
    )
}
