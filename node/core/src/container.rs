//! One container's life on a node.
//!
//! ```text
//!            Prepared Ok                    Exited / KeeperLost
//! Preparing ─────────────▶ Running ─────────────────────▶ Exited (releasing, then released)
//!    │  └────▶ Asleep ─wake─▶ Waking ──Woken Ok──▲ │Err ──▲    │
//!    │Err                                                      │ destroy, from any state
//!    ▼                                                         ▼
//!   gone ◀──────────────────────── Removed ────────────── Removing ⇄ Stuck
//! ```
//! Owner: [`crate::node`]. Invariants: at most one of Prepare, Wake, Release and Remove is under
//! way; a destroy is answered, whatever happens; once it has ended it never runs again.

mod life;
mod wishes;

use std::{collections::BTreeSet, time::Duration};

use teu_protocol::{
    ids::{AttachmentId, ContainerId, RequestId},
    message::{
        Cause, ContainerState, ExitStatus, NodeEvent, NodeReplyBody, Refusal, RefusalCode,
        Termination,
    },
};

use crate::{
    effect::Effect,
    input::ProcessEnd,
    orders::{Answer, Orders},
    process::Processes,
    record::ContainerRecord,
};

/// Collects what is to be done, and answers orders once.
pub(crate) struct Out<'a> {
    pub(crate) orders: &'a mut Orders,
    pub(crate) effects: &'a mut Vec<Effect>,
}

impl Out<'_> {
    pub(crate) fn answer(&mut self, id: RequestId, result: Answer) {
        if self.orders.answer(id, &result) {
            self.effects.push(Effect::Reply { id, result });
        }
    }

    pub(crate) fn answer_all(&mut self, ids: Vec<RequestId>, result: &Answer) {
        for id in ids {
            self.answer(id, result.clone());
        }
    }

    pub(crate) fn refuse(&mut self, id: RequestId, code: RefusalCode, message: impl Into<String>) {
        self.answer(id, Err(Refusal::new(code, message)));
    }
}

/// Whether the container is still in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Stays,
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Preparing {
        asleep: bool,
        end: Option<Termination>,
    },
    Asleep,
    Waking {
        end: Option<Termination>,
    },
    Running,
    /// `released`: the sandbox is given back, so it may be removed.
    Exited {
        released: bool,
    },
    Removing,
    /// Its removal failed; another destroy tries again.
    Stuck,
}

#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) record: ContainerRecord,
    pub(crate) processes: Processes,
    /// Attachments that (may) have places at its processes: the master says when they end.
    pub(crate) readers: BTreeSet<AttachmentId>,
    /// Those that ended before its first process began.
    ended_readers: BTreeSet<AttachmentId>,
    phase: Phase,
    ended: Option<(Termination, u64)>,
    spawn_waits: Vec<RequestId>,
    wake_waits: Vec<RequestId>,
    stop_waits: Vec<RequestId>,
    destroy_waits: Vec<RequestId>,
    /// Somebody asked it to end.
    stop_asked: bool,
    kill_at: Option<Duration>,
}

/// How a restarted agent finds a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Its keeper lives, its first process executes.
    Running,
    /// Its keeper lives and waits.
    Asleep,
    /// It ended; the sandbox is gone.
    Exited {
        /// How.
        termination: Termination,
        /// Milliseconds since 1970.
        at_ms: u64,
    },
}

/// What a container that lost its keeper ended with.
pub(crate) const LOST: Termination = Termination {
    status: ExitStatus::Signal(9),
    cause: Cause::NodeLost,
};

impl Container {
    pub(crate) fn preparing(record: ContainerRecord, asleep: bool, request: RequestId) -> Self {
        let mut this = Self::new(record, Phase::Preparing { asleep, end: None });
        this.spawn_waits.push(request);
        this
    }

    pub(crate) fn found(record: ContainerRecord, found: Found) -> Self {
        let (phase, ended) = match found {
            Found::Running => (Phase::Running, None),
            Found::Asleep => (Phase::Asleep, None),
            Found::Exited { termination, at_ms } => {
                (Phase::Exited { released: true }, Some((termination, at_ms)))
            }
        };
        let mut this = Self::new(record, phase);
        this.ended = ended;
        if ended.is_some() {
            this.record.ip = None;
        }
        this
    }

    fn new(record: ContainerRecord, phase: Phase) -> Self {
        Self {
            record,
            processes: Processes::default(),
            readers: BTreeSet::new(),
            ended_readers: BTreeSet::new(),
            phase,
            ended: None,
            spawn_waits: Vec::new(),
            wake_waits: Vec::new(),
            stop_waits: Vec::new(),
            destroy_waits: Vec::new(),
            stop_asked: false,
            kill_at: None,
        }
    }

    pub(crate) fn id(&self) -> ContainerId {
        self.record.container
    }

    /// The attachment ended: no process waits for its places.
    pub(crate) fn release_readers(&mut self, attachment: AttachmentId, out: &mut Out<'_>) {
        let begins = self.starts() || self.phase == Phase::Asleep;
        if self.readers.remove(&attachment) && begins {
            self.ended_readers.insert(attachment);
        }
        let container = self.id();
        out.effects.push(Effect::ReleaseReaders {
            container,
            attachment,
        });
    }

    /// Its first process runs, and may have a place of an attachment that ended meanwhile.
    pub(crate) fn release_ended_readers(&mut self, out: &mut Out<'_>) {
        for attachment in std::mem::take(&mut self.ended_readers) {
            let container = self.id();
            out.effects.push(Effect::ReleaseReaders {
                container,
                attachment,
            });
        }
    }

    pub(crate) fn state(&self) -> ContainerState {
        if let Some((termination, at_ms)) = self.ended {
            return ContainerState::Exited { termination, at_ms };
        }
        match self.phase {
            Phase::Preparing { .. } => ContainerState::Preparing,
            Phase::Asleep | Phase::Waking { .. } => ContainerState::Asleep,
            Phase::Running => ContainerState::Running {
                since_ms: self.record.since_ms.unwrap_or_default(),
            },
            Phase::Exited { .. } | Phase::Removing | Phase::Stuck => ContainerState::Exited {
                termination: LOST,
                at_ms: 0,
            },
        }
    }

    pub(crate) fn termination(&self) -> Option<Termination> {
        self.ended.map(|(termination, _)| termination)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    pub(crate) fn is_stuck(&self) -> bool {
        self.phase == Phase::Stuck
    }

    /// Its sandbox exists, so firewall rules about it make sense.
    pub(crate) fn has_network(&self) -> bool {
        matches!(
            self.phase,
            Phase::Asleep | Phase::Waking { .. } | Phase::Running
        )
    }

    /// Its mounts are being made.
    pub(crate) fn starts(&self) -> bool {
        matches!(self.phase, Phase::Preparing { .. } | Phase::Waking { .. })
    }

    /// It ended, and its mounts are not all gone yet.
    pub(crate) fn lingers(&self) -> bool {
        matches!(
            self.phase,
            Phase::Exited { released: false } | Phase::Removing
        )
    }

    /// What people call it.
    pub(crate) fn name(&self) -> String {
        let tag = self.record.tag.as_ref();
        tag.map_or_else(|| self.id().short(), |tag| tag.as_str().to_owned())
    }

    /// Its log can be read.
    pub(crate) fn has_files(&self) -> bool {
        !matches!(
            self.phase,
            Phase::Preparing { .. } | Phase::Removing | Phase::Stuck
        )
    }

    pub(crate) const fn kill_at(&self) -> Option<Duration> {
        self.kill_at
    }

    fn spawned(&self) -> Answer {
        Ok(NodeReplyBody::Spawned {
            ip: self.record.ip.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED),
            state: self.state(),
            command: self.record.process.args.clone(),
        })
    }

    fn tell(&self, out: &mut Out<'_>) {
        let (container, state) = (self.id(), self.state());
        out.effects
            .push(Effect::Tell(NodeEvent::Container { container, state }));
    }

    fn why(&self, end: ProcessEnd) -> Termination {
        let cause = if end.timed_out && end.status != ExitStatus::Code(0) {
            Cause::TimedOut
        } else if end.out_of_memory && end.status != ExitStatus::Code(0) {
            Cause::OutOfMemory
        } else if self.stop_asked {
            Cause::Stopped
        } else {
            Cause::Exited
        };
        Termination {
            status: end.status,
            cause,
        }
    }
}

fn wrong_state(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalCode::WrongState, message)
}
