//! The agent's end of a keeper.
//!
//! Owner: one task for each keeper owns the socket; [`KeeperLink`] is its handle. Invariant: every
//! request is answered or fails with [`LinkError::Gone`]; events are merged, never dropped, so an
//! agent that is slow to read them holds a bounded number: at most four for each process.

mod place;

pub use place::PlaceAsk;

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use teu_protocol::{ids::ProcessId, image_config::signal::Signal};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::UnixStream,
    sync::{mpsc, oneshot},
};

use super::{
    plan::{ExecPlan, HostEntry, StartPlan},
    trees::with_trees,
    wire::{
        KeeperEvent, KeeperHello, Message, Outcome, Refusal, Request, RequestBody, SignalScope,
        StartStep, Started, frame, take_frame,
    },
};
use crate::sys::seqpacket;

/// Requests on their way to the task: as many as a busy container's streams ask at once.
const REQUESTS_QUEUED: usize = 64;
/// Events on their way to the agent; what does not fit is merged.
const EVENTS_QUEUED: usize = 64;

/// The keeper cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("cannot connect to the keeper at {path}")]
    Connect { path: PathBuf, source: io::Error },
    #[error("the keeper at {path} did not introduce itself")]
    Hello { path: PathBuf, source: io::Error },
    #[error("the keeper at {path} could not prepare its slot: {reason}")]
    Broken { path: PathBuf, reason: String },
    #[error("the keeper is gone")]
    Gone,
}

/// A request to a keeper failed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Link(#[from] LinkError),
}

struct Call {
    body: RequestBody,
    /// They go with the request's first byte.
    fds: Vec<OwnedFd>,
    answer: oneshot::Sender<Outcome>,
}

/// A handle to one keeper; cheap to clone. Dropping all handles leaves the keeper alone.
#[derive(Debug, Clone)]
pub struct KeeperLink {
    keeper_pid: i32,
    /// Of the keeper: see [`VERSION`](super::wire::VERSION).
    version: u32,
    /// Names the keeper for good, whoever gets its number later. `None`: it died at once.
    pidfd: Option<Arc<OwnedFd>>,
    /// Of the container's first process; 0 before there is one.
    init_pid: Arc<AtomicI32>,
    calls: mpsc::Sender<Call>,
    events: Arc<Mutex<Option<mpsc::Receiver<KeeperEvent>>>>,
}

impl KeeperLink {
    /// Connects to the keeper that listens at `socket` and becomes its agent; an earlier agent's
    /// connection is closed. The Hello tells what there is to adopt. Waits until the slot is warm.
    ///
    /// # Errors
    /// Nobody listens, or what listens is no keeper. A keeper whose slot is broken still answers
    /// (see [`KeeperHello::broken`]), so that it can be destroyed.
    pub async fn connect(socket: &Path) -> Result<(Self, KeeperHello), LinkError> {
        let path = socket.to_owned();
        let mut stream =
            UnixStream::connect(socket)
                .await
                .map_err(|source| LinkError::Connect {
                    path: path.clone(),
                    source,
                })?;
        let mut incoming = Vec::new();
        let hello = read_hello(&mut stream, &mut incoming)
            .await
            .map_err(|source| LinkError::Hello { path, source })?;
        let (calls, calls_in) = mpsc::channel(REQUESTS_QUEUED);
        let (events_out, events) = mpsc::channel(EVENTS_QUEUED);
        let task = LinkTask {
            stream,
            incoming,
            calls: calls_in,
            waiting: HashMap::new(),
            next_number: 0,
            events: events_out,
            pending: VecDeque::new(),
        };
        // Ends when the keeper does, or when all handles are gone.
        tokio::spawn(task.run());
        let link = Self {
            keeper_pid: hello.keeper_pid,
            version: hello.version,
            pidfd: open_pidfd(hello.keeper_pid).map(Arc::new),
            init_pid: Arc::new(AtomicI32::new(main_pid(&hello).unwrap_or(0))),
            calls,
            events: Arc::new(Mutex::new(Some(events))),
        };
        Ok((link, hello))
    }

    /// The keeper's pid: `/proc/<pid>/ns/net` is the slot's network namespace.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.keeper_pid
    }

    /// Whether the keeper answers within `patience`: a killed or stopped one does not.
    pub async fn answers(&self, patience: Duration) -> bool {
        let asked = tokio::time::timeout(patience, self.done(RequestBody::Ping)).await;
        matches!(asked, Ok(Ok(())))
    }

    /// Kills the keeper itself, and with it all that it watches over. For a keeper that does not
    /// answer, before its slot is swept.
    pub fn kill(&self) {
        if let Some(pidfd) = &self.pidfd {
            // It may have gone by itself.
            let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
        }
    }

    /// The pid of the container's first process, as the host sees it, once it has started; it may
    /// have ended since.
    #[must_use]
    pub fn init_pid(&self) -> Option<i32> {
        Some(self.init_pid.load(Ordering::Relaxed)).filter(|&pid| pid != 0)
    }

    /// The stream of events; the first caller gets it. It ends when the keeper is gone (then
    /// [`ExitRecord`](super::ExitRecord) tells how its container ended).
    #[must_use]
    pub fn events(&self) -> Option<mpsc::Receiver<KeeperEvent>> {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Starts the container; answers when its first process is executing. After a refusal (other
    /// than `NotWarm`) the slot is spent and the keeper ends by itself. The trees of its volumes are
    /// opened here, in the caller's mount namespace.
    ///
    /// # Errors
    /// Why it does not run; see [`Refusal::exit_code`] for commands that cannot be executed.
    pub async fn start(&self, plan: StartPlan) -> Result<Started, StartError> {
        let (plan, trees) = with_trees(plan).await?;
        match self
            .ask_with(RequestBody::Start(Box::new(plan)), trees)
            .await?
        {
            Outcome::Started(started) => {
                self.init_pid.store(started.pid, Ordering::Relaxed);
                Ok(started)
            }
            Outcome::Refused(refusal) => Err(refusal.into()),
            _ => Err(LinkError::Gone.into()),
        }
    }

    /// Runs a further process; answers when it is executing.
    ///
    /// # Errors
    /// Why it does not run.
    pub async fn exec(&self, plan: ExecPlan) -> Result<Started, StartError> {
        match self.ask(RequestBody::Exec(Box::new(plan))).await? {
            Outcome::Started(started) => Ok(started),
            Outcome::Refused(refusal) => Err(refusal.into()),
            _ => Err(LinkError::Gone.into()),
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// `NoSuchProcess` if it has ended.
    pub async fn signal(
        &self,
        process: ProcessId,
        signal: Signal,
        scope: SignalScope,
    ) -> Result<(), StartError> {
        self.done(RequestBody::Signal {
            process,
            signal,
            scope,
        })
        .await
    }

    /// Sets a terminal's size.
    ///
    /// # Errors
    /// `NoTerminal` for a process with pipes.
    pub async fn resize(
        &self,
        process: ProcessId,
        rows: u16,
        columns: u16,
    ) -> Result<(), StartError> {
        self.done(RequestBody::Resize {
            process,
            rows,
            columns,
        })
        .await
    }

    /// Gives a process input that belongs to no place; with `eof`, the last. The caller stays within
    /// [`STDIN_WINDOW`](super::STDIN_WINDOW) bytes of the latest [`KeeperEvent::StdinConsumed`].
    ///
    /// # Errors
    /// `StdinOverrun` beyond that; nothing is taken then.
    pub async fn stdin(
        &self,
        process: ProcessId,
        bytes: Bytes,
        eof: bool,
    ) -> Result<(), StartError> {
        self.done(RequestBody::Stdin {
            process,
            bytes: bytes.into(),
            eof,
        })
        .await
    }

    /// An ended further process need not be told of any more.
    ///
    /// # Errors
    /// `ProcessExists` while it runs.
    pub async fn forget(&self, process: ProcessId) -> Result<(), StartError> {
        self.done(RequestBody::Forget { process }).await
    }

    /// Replaces the extra lines of the running container's `/etc/hosts`.
    ///
    /// # Errors
    /// `NotRunning`, or what writing said.
    pub async fn write_hosts(&self, hosts: Vec<HostEntry>) -> Result<(), StartError> {
        self.done(RequestBody::WriteHosts { hosts }).await
    }

    /// Kills the container, if any, and removes everything of the slot; answers when nothing is
    /// left. A keeper that went away while it was asked counts as destroyed only after a sweep.
    ///
    /// # Errors
    /// What could not be removed.
    pub async fn destroy(&self) -> Result<(), StartError> {
        self.done(RequestBody::Destroy).await
    }

    async fn done(&self, body: RequestBody) -> Result<(), StartError> {
        match self.ask(body).await? {
            Outcome::Refused(refusal) => Err(refusal.into()),
            _ => Ok(()),
        }
    }

    async fn ask(&self, body: RequestBody) -> Result<Outcome, LinkError> {
        self.ask_with(body, Vec::new()).await
    }

    async fn ask_with(&self, body: RequestBody, fds: Vec<OwnedFd>) -> Result<Outcome, LinkError> {
        let (answer, outcome) = oneshot::channel();
        self.calls
            .send(Call { body, fds, answer })
            .await
            .map_err(|_| LinkError::Gone)?;
        outcome.await.map_err(|_| LinkError::Gone)
    }
}

fn open_pidfd(pid: i32) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid)?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

fn main_pid(hello: &KeeperHello) -> Option<i32> {
    let main = hello.container?.main_process();
    let process = hello.processes.iter().find(|one| one.id == main)?;
    Some(process.pid)
}

async fn read_hello(stream: &mut UnixStream, incoming: &mut Vec<u8>) -> io::Result<KeeperHello> {
    loop {
        match take_frame::<Message>(incoming)? {
            Some(Message::Hello(hello)) => return Ok(hello),
            Some(_) => return Err(io::ErrorKind::InvalidData.into()),
            None if stream.read_buf(incoming).await? == 0 => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            None => {}
        }
    }
}

struct LinkTask {
    stream: UnixStream,
    incoming: Vec<u8>,
    calls: mpsc::Receiver<Call>,
    waiting: HashMap<u64, oneshot::Sender<Outcome>>,
    next_number: u64,
    events: mpsc::Sender<KeeperEvent>,
    pending: VecDeque<KeeperEvent>,
}

/// What woke the task.
enum Wake {
    Read(io::Result<usize>),
    Call(Option<Call>),
    EventRoom,
}

impl LinkTask {
    async fn run(mut self) {
        loop {
            let wake = tokio::select! {
                got = self.stream.read_buf(&mut self.incoming) => Wake::Read(got),
                call = self.calls.recv() => Wake::Call(call),
                Ok(room) = self.events.reserve(), if !self.pending.is_empty() => {
                    if let Some(event) = self.pending.pop_front() {
                        room.send(event);
                    }
                    Wake::EventRoom
                }
            };
            let alive = match wake {
                Wake::EventRoom => true,
                Wake::Read(Ok(got)) if got > 0 => self.messages().is_ok(),
                Wake::Read(_) | Wake::Call(None) => false,
                Wake::Call(Some(call)) => self.send(call).await.is_ok(),
            };
            if !alive {
                break;
            }
        }
        // Whoever waits for an answer will not get one; whoever reads events still gets them all.
        self.waiting.clear();
        self.calls.close();
        while let Some(event) = self.pending.pop_front() {
            if self.events.send(event).await.is_err() {
                break;
            }
        }
    }

    async fn send(&mut self, call: Call) -> io::Result<()> {
        let number = self.next_number;
        self.next_number += 1;
        let bytes = match frame(&Request {
            number,
            body: call.body,
        }) {
            Ok(bytes) => bytes,
            Err(error) => {
                let reason = error.to_string();
                let step = StartStep::ReadPlan;
                let _ = call
                    .answer
                    .send(Outcome::Refused(Refusal::Failed { step, reason }));
                return Ok(());
            }
        };
        self.waiting.insert(number, call.answer);
        let sent = if call.fds.is_empty() {
            0
        } else {
            self.send_fds(&bytes, &call.fds).await?
        };
        self.stream.write_all(&bytes[sent..]).await
    }

    async fn send_fds(&self, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<usize> {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        self.stream
            .async_io(Interest::WRITABLE, || {
                seqpacket::send_some(&self.stream, bytes, &fds)
            })
            .await
    }

    fn messages(&mut self) -> io::Result<()> {
        while let Some(message) = take_frame(&mut self.incoming)? {
            match message {
                Message::Hello(_) => return Err(io::ErrorKind::InvalidData.into()),
                Message::Reply { number, outcome } => {
                    if let Some(answer) = self.waiting.remove(&number) {
                        // The asker may have stopped waiting.
                        let _ = answer.send(outcome);
                    }
                }
                Message::Event(event) => merge(&mut self.pending, event),
            }
        }
        Ok(())
    }
}

/// A later cursor or count stands for all earlier ones.
fn merge(pending: &mut VecDeque<KeeperEvent>, event: KeeperEvent) {
    let same = pending.iter_mut().find(|old| match (&**old, &event) {
        (
            KeeperEvent::LogGrown { process: old, .. },
            KeeperEvent::LogGrown { process: new, .. },
        )
        | (
            KeeperEvent::StdinConsumed { process: old, .. },
            KeeperEvent::StdinConsumed { process: new, .. },
        ) => old == new,
        _ => false,
    });
    match same {
        Some(old) => *old = event,
        None => pending.push_back(event),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_merged_for_each_process_and_ends_are_kept() {
        let (one, two) = (
            ProcessId::from_bytes([1; 16]),
            ProcessId::from_bytes([2; 16]),
        );
        let mut pending = VecDeque::new();
        for end in 1..1000 {
            merge(&mut pending, KeeperEvent::LogGrown { process: one, end });
            merge(&mut pending, KeeperEvent::LogGrown { process: two, end });
            merge(
                &mut pending,
                KeeperEvent::StdinConsumed {
                    process: one,
                    total: end,
                },
            );
        }
        merge(&mut pending, KeeperEvent::StdinClosed { process: one });
        assert_eq!(pending.len(), 4);
        assert_eq!(
            pending[0],
            KeeperEvent::LogGrown {
                process: one,
                end: 999
            }
        );
    }
}
