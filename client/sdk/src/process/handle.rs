//! A process by its id: of an earlier call, or of another program.

use teu_protocol::{
    ids::ProcessId,
    message::{LogStart, Termination},
};

use super::{Process, ProcessSignals};
use crate::{Container, Signal, error::Result};

/// A process that somebody started, such as [`ProcessBuilder::detached`](super::ProcessBuilder::detached).
/// A cheap handle; dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct ProcessHandle {
    container: Container,
    id: ProcessId,
}

impl ProcessHandle {
    pub(crate) const fn new(container: Container, id: ProcessId) -> Self {
        Self { container, id }
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> ProcessId {
        self.id
    }

    /// Its output from the oldest byte that is kept, then live, and its input. It waits for this
    /// reader if the reader is far behind.
    ///
    /// # Errors
    /// [`Error::Refused`](crate::Error::Refused) with `NotFound` if the container has no such process.
    pub async fn attach(&self) -> Result<Process> {
        self.attach_from(LogStart::Oldest, true).await
    }

    async fn attach_from(&self, from: LogStart, lossless: bool) -> Result<Process> {
        let (container, id) = (self.container.clone(), Some(self.id));
        Process::attach(container, id, from, lossless, false, None).await
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// [`Error::Refused`](crate::Error::Refused) with `WrongState` or `NotFound` if it has ended.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        self.signals().send(signal).await
    }

    /// Kills it and all that it started.
    ///
    /// # Errors
    /// As [`ProcessHandle::signal`].
    pub async fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL).await
    }

    fn signals(&self) -> ProcessSignals {
        ProcessSignals {
            container: self.container.clone(),
            id: Some(self.id),
        }
    }

    /// Waits until it has ended, and tells how; its output is not read. The newest 64 processes of a
    /// container that ended are remembered.
    ///
    /// # Errors
    /// As [`ProcessHandle::attach`]; and if that can no longer be known. Cancel-safe.
    pub async fn wait(&self) -> Result<Termination> {
        self.attach_from(LogStart::Now, false).await?.wait().await
    }
}

/// Kills a process unless it is told that there is no need.
#[derive(Debug)]
pub(super) struct KillOnDrop(Option<ProcessHandle>);

impl KillOnDrop {
    pub(super) const fn new(process: ProcessHandle) -> Self {
        Self(Some(process))
    }

    /// It has ended.
    pub(super) fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let (Some(process), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current())
        {
            // If it has ended meanwhile, or the session is over, there is nothing to kill.
            runtime.spawn(async move { process.kill().await });
        }
    }
}
