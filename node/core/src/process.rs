//! A container's further processes: those that start, run, and the newest that ended.
//!
//! ```text
//! Starting ──started──▶ Running ──ended──▶ Ended ──too many──▶ forgotten
//!     │  └──ended──▶ EndedEarly ──started──▲
//!     └──refused──▶ forgotten
//! ```
//! Owner: [`crate::container`]. Invariant: at most [`ENDED_KEPT`] ended ones, oldest go first.

use std::collections::{BTreeMap, VecDeque};

use teu_protocol::{
    ids::{AttachmentId, ContainerId, ProcessId, RequestId},
    message::{ProcessInfo, ProcessState, Termination},
};

use crate::record::FurtherProcess;

/// Ended processes whose output can still be read: who starts one reads it at once.
const ENDED_KEPT: usize = 64;

/// Processes of one container that may exist at once, as orders; its pids limit bounds the rest.
pub(crate) const MAX_PROCESSES: usize = 1_024;

#[derive(Debug, Clone)]
enum Stage {
    Starting(Vec<RequestId>),
    /// Its end came before the word that it began.
    EndedEarly(Vec<RequestId>, Termination),
    Running,
    Ended(Termination),
}

#[derive(Debug, Clone)]
struct Process {
    command: Vec<String>,
    bound: Option<AttachmentId>,
    stage: Stage,
    signalled: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Processes {
    known: BTreeMap<ProcessId, Process>,
    ended: VecDeque<ProcessId>,
}

/// What an order to start one means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Fresh,
    /// It is starting: the order is answered with the first one.
    Joined,
    /// It was started before.
    Already,
    Full,
}

/// What came of a start.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Started {
    pub(crate) waiting: Vec<RequestId>,
    pub(crate) ended: Option<ProcessInfo>,
    pub(crate) forgotten: Option<ProcessId>,
}

impl Processes {
    pub(crate) fn start(
        &mut self,
        id: ProcessId,
        command: &[String],
        bound: Option<AttachmentId>,
        request: RequestId,
    ) -> Start {
        let full = self.known.len() - self.ended.len() >= MAX_PROCESSES;
        match self.known.get_mut(&id).map(|process| &mut process.stage) {
            Some(Stage::Starting(waiting) | Stage::EndedEarly(waiting, _)) => {
                waiting.push(request);
                Start::Joined
            }
            Some(_) => Start::Already,
            None if full => Start::Full,
            None => {
                let stage = Stage::Starting(vec![request]);
                let process = Process {
                    command: command.to_vec(),
                    bound,
                    stage,
                    signalled: false,
                };
                self.known.insert(id, process);
                Start::Fresh
            }
        }
    }

    pub(crate) fn started(&mut self, container: ContainerId, id: ProcessId, runs: bool) -> Started {
        let Some(process) = self.known.get_mut(&id) else {
            return Started::default();
        };
        match std::mem::replace(&mut process.stage, Stage::Running) {
            Stage::Starting(waiting) if runs => Started {
                waiting,
                ..Started::default()
            },
            Stage::Starting(waiting) | Stage::EndedEarly(waiting, _) if !runs => {
                self.known.remove(&id);
                Started {
                    waiting,
                    ..Started::default()
                }
            }
            Stage::Starting(waiting) => Started {
                waiting,
                ..Started::default()
            },
            Stage::EndedEarly(waiting, termination) => {
                let (ended, forgotten) = self.end(container, id, termination);
                Started {
                    waiting,
                    ended,
                    forgotten,
                }
            }
            other => {
                process.stage = other;
                Started::default()
            }
        }
    }

    /// Marks it ended; what to tell, and which older one is forgotten for it.
    pub(crate) fn end(
        &mut self,
        container: ContainerId,
        id: ProcessId,
        termination: Termination,
    ) -> (Option<ProcessInfo>, Option<ProcessId>) {
        let Some(process) = self.known.get_mut(&id) else {
            return (None, None);
        };
        match &mut process.stage {
            Stage::Starting(waiting) => {
                process.stage = Stage::EndedEarly(std::mem::take(waiting), termination);
                (None, None)
            }
            Stage::Running => {
                process.stage = Stage::Ended(termination);
                let info = info(container, id, process);
                self.ended.push_back(id);
                (Some(info), self.forget_oldest())
            }
            Stage::EndedEarly(..) | Stage::Ended(_) => (None, None),
        }
    }

    fn forget_oldest(&mut self) -> Option<ProcessId> {
        if self.ended.len() <= ENDED_KEPT {
            return None;
        }
        let oldest = self.ended.pop_front()?;
        self.known.remove(&oldest);
        Some(oldest)
    }

    /// Whoever waits for a start that will not be told of any more.
    pub(crate) fn take_waiting(&mut self) -> Vec<RequestId> {
        let waiting = self
            .known
            .values_mut()
            .flat_map(|process| match &mut process.stage {
                Stage::Starting(waiting) | Stage::EndedEarly(waiting, _) => std::mem::take(waiting),
                Stage::Running | Stage::Ended(_) => Vec::new(),
            });
        waiting.collect()
    }

    /// One that a restarted agent found running.
    pub(crate) fn adopt(&mut self, found: FurtherProcess) {
        let FurtherProcess { id, command, bound } = found;
        let process = Process {
            command,
            bound,
            stage: Stage::Running,
            signalled: false,
        };
        self.known.insert(id, process);
    }

    /// Those that run, as they are remembered.
    pub(crate) fn remembered(&self) -> Vec<FurtherProcess> {
        self.known
            .iter()
            .filter(|(_, process)| matches!(process.stage, Stage::Running))
            .map(|(id, process)| FurtherProcess {
                id: *id,
                command: process.command.clone(),
                bound: process.bound,
            })
            .collect()
    }

    pub(crate) fn is_known(&self, id: ProcessId) -> bool {
        self.known.contains_key(&id)
    }

    pub(crate) fn runs(&self, id: ProcessId) -> bool {
        self.known
            .get(&id)
            .is_some_and(|process| matches!(process.stage, Stage::Running))
    }

    pub(crate) fn signalled(&mut self, id: ProcessId) {
        if let Some(process) = self.known.get_mut(&id) {
            process.signalled = true;
        }
    }

    pub(crate) fn was_signalled(&self, id: ProcessId) -> bool {
        self.known.get(&id).is_some_and(|process| process.signalled)
    }

    /// Those that have begun and not ended.
    pub(crate) fn running(&self) -> Vec<ProcessId> {
        let running = |process: &Process| matches!(process.stage, Stage::Running);
        self.known
            .iter()
            .filter(|(_, one)| running(one))
            .map(|(id, _)| *id)
            .collect()
    }

    pub(crate) fn told(&self, container: ContainerId) -> Vec<(ProcessInfo, Option<AttachmentId>)> {
        let running = |process: &Process| matches!(process.stage, Stage::Running);
        self.known
            .iter()
            .filter(|(_, process)| running(process))
            .map(|(id, process)| (info(container, *id, process), process.bound))
            .collect()
    }
}

fn info(container: ContainerId, id: ProcessId, process: &Process) -> ProcessInfo {
    let state = match process.stage {
        Stage::Ended(termination) | Stage::EndedEarly(_, termination) => {
            ProcessState::Exited(termination)
        }
        Stage::Starting(_) | Stage::Running => ProcessState::Running,
    };
    ProcessInfo {
        id,
        container,
        command: process.command.clone(),
        state,
    }
}
