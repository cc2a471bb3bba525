//! Children of the keeper and of its reaper: their ends, and those that have run for too long.
//!
//! Owner: the supervisor. Invariant: every end is noticed once, and a further process's end is told
//! before that of the container.

use std::time::{Duration, Instant};

use rustix::process::{WaitOptions, wait};
use teu_protocol::ids::ProcessId;

use super::Supervisor;
use crate::{
    keeper::{
        reaper::{Reaped, Reaper},
        wire::ExitStatus,
    },
    sys::cgroup::Cgroup,
};

/// What does not die at once hangs in the kernel: it is killed again after this.
const KILL_AGAIN_AFTER: Duration = Duration::from_secs(5);

impl Supervisor {
    pub(super) fn reap(&mut self) {
        // Merged signals: the descriptor only tells that there is something.
        let mut discard = [0; 128 * 4];
        let _ = rustix::io::read(&self.signals, &mut discard);
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let Some(status) = ExitStatus::of(status) else {
                continue;
            };
            let pid = pid.as_raw_nonzero().get();
            match self
                .processes
                .values()
                .find(|one| one.pid == pid && one.pid_inside.is_none() && one.ended.is_none())
            {
                Some(process) => self.process_ended(process.id, status),
                None if self.launches.is_empty() => {}
                None => {
                    self.reaped.insert(pid, status);
                }
            }
        }
    }

    /// What the reaper tells. If it died, all that it was the parent of is dead or dies.
    pub(super) fn reap_inside(&mut self) {
        let Some((reaped, alive)) = self.reaper.as_ref().map(Reaper::reaped) else {
            return;
        };
        for Reaped { pid, status } in reaped {
            let known = self
                .processes
                .values()
                .find(|one| one.pid_inside == Some(pid) && one.ended.is_none());
            match known.map(|one| one.id) {
                Some(id) => self.process_ended(id, status),
                None if self.launches.is_empty() => {}
                None => drop(self.reaped_inside.insert(pid, status)),
            }
        }
        if !alive {
            self.reaper = None;
            self.end_inside();
        }
    }

    /// Nobody can tell how the further processes ended that are not known to have ended.
    pub(super) fn end_inside(&mut self) {
        let lost: Vec<ProcessId> = self
            .processes
            .values()
            .filter(|one| one.pid_inside.is_some() && one.ended.is_none())
            .map(|one| one.id)
            .collect();
        for id in lost {
            if let Some(cgroup) = self.processes.get(&id).and_then(|one| one.cgroup.as_ref()) {
                // What does not die now dies with the container.
                let _ = cgroup.kill_all();
            }
            self.process_ended(id, ExitStatus::Signal(libc::SIGKILL));
        }
    }

    /// Kills what has run for longer than it may.
    pub(super) fn end_overdue(&mut self) {
        let now = Instant::now();
        let main = self.container.as_ref().map(|one| one.id.main_process());
        for process in self.processes.values_mut() {
            if process.deadline.is_none_or(|at| at > now) {
                continue;
            }
            process.deadline = None;
            if process.ended.is_some() || process.is_dead() {
                continue;
            }
            process.timed_out = true;
            let all = (Some(process.id) == main).then_some(&self.cgroup);
            let killed = all.or(process.cgroup.as_ref()).map(Cgroup::kill_all);
            if killed.is_none_or(|killed| killed.is_err()) {
                process.deadline = Some(now + KILL_AGAIN_AFTER);
            }
        }
    }
}
