//! A container, as an object.

mod ready;

use std::{net::Ipv4Addr, time::Duration};

use teu_protocol::{
    ids::{ContainerId, Tag},
    message::{
        ContainerDetail, ContainerInfo, ContainerState, LogStart, ReplyBody, RequestBody,
        Termination, default_grace_ms,
    },
};
use tokio::{net::ToSocketAddrs, sync::watch};

use crate::{
    Connection, Logs, Process, ProcessBuilder, ProcessHandle, ProcessId, ProcessOutput, Signal,
    Stdin, Tunnel,
    error::{Error, Result},
    session::{ContainerView, Patience, SessionHandle},
    tunnel,
};

/// A container. A cheap handle that stays valid over reconnects; dropping it destroys nothing.
///
/// Every method that waits for the location is safe to cancel in the sense that the handle stays as it was; what
/// was asked for may still happen, once.
#[derive(Debug, Clone)]
pub struct Container {
    pub(crate) session: SessionHandle,
    id: ContainerId,
    view: watch::Receiver<ContainerView>,
}

impl Container {
    /// The container of that id, if the session has it.
    pub(crate) fn known(session: SessionHandle, id: ContainerId) -> Option<Self> {
        let view = session.view().container(id)?;
        Some(Self { session, id, view })
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> ContainerId {
        self.id
    }

    /// Its name, if it has one.
    #[must_use]
    pub fn tag(&self) -> Option<Tag> {
        self.view.borrow().info.tag.clone()
    }

    /// What was last told of it.
    #[must_use]
    pub fn info(&self) -> ContainerInfo {
        self.view.borrow().info.clone()
    }

    /// Its address, once it has one. Other containers reach it there if they are allowed to.
    #[must_use]
    pub fn ip(&self) -> Option<Ipv4Addr> {
        self.view.borrow().info.ip
    }

    /// Whether it is destroyed.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.view.borrow().gone
    }

    /// All about it, asked now.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NotFound` if it is destroyed.
    pub async fn detail(&self) -> Result<ContainerDetail> {
        const ATTEMPT: &str = "inspect the container";
        let body = RequestBody::Find(self.id.to_string());
        match self.session.request(ATTEMPT, body, Patience::USUAL).await? {
            ReplyBody::Detail(detail) => Ok(*detail),
            _ => Err(Error::Nonsense { attempt: ATTEMPT }),
        }
    }

    /// Waits until its first process is executing. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Ended`] if it has exited, [`Error::Gone`] if it is destroyed, [`Error::Closed`].
    pub async fn wait_running(&self) -> Result<()> {
        self.wait_state(|state| match state {
            ContainerState::Running { .. } => Some(Ok(())),
            ContainerState::Exited { termination, .. } => Some(Err(Error::Ended {
                container: self.id,
                status: termination.status,
                waiting_for: "waiting until it runs",
            })),
            _ => None,
        })
        .await?
    }

    /// Waits until its first process has ended, and tells how. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Gone`] if it is destroyed before that is known, [`Error::Closed`].
    pub async fn wait_exit(&self) -> Result<Termination> {
        self.wait_state(|state| match state {
            ContainerState::Exited { termination, .. } => Some(*termination),
            _ => None,
        })
        .await
    }

    /// The first answer that `look` has.
    async fn wait_state<T>(&self, look: impl Fn(&ContainerState) -> Option<T>) -> Result<T> {
        let mut view = self.view.clone();
        loop {
            {
                let view = view.borrow_and_update();
                if let Some(answer) = look(&view.info.state) {
                    return Ok(answer);
                }
                if view.gone {
                    return Err(view.why_gone());
                }
            }
            if view.changed().await.is_err() {
                return Err(Error::Closed(self.session.close_reason()));
            }
        }
    }

    /// Waits until it is destroyed or the session is over.
    pub(crate) async fn wait_gone(&self) {
        let mut view = self.view.clone();
        // An error means that the session is over.
        let _ = view.wait_for(|view| view.gone).await;
    }

    /// Listens on a free port of 127.0.0.1; connections to it arrive at the container's `port`.
    ///
    /// # Errors
    /// [`Error::Io`] if the machine has no free port.
    pub async fn tunnel(&self, port: u16) -> Result<Tunnel> {
        self.tunnel_at((Ipv4Addr::LOCALHOST, 0), port).await
    }

    /// Listens at `local` (such as `"127.0.0.1:8080"`; `"0.0.0.0:8080"` for everybody).
    ///
    /// # Errors
    /// [`Error::Io`] if that address cannot be listened on.
    pub async fn tunnel_at(&self, local: impl ToSocketAddrs, port: u16) -> Result<Tunnel> {
        Tunnel::listen(self.clone(), local, port).await
    }

    /// One connection to a port in the container, without a listener.
    ///
    /// # Errors
    /// [`Error::Refused`] with `PortClosed` if nothing listens there. Cancel-safe.
    pub async fn connect(&self, port: u16) -> Result<Connection> {
        tunnel::connect(self, port).await
    }

    /// Describes a further process: program and arguments.
    pub fn run(&self, words: impl IntoIterator<Item = impl Into<String>>) -> ProcessBuilder {
        ProcessBuilder::new(self.clone(), words.into_iter().map(Into::into).collect())
    }

    /// A process by its id, such as one that was started with
    /// [`ProcessBuilder::detached`], also by an earlier program of this session.
    ///
    /// ```no_run
    /// # async fn example(container: teu::Container) -> teu::Result<()> {
    /// let id = container.run(["backup", "--all"]).detached().await?;
    /// let backup = container.process(id);
    /// let ended = backup.wait().await?;
    /// println!("{}", ended.status);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn process(&self, id: ProcessId) -> ProcessHandle {
        ProcessHandle::new(self.clone(), id)
    }

    /// The first process: its output from the oldest byte that is kept, then live, and its input
    /// (if it was spawned with it). The process waits for this reader if it is far behind.
    ///
    /// # Errors
    /// [`Error::Refused`] with `WrongState` if it is asleep. Cancel-safe.
    pub async fn attach(&self) -> Result<Process> {
        self.attach_from(LogStart::Oldest).await
    }

    /// As [`Container::attach`], from another place in the output.
    ///
    /// # Errors
    /// As [`Container::attach`].
    pub async fn attach_from(&self, from: LogStart) -> Result<Process> {
        let tty = self.view.borrow().info.tty;
        Process::attach(self.clone(), None, from, true, tty, None).await
    }

    /// The first process's standard output alone, as bytes; see [`Container::attach`].
    ///
    /// # Errors
    /// As [`Container::attach`].
    pub async fn stdout(&self) -> Result<ProcessOutput> {
        Ok(self.attach().await?.into_stdout())
    }

    /// The first process's standard input alone; its output is not waited for.
    ///
    /// # Errors
    /// As [`Container::attach`].
    pub async fn stdin(&self) -> Result<Stdin> {
        let tty = self.view.borrow().info.tty;
        let attached = Process::attach(self.clone(), None, LogStart::Now, false, tty, None).await?;
        attached.into_stdin().ok_or(Error::Nonsense {
            attempt: "write to the process",
        })
    }

    /// What its first process wrote, then (`follow`) what it writes until it ends. A stream of
    /// chunks in order; an `Err` is its last item, but for [`Error::OutputLost`], which tells of a gap.
    /// A follower does not hold the process back: if it is slower than the process for long, what was
    /// not read in time is no longer kept.
    ///
    /// # Errors
    /// If the location refuses. Cancel-safe.
    pub async fn logs(&self, from: LogStart, follow: bool) -> Result<Logs> {
        Logs::open(self.clone(), from, follow).await
    }

    /// Asks its first process to end (`signal`, else the image's stop signal, else SIGTERM), kills
    /// it after the grace (10 s is usual), and tells how it ended.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub async fn stop(
        &self,
        signal: impl Into<Option<Signal>>,
        grace: Duration,
    ) -> Result<Termination> {
        const ATTEMPT: &str = "stop the container";
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        let body = RequestBody::Stop {
            container: self.id,
            signal: signal.into(),
            grace_ms,
        };
        let patience = Patience::with_work(grace);
        match self.session.request(ATTEMPT, body, patience).await? {
            ReplyBody::Container(info) => match info.state {
                ContainerState::Exited { termination, .. } => Ok(termination),
                _ => self.wait_exit().await,
            },
            _ => Err(Error::Nonsense { attempt: ATTEMPT }),
        }
    }

    /// The grace that Docker users expect of [`Container::stop`].
    #[must_use]
    pub const fn usual_grace() -> Duration {
        Duration::from_millis(default_grace_ms() as u64)
    }

    /// Sends a signal to its first process.
    ///
    /// # Errors
    /// [`Error::Refused`] with `WrongState` if it does not run.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        let body = RequestBody::Signal {
            container: self.id,
            process: None,
            signal,
        };
        self.done("signal the container", body).await
    }

    /// Starts a container that was spawned asleep; ready when it is executing.
    ///
    /// # Errors
    /// [`Error::Refused`] with `WrongState` if it is not asleep, and as spawning.
    pub async fn wake(&self) -> Result<()> {
        const ATTEMPT: &str = "wake the container";
        let body = RequestBody::Wake(self.id);
        match self.session.request(ATTEMPT, body, Patience::USUAL).await? {
            ReplyBody::Container(_) | ReplyBody::Done => Ok(()),
            _ => Err(Error::Nonsense { attempt: ATTEMPT }),
        }
    }

    /// Destroys it, running or not; ready when nothing of it is left.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NotFound` if it was destroyed before.
    pub async fn destroy(&self) -> Result<()> {
        self.done("destroy the container", RequestBody::Destroy(self.id))
            .await
    }

    /// Lets `from` open connections to this container. Without it, no container reaches another.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub async fn allow_connection_from(&self, from: &Self) -> Result<()> {
        let body = RequestBody::Allow {
            to: self.id,
            from: from.id,
        };
        self.done("allow the connection", body).await
    }

    /// Takes [`Container::allow_connection_from`] back; open connections are cut.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub async fn disallow(&self, from: &Self) -> Result<()> {
        let body = RequestBody::Disallow {
            to: self.id,
            from: from.id,
        };
        self.done("disallow the connection", body).await
    }

    pub(crate) async fn done(&self, attempt: &'static str, body: RequestBody) -> Result<()> {
        match self.session.request(attempt, body, Patience::USUAL).await? {
            ReplyBody::Done => Ok(()),
            _ => Err(Error::Nonsense { attempt }),
        }
    }
}
