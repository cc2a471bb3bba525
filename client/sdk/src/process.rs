//! A process in a container, with its input and output.
//!
//! ```text
//! Process ── next_output ──────────────▶ AttachedReader ── resumes by cursor ──▶ session
//!    └── stdout / stderr ◀─ Pump (task) ──┘      │
//!    └── Stdin ── StdinSlot ◀── new writer ──────┘ after a reconnect
//! ```
//! Invariant: there is no exit status unless the location has told one, and every byte of output
//! comes before it; an output that ends in any other way ends in an error.

mod attached;
mod builder;
mod handle;
mod output;
mod pump;
mod stdin;
#[cfg(test)]
mod tests;

pub(crate) use attached::{AttachedReader, Item, Source};
pub use builder::{CommandOutput, ProcessBuilder};
pub use handle::ProcessHandle;
pub use output::ProcessOutput;
pub use stdin::Stdin;

use std::{sync::Arc, time::Duration};

use handle::KillOnDrop;
use pump::Pump;
use teu_protocol::{
    ids::{ProcessId, ReaderId},
    message::{Channel, LogStart, RequestBody, StreamEnd, TermSize, Termination},
};

use crate::{
    Container, OutputChunk, Signal,
    error::{Error, Result},
};

const WAIT: &str = "wait for the process";

/// A process that this program is attached to. Dropping it detaches: what becomes of the process
/// is decided by how it was started.
#[derive(Debug)]
pub struct Process {
    container: Container,
    /// `None`: the container's first process.
    id: Option<ProcessId>,
    stdin: Option<Stdin>,
    output: Output,
    /// Kills it when this is dropped before it has ended.
    guard: Option<KillOnDrop>,
}

#[derive(Debug)]
enum Output {
    /// Read here, in order.
    Direct(Box<AttachedReader>),
    /// Read through handles.
    Split(Pump),
    Ended(Termination),
    /// It ended in an error, which was told.
    Failed,
}

impl Process {
    pub(crate) async fn attach(
        container: Container,
        id: Option<ProcessId>,
        from: LogStart,
        lossless: bool,
        tty: bool,
        place: Option<ReaderId>,
    ) -> Result<Self> {
        let source = Source::Attach {
            container: container.id(),
            process: id,
            lossless,
        };
        let stdin = Stdin::new(tty);
        let mut reader =
            AttachedReader::new(container.session.clone(), source, from).with_stdin(stdin.slot());
        if let Some(place) = place {
            reader = reader.at_place(place);
        }
        reader.open().await?;
        Ok(Self {
            container,
            id,
            stdin: Some(stdin),
            output: Output::Direct(Box::new(reader)),
            guard: None,
        })
    }

    fn guarded(mut self, guard: Option<KillOnDrop>) -> Self {
        self.guard = guard;
        self
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> ProcessId {
        self.id
            .unwrap_or_else(|| self.container.id().main_process())
    }

    /// Its standard input; `None` if it was taken already. If the process was started without
    /// standard input, what is written goes nowhere.
    ///
    /// [`tokio::io::AsyncWriteExt::shutdown`] is the end of input.
    pub const fn stdin(&mut self) -> Option<Stdin> {
        self.stdin.take()
    }

    /// Its standard output (all output, if it has a terminal), from where it was attached. A
    /// second call gives a reader that is at its end.
    ///
    /// Take [`Process::stderr`] too before reading, if it is wanted: of a channel that nobody has
    /// taken when reading begins, the bytes are dropped. Taken channels share one window of
    /// buffer, as pipes of one process do: a channel that is taken and not read
    /// holds up the other.
    pub fn stdout(&mut self) -> ProcessOutput {
        self.take(Channel::Stdout)
    }

    /// Its standard error; see [`Process::stdout`].
    pub fn stderr(&mut self) -> ProcessOutput {
        self.take(Channel::Stderr)
    }

    fn take(&mut self, channel: Channel) -> ProcessOutput {
        let output = std::mem::replace(&mut self.output, Output::Failed);
        let (output, taken) = match output {
            Output::Direct(reader) => {
                let mut pump = Pump::start(*reader);
                let taken = pump.take(channel);
                (Output::Split(pump), taken)
            }
            Output::Split(mut pump) => {
                let taken = pump.take(channel);
                (Output::Split(pump), taken)
            }
            over @ (Output::Ended(_) | Output::Failed) => (over, None),
        };
        self.output = output;
        taken.unwrap_or_else(ProcessOutput::ended)
    }

    /// The next bytes of output, of either channel; `None` when it has ended and all was read. (Also
    /// `None` once [`Process::stdout`] or [`Process::stderr`] was taken.) Cancel-safe.
    ///
    /// Each channel's bytes come in the order in which the process wrote them. Between the two channels
    /// the order is kept only for writes that are some milliseconds apart: they are two pipes, and the kernel
    /// does not say which of two that are ready was written first. Redirect one into the other (`2>&1`),
    /// or give it a terminal, where the order matters.
    ///
    /// # Errors
    /// [`Error::OutputLost`] where bytes are missing: call again for what is behind them. Any other
    /// is the last: the container was destroyed, or the session is over.
    pub async fn next_output(&mut self) -> Option<Result<OutputChunk>> {
        let Output::Direct(reader) = &mut self.output else {
            return None;
        };
        match reader.next().await {
            Ok(Item::Data(chunk)) => Some(Ok(OutputChunk::from_chunk(&chunk))),
            Ok(Item::Lost(bytes)) => Some(Err(Error::OutputLost { bytes })),
            Ok(Item::End(end)) => self.end(end).err().map(Err),
            Err(error) => {
                self.output = Output::Failed;
                Some(Err(error))
            }
        }
    }

    /// Waits until the process has ended, and tells how. Output that nobody has taken is dropped;
    /// output that was taken must be read meanwhile, or the process may never end. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::OutputLost`], once, if output was lost that nobody has been told of: call again for how
    /// it ended. Any other if that can no longer be known: the container was destroyed, or the session is
    /// over.
    pub async fn wait(&mut self) -> Result<Termination> {
        let mut lost = 0;
        loop {
            match &mut self.output {
                Output::Ended(_) if lost > 0 => return Err(Error::OutputLost { bytes: lost }),
                Output::Ended(termination) => return Ok(*termination),
                Output::Failed => return Err(Error::LinkLost { attempt: WAIT }),
                Output::Direct(reader) => match reader.next().await {
                    Ok(Item::Data(_)) => {}
                    Ok(Item::Lost(bytes)) => lost += bytes,
                    Ok(Item::End(end)) => self.end(end)?,
                    Err(error) => {
                        self.output = Output::Failed;
                        return Err(error);
                    }
                },
                Output::Split(pump) => {
                    let ended = pump.wait().await;
                    match ended {
                        Ok(end) => self.end(end)?,
                        Err(error) => {
                            self.output = Output::Failed;
                            return Err(error);
                        }
                    }
                }
            }
        }
    }

    /// The location closed the output.
    fn end(&mut self, end: StreamEnd) -> Result<()> {
        let ended = termination(end);
        if let (Ok(_), Some(guard)) = (&ended, &mut self.guard) {
            guard.disarm();
        }
        self.output = match &ended {
            Ok(termination) => Output::Ended(*termination),
            Err(_) => Output::Failed,
        };
        ended.map(drop)
    }

    /// Tells the process's terminal its size.
    ///
    /// # Errors
    /// [`Error::Refused`] if it has no terminal or has ended.
    pub async fn resize(&self, size: TermSize) -> Result<()> {
        let (container, process) = (self.container.id(), self.id);
        let body = RequestBody::Resize {
            container,
            process,
            size,
        };
        self.container.done("resize the terminal", body).await
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// [`Error::Refused`] if it has ended.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        self.signals().send(signal).await
    }

    /// A handle that sends signals, for another task.
    #[must_use]
    pub fn signals(&self) -> ProcessSignals {
        ProcessSignals {
            container: self.container.clone(),
            id: self.id,
        }
    }

    /// Detaches and gives a reader of the output alone.
    pub(crate) fn into_stdout(mut self) -> ProcessOutput {
        self.stdout()
    }

    /// Gives the input alone; output is dropped as it comes.
    pub(crate) fn into_stdin(mut self) -> Option<Stdin> {
        let stdin = self.stdin.take()?;
        match std::mem::replace(&mut self.output, Output::Failed) {
            Output::Direct(reader) => {
                let pump = Pump::start(*reader);
                pump.begin();
                Some(stdin.keeping(Arc::clone(pump.task())))
            }
            _ => Some(stdin),
        }
    }
}

/// Sends signals to one process; see [`Process::signals`].
#[derive(Debug, Clone)]
pub struct ProcessSignals {
    container: Container,
    id: Option<ProcessId>,
}

impl ProcessSignals {
    /// Sends a signal.
    ///
    /// # Errors
    /// As [`Process::signal`].
    pub async fn send(&self, signal: Signal) -> Result<()> {
        let body = RequestBody::Signal {
            container: self.container.id(),
            process: self.id,
            signal,
        };
        self.container.done("signal the process", body).await
    }
}

/// As the protocol counts: at least one, for a shorter time would be none.
pub(crate) fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .max(u64::from(!duration.is_zero()))
}

fn termination(end: StreamEnd) -> Result<Termination> {
    match end {
        StreamEnd::Exited(termination) => Ok(termination),
        StreamEnd::Failed(refusal) => Err(Error::Refused {
            attempt: WAIT,
            refusal,
        }),
        // Not an exit status, so not a success.
        StreamEnd::Done | StreamEnd::Reset => Err(Error::Nonsense { attempt: WAIT }),
    }
}
