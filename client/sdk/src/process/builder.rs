//! A further process to be run in a container.

use std::{
    borrow::Cow,
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    time::Duration,
};

use teu_protocol::{
    ids::ProcessId,
    message::{Channel, LogStart, ProcessSpec, ReplyBody, RequestBody, TermSize, Termination},
};

use super::{Process, handle::KillOnDrop};
use crate::{
    Container, Signal,
    error::{Error, Result},
    session::{Claim, Patience},
};

const ATTEMPT: &str = "run the process";

/// What [`ProcessBuilder::output`] collects unless told: more than any text that a program looks at as a
/// whole, and far from what hurts a machine.
const OUTPUT_LIMIT: u64 = 64 << 20;

/// All that a process wrote, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandOutput {
    /// How it ended.
    pub termination: Termination,
    /// All of its standard output (all output, if it had a terminal).
    pub stdout: Vec<u8>,
    /// All of its standard error.
    pub stderr: Vec<u8>,
}

impl CommandOutput {
    /// Whether the process exited with code 0.
    #[must_use]
    pub const fn success(&self) -> bool {
        self.termination.status.is_success()
    }

    /// The exit code; `None` if a signal ended the process.
    #[must_use]
    pub const fn code(&self) -> Option<u8> {
        self.termination.status.code()
    }

    /// Standard output as text; bytes that are not UTF-8 become U+FFFD.
    #[must_use]
    pub fn stdout_str(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// Standard error as text; bytes that are not UTF-8 become U+FFFD.
    #[must_use]
    pub fn stderr_str(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stderr)
    }
}

/// Describes a process; made by [`Container::run`]. Await it (or [`ProcessBuilder::start`]) to run
/// it with this program attached.
#[derive(Clone)]
#[must_use = "nothing runs until this is awaited"]
pub struct ProcessBuilder {
    container: Container,
    spec: ProcessSpec,
    output_limit: u64,
    kill_on_drop: bool,
}

impl ProcessBuilder {
    pub(crate) fn new(container: Container, words: Vec<String>) -> Self {
        Self {
            container,
            spec: ProcessSpec {
                args: Some(words),
                ..ProcessSpec::default()
            },
            output_limit: OUTPUT_LIMIT,
            kill_on_drop: false,
        }
    }

    /// Sets a variable of its environment, on top of the container's. Values are never shown.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.spec.env.push((name.into(), value.into()));
        self
    }

    /// Runs as this `user`, `uid`, `user:group` or `uid:gid`.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.spec.user = Some(user.into());
        self
    }

    /// Starts in this directory.
    pub fn workdir(mut self, directory: impl Into<String>) -> Self {
        self.spec.workdir = Some(directory.into());
        self
    }

    /// Gives it a terminal of this size.
    pub fn tty(mut self, size: TermSize) -> Self {
        self.spec.tty = Some(size);
        self
    }

    /// Keeps its standard input open; else it reads as empty.
    pub fn stdin(mut self, open: bool) -> Self {
        self.spec.stdin = open;
        self
    }

    /// The most bytes, of both channels together, that [`ProcessBuilder::output`] collects; default:
    /// 64 MiB.
    pub const fn output_limit(mut self, bytes: u64) -> Self {
        self.output_limit = bytes;
        self
    }

    /// Has the node kill it, and all that it started, when it has run for so long; its cause of death
    /// is then [`Cause::TimedOut`](crate::Cause::TimedOut), and its output so far is there to be read.
    /// Holds even if this program ends or loses its link. 1 ms to 366 days.
    ///
    /// ```no_run
    /// # async fn example(container: teu::Container) -> teu::Result<()> {
    /// use std::time::Duration;
    ///
    /// let build = container.run(["make"]).timeout(Duration::from_secs(60)).output().await?;
    /// if build.termination.cause == teu::Cause::TimedOut {
    ///     println!("it got as far as this: {}", String::from_utf8_lossy(&build.stdout));
    /// }
    /// # Ok(()) }
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.spec.timeout_ms = Some(super::whole_ms(timeout));
        self
    }

    /// Kills it, and all that it started, if its [`Process`] is dropped before it ended: also when a
    /// future such as [`ProcessBuilder::output`] is dropped, as `tokio::time::timeout` does. Without
    /// this it runs on until it ends or this program does. Dropping needs a Tokio runtime; where there is
    /// none, it ends with this program.
    pub fn kill_on_drop(mut self, kill: bool) -> Self {
        self.kill_on_drop = kill;
        self
    }

    /// Runs it, attached; it ends when this program does. It waits for its reader from its first byte on,
    /// so nothing of its output is lost however slow that is.
    ///
    /// Not cancel-safe: dropped midway, it may run all the same, until this program ends.
    ///
    /// # Errors
    /// [`Error::Refused`] with `CommandNotFound`, `CommandNotExecutable`, `WrongState`, ….
    pub async fn start(self) -> Result<Process> {
        let (container, tty) = (self.container.clone(), self.spec.tty.is_some());
        let kill = self.kill_on_drop;
        // The process waits for this place from its first byte on.
        let reader = Claim::fresh_reader();
        let mut this = self;
        this.spec.reader = Some(reader);
        let id = this.launch(true).await?;
        // From here on: also an attachment that does not come about is one that was dropped.
        let guard = kill.then(|| KillOnDrop::new(container.process(id)));
        let from = LogStart::Cursor(0);
        let process = Process::attach(container, Some(id), from, true, tty, Some(reader)).await?;
        Ok(process.guarded(guard))
    }

    /// Runs it on its own: it ends by itself, or with its container. [`Container::process`] makes a handle of
    /// the id.
    ///
    /// # Errors
    /// As [`ProcessBuilder::start`].
    pub async fn detached(self) -> Result<ProcessId> {
        self.launch(false).await
    }

    /// Runs it to its end and collects its output. A failing exit status is not an error: see
    /// [`CommandOutput::termination`].
    ///
    /// # Errors
    /// As [`ProcessBuilder::start`]; [`Error::OutputTooLarge`] if it writes more than the limit (it is
    /// killed then); [`Error::OutputLost`] if not all of it can be had.
    pub async fn output(self) -> Result<CommandOutput> {
        let limit = self.output_limit;
        let mut process = self.start().await?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(chunk) = process.next_output().await {
            let chunk = chunk?;
            let into = if chunk.channel == Channel::Stderr {
                &mut stderr
            } else {
                &mut stdout
            };
            into.extend_from_slice(&chunk.bytes);
            if (stdout.len() + stderr.len()) as u64 > limit {
                process.signal(Signal::KILL).await.ok();
                return Err(Error::OutputTooLarge { limit });
            }
        }
        Ok(CommandOutput {
            termination: process.wait().await?,
            stdout,
            stderr,
        })
    }

    async fn launch(self, bound: bool) -> Result<ProcessId> {
        let container = self.container.id();
        let body = RequestBody::Exec {
            container,
            process: self.spec,
            bound,
        };
        match self
            .container
            .session
            .request(ATTEMPT, body, Patience::USUAL)
            .await?
        {
            ReplyBody::Started(id) => Ok(id),
            _ => Err(Error::Nonsense { attempt: ATTEMPT }),
        }
    }
}

impl IntoFuture for ProcessBuilder {
    type Output = Result<Process>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}

impl fmt::Debug for ProcessBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither arguments nor environment: they may hold secrets.
        f.debug_struct("ProcessBuilder")
            .field("container", &self.container.id())
            .finish_non_exhaustive()
    }
}
