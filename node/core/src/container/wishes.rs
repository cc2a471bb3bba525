//! What is ordered of a container.
//!
//! Owner: [`super::Container`]; the diagram is there. Invariant: an order is answered now, or it is
//! in one of the waiting lists, each of which is emptied by the event that it waits for and by the
//! container's end. Next: [`super::life`] for these events.

use std::time::Duration;

use teu_protocol::{
    ids::{ProcessId, RequestId},
    image_config::signal::Signal,
    message::{NodeReplyBody, RefusalCode},
};

use super::{Container, Out, Phase, wrong_state};
use crate::{effect::Effect, input::Now};

/// A process that ignores even SIGKILL hangs in the kernel: look again after this.
const KILL_AGAIN_AFTER: Duration = Duration::from_secs(5);

impl Container {
    /// The same spawn again (under another request id): it is there already.
    pub(crate) fn spawn_again(&mut self, request: RequestId, out: &mut Out<'_>) {
        match self.phase {
            Phase::Preparing { .. } => self.spawn_waits.push(request),
            Phase::Removing | Phase::Stuck => {
                out.refuse(
                    request,
                    RefusalCode::NotFound,
                    "the container is being destroyed",
                );
            }
            _ => {
                let spawned = self.spawned();
                out.answer(request, spawned);
            }
        }
    }

    pub(crate) fn wake(&mut self, request: RequestId, out: &mut Out<'_>) {
        match self.phase {
            Phase::Asleep => {
                self.phase = Phase::Waking { end: None };
                self.wake_waits.push(request);
                out.effects.push(Effect::Wake(self.id()));
            }
            Phase::Waking { .. } => self.wake_waits.push(request),
            Phase::Running => {
                let state = self.state();
                out.answer(request, Ok(NodeReplyBody::State(state)));
            }
            Phase::Preparing { .. } => {
                out.answer(
                    request,
                    Err(wrong_state("the container is still being prepared")),
                );
            }
            Phase::Exited { .. } | Phase::Removing | Phase::Stuck => {
                let message = "the container has exited and cannot be woken; spawn it again";
                out.answer(request, Err(wrong_state(message)));
            }
        }
    }

    pub(crate) fn stop(
        &mut self,
        request: RequestId,
        signal: Option<Signal>,
        grace_ms: u32,
        now: Now,
        out: &mut Out<'_>,
    ) {
        match self.phase {
            Phase::Running => {
                self.stop_asked = true;
                self.stop_waits.push(request);
                let kill_at = now.steady + Duration::from_millis(u64::from(grace_ms));
                self.kill_at = Some(self.kill_at.map_or(kill_at, |old| old.min(kill_at)));
                let signal = signal.unwrap_or(self.record.process.stop_signal);
                self.send_signal(if grace_ms == 0 { Signal::KILL } else { signal }, out);
            }
            Phase::Exited { .. } => {
                let state = self.state();
                out.answer(request, Ok(NodeReplyBody::State(state)));
            }
            Phase::Asleep | Phase::Waking { .. } => {
                let message = "the container is asleep: wake it first, or destroy it";
                out.answer(request, Err(wrong_state(message)));
            }
            Phase::Preparing { .. } => {
                out.answer(
                    request,
                    Err(wrong_state("the container is still being prepared")),
                );
            }
            Phase::Removing | Phase::Stuck => {
                out.refuse(
                    request,
                    RefusalCode::NotFound,
                    "the container is being destroyed",
                );
            }
        }
    }

    /// The grace is over.
    pub(crate) fn tick(&mut self, now: Now, out: &mut Out<'_>) {
        if self.kill_at.is_some_and(|at| at <= now.steady) {
            self.kill_at = Some(now.steady + KILL_AGAIN_AFTER);
            self.send_signal(Signal::KILL, out);
        }
    }

    fn send_signal(&self, signal: Signal, out: &mut Out<'_>) {
        let (container, process) = (self.id(), self.id().main_process());
        out.effects.push(Effect::Signal {
            request: None,
            container,
            process,
            signal,
        });
    }

    pub(crate) fn signal(
        &mut self,
        request: RequestId,
        process: Option<ProcessId>,
        signal: Signal,
        out: &mut Out<'_>,
    ) {
        let main = self.id().main_process();
        let process = process.unwrap_or(main);
        if process != main && !self.processes.is_known(process) {
            return out.refuse(request, RefusalCode::NotFound, "there is no such process");
        }
        if !self.is_running() || (process != main && !self.processes.runs(process)) {
            return out.answer(request, Err(wrong_state("the process is not running")));
        }
        if process == main {
            self.stop_asked |= signal.ends_by_default();
        } else if signal.ends_by_default() {
            self.processes.signalled(process);
        }
        let (request, container) = (Some(request), self.id());
        out.effects.push(Effect::Signal {
            request,
            container,
            process,
            signal,
        });
    }

    pub(crate) fn destroy(&mut self, request: RequestId, out: &mut Out<'_>) {
        self.destroy_waits.push(request);
        match self.phase {
            Phase::Preparing { .. } if self.destroy_waits.len() == 1 => {
                out.effects.push(Effect::Cancel(self.id()));
            }
            // Its worker is busy; what comes of that leads on.
            Phase::Preparing { .. }
            | Phase::Waking { .. }
            | Phase::Exited { released: false }
            | Phase::Removing => {}
            Phase::Asleep | Phase::Running | Phase::Exited { released: true } | Phase::Stuck => {
                self.refuse_waits(out);
                self.remove(out);
            }
        }
    }
}
