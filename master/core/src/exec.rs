//! Requests about a running container and its processes: wake, stop, signal, exec, resize.
//!
//! Invariant: a process of an exec is in the table from the moment that it is ordered, so the end of
//! its attachment finds it.

use teu_protocol::{
    ids::ProcessId,
    image_config::signal::Signal,
    message::{
        ContainerState, NodeRequestBody, ProcessSpec, Refusal, ReplyBody, TermSize,
        default_grace_ms,
    },
};

use crate::{
    Core, bounds,
    connections::Caller,
    container::Bound,
    containers::Owned,
    limits,
    orders::Purpose,
    refusals,
    request::{Answer, Step},
};

/// The longest grace before a kill: ten minutes are enough for a database to shut down.
const GRACE_MAX_MS: u32 = 600_000;

impl Core {
    pub(crate) fn wake(&mut self, owned: &Owned, caller: &Caller) -> Step {
        match owned.state() {
            ContainerState::Running { .. } => self.as_it_is(owned),
            ContainerState::Exited { .. } => Err(has_exited()),
            _ => {
                let (id, within) = (owned.id(), limits::ORDER_MS);
                let body = NodeRequestBody::Wake(id);
                self.forward(caller, owned.node(), body, Purpose::Wake(id), within)
            }
        }
    }

    pub(crate) fn stop(
        &mut self,
        owned: &Owned,
        caller: &Caller,
        signal: Option<Signal>,
        grace_ms: u32,
    ) -> Step {
        if grace_ms > GRACE_MAX_MS {
            return Err(refusals::bad(
                "the grace before a kill is at most 600 seconds",
            ));
        }
        match owned.state() {
            ContainerState::Exited { .. } => self.as_it_is(owned),
            ContainerState::Destroyed => Err(refusals::no_container()),
            ContainerState::Requested | ContainerState::Preparing => Err(not_started()),
            ContainerState::Asleep | ContainerState::Running { .. } => {
                let container = owned.id();
                let body = NodeRequestBody::Stop {
                    container,
                    signal,
                    grace_ms,
                };
                let within = limits::ORDER_MS + u64::from(grace_ms.max(default_grace_ms()));
                self.forward(caller, owned.node(), body, Purpose::Stop(container), within)
            }
        }
    }

    pub(crate) fn signal(
        &mut self,
        owned: &Owned,
        caller: &Caller,
        process: Option<ProcessId>,
        signal: Signal,
    ) -> Step {
        is_running(owned)?;
        let process = self.process(owned, process)?;
        let body = NodeRequestBody::Signal {
            container: owned.id(),
            process,
            signal,
        };
        self.forward(
            caller,
            owned.node(),
            body,
            Purpose::Signal,
            limits::ORDER_MS,
        )
    }

    pub(crate) fn exec(
        &mut self,
        owned: &Owned,
        caller: &Caller,
        process: ProcessSpec,
        bound: bool,
    ) -> Step {
        bounds::process(&process)?;
        if process.args.as_ref().is_none_or(Vec::is_empty) {
            return Err(refusals::bad("say which program to run"));
        }
        is_running(owned)?;
        self.up(&owned.node())?;
        let id = ProcessId::derive(&caller.session, &caller.request);
        let (container, bound) = (owned.id(), bound.then_some(caller.attachment));
        let found = self
            .containers
            .of(owned)
            .ok_or_else(refusals::no_container)?;
        match found.processes.get(&id) {
            Some(known) if known.confirmed => return Ok(Answer::now(ReplyBody::Started(id))),
            None if found.processes.len() >= limits::PROCESSES_PER_CONTAINER => {
                return Err(refusals::limit(format!(
                    "{} further processes run in this container, which is the most",
                    found.processes.len()
                )));
            }
            _ => {}
        }
        let entry = Bound {
            to: bound,
            confirmed: false,
            kill_at_ms: None,
        };
        self.containers
            .update(&container, |c| c.processes.entry(id).or_insert(entry).to);
        self.has_readers(&container, bound.filter(|_| process.reader.is_some()));
        let body = NodeRequestBody::Exec {
            container,
            id,
            process,
            bound,
        };
        let purpose = Purpose::Exec {
            container,
            process: id,
        };
        self.forward(caller, owned.node(), body, purpose, limits::ORDER_MS)
    }

    pub(crate) fn resize(
        &mut self,
        owned: &Owned,
        caller: &Caller,
        process: Option<ProcessId>,
        size: TermSize,
    ) -> Step {
        is_running(owned)?;
        let container = owned.id();
        let process = self
            .process(owned, process)?
            .unwrap_or(container.main_process());
        let body = NodeRequestBody::Resize {
            container,
            process,
            size,
        };
        self.forward(
            caller,
            owned.node(),
            body,
            Purpose::Resize,
            limits::ORDER_MS,
        )
    }

    /// A process of the container. Those that ended are the node's to tell: it keeps their logs.
    pub(crate) fn process(
        &self,
        owned: &Owned,
        process: Option<ProcessId>,
    ) -> Result<Option<ProcessId>, Refusal> {
        let Some(process) = process.filter(|p| *p != owned.id().main_process()) else {
            return Ok(None);
        };
        let found = self
            .containers
            .of(owned)
            .ok_or_else(refusals::no_container)?;
        let runs = found.processes.contains_key(&process);
        runs.then_some(Some(process))
            .ok_or_else(refusals::no_process)
    }

    fn as_it_is(&self, owned: &Owned) -> Step {
        let found = self
            .containers
            .of(owned)
            .ok_or_else(refusals::no_container)?;
        Ok(Answer::now(ReplyBody::Container(Box::new(
            found.info.clone(),
        ))))
    }
}

/// Refuses unless the container's first process executes.
pub(crate) fn is_running(owned: &Owned) -> Result<(), Refusal> {
    match owned.state() {
        ContainerState::Running { .. } => Ok(()),
        ContainerState::Destroyed => Err(refusals::no_container()),
        ContainerState::Exited { .. } => Err(has_exited()),
        ContainerState::Asleep => Err(refusals::wrong_state(
            "the container is asleep. Wake it first",
        )),
        ContainerState::Requested | ContainerState::Preparing => Err(not_started()),
    }
}

/// Refuses until the node has made the container.
pub(crate) fn is_made(owned: &Owned) -> Result<(), Refusal> {
    match owned.state() {
        ContainerState::Requested | ContainerState::Preparing => Err(not_started()),
        _ => Ok(()),
    }
}

fn has_exited() -> Refusal {
    refusals::wrong_state(
        "the container has exited. `teu logs` shows what it said; spawn another one",
    )
}

fn not_started() -> Refusal {
    refusals::wrong_state("the container is still being made. Wait until its spawn is answered")
}
