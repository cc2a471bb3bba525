//! The keeper's loop: one thread, one poll(2), everything that can happen to a slot.
//!
//! Owner: this process. Invariant: nothing here waits for anyone, except at the very end for the
//! container's own death. `launch` follows processes that are being made, `requests` does what the
//! agent asks.

mod children;
mod launch;
mod requests;

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{WaitOptions, wait},
};
use teu_protocol::ids::{ContainerId, ProcessId};

use self::launch::Launch;
use super::{
    connection::Connection,
    exit::ExitRecord,
    log::RECORD_MAX,
    plan::{IdRange, LogLimits},
    process::{Process, unix_ms},
    reaper::Reaper,
    stub::HostsHead,
    wire::{ExitStatus, KeeperEvent, KeeperHello, Message, Outcome, ProcessExit, Refusal, VERSION},
};
use crate::sys::{
    cgroup::{Cgroup, Hierarchies},
    fork, mount_table,
    names::SlotName,
    namespaces, netns, oom,
    seccomp::SeccompProgram,
};

/// The keeper's last words may take this long to be read.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a keeper inherits from the launcher.
#[derive(Debug, Clone)]
pub(crate) struct KeeperConfig {
    pub slot: SlotName,
    pub run_dir: PathBuf,
    /// Where the agent mounts pools and volumes.
    pub volumes: PathBuf,
    pub cgroup_parent: String,
    pub hierarchies: Hierarchies,
    pub seccomp: Rc<SeccompProgram>,
}

/// The slot's life; see the picture in [`super`].
enum Stage {
    Preparing,
    Warm,
    Broken(String),
    Starting,
    Running,
    Ending,
}

/// What stays the same once a container was started.
struct Container {
    id: ContainerId,
    dir: PathBuf,
    ids: IdRange,
    log: LogLimits,
    hosts: HostsHead,
    /// The limit of its processes and threads.
    pids: u32,
}

/// What a ready descriptor means.
#[derive(Clone, Copy)]
enum Token {
    Signals,
    Listener,
    Agent,
    Reaper,
    Launch(ProcessId),
    Output(ProcessId, usize),
    Stdin(ProcessId),
}

struct Supervisor {
    config: KeeperConfig,
    cgroup: Cgroup,
    listener: UnixListener,
    signals: OwnedFd,
    agent: Option<Connection>,
    /// A connection that waits for the slot to be warm before its Hello.
    greeted: bool,
    stage: Stage,
    container: Option<Container>,
    /// The stub while it waits for a plan.
    stub: Option<Launch>,
    launches: HashMap<ProcessId, Launch>,
    processes: BTreeMap<ProcessId, Process>,
    /// Statuses of children that died before their launch was over, or that nobody asks for.
    reaped: HashMap<i32, ExitStatus>,
    /// Parent of what exec starts; made for the first one.
    reaper: Option<Reaper>,
    /// As `reaped`, for the reaper's children, whose pids are the container's.
    reaped_inside: HashMap<i32, ExitStatus>,
    /// The number of the request to be answered when all is gone.
    destroyer: Option<u64>,
    buffer: Box<[u8; RECORD_MAX]>,
}

/// A keeper's whole life; the result is its exit code. The caller is a freshly forked child of
/// the launcher with nothing open but `listener` and standard streams.
pub(crate) fn run(config: KeeperConfig, listener: UnixListener) -> i32 {
    match Supervisor::new(config, listener).and_then(|mut keeper| keeper.live()) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

impl Supervisor {
    fn new(config: KeeperConfig, listener: UnixListener) -> io::Result<Self> {
        let _ = rustix::process::setsid();
        if let Err(error) = oom::protect(oom::KEEPER) {
            // The agent's log; the container is better served at this risk than not at all.
            let _ = writeln!(
                io::stderr(),
                "teu-node keeper {}: the kernel may kill it before its container when memory runs out: {error}",
                config.slot
            );
        }
        fork::return_memory_early();
        listener.set_nonblocking(true)?;
        let cgroup = Cgroup::named(
            &config.hierarchies,
            &config.cgroup_parent,
            config.slot.as_str(),
        );
        let signals = fork::signal_fd(&[libc::SIGCHLD])?;
        let mut keeper = Self {
            config,
            cgroup,
            listener,
            signals,
            agent: None,
            greeted: false,
            stage: Stage::Preparing,
            container: None,
            stub: None,
            launches: HashMap::new(),
            processes: BTreeMap::new(),
            reaped: HashMap::new(),
            reaper: None,
            reaped_inside: HashMap::new(),
            destroyer: None,
            buffer: Box::new([0; RECORD_MAX]),
        };
        if let Err(error) = keeper.prepare() {
            keeper.stage = Stage::Broken(error.to_string());
        }
        Ok(keeper)
    }

    fn prepare(&mut self) -> io::Result<()> {
        self.cgroup.create().map_err(io::Error::other)?;
        namespaces::private_mounts()?;
        // This namespace lasts as long as the slot; volumes that it kept could not be destroyed.
        mount_table::detach_below(&self.config.volumes)?;
        netns::enter_fresh()?;
        self.stub = Some(self.fork_stub()?);
        Ok(())
    }

    fn live(&mut self) -> io::Result<()> {
        while !matches!(self.stage, Stage::Ending) {
            let ready = self.wait()?;
            for (token, events) in ready {
                self.handle(token, events);
            }
            self.end_overdue();
            self.announce();
        }
        self.end();
        Ok(())
    }

    // Waiting.

    fn wait(&mut self) -> io::Result<Vec<(Token, PollFlags)>> {
        let now = Instant::now();
        let due = self
            .processes
            .values_mut()
            .filter_map(|one| one.places.expire(now))
            .min();
        let deadlines = self.processes.values().filter_map(|one| one.deadline);
        let due = deadlines.chain(due).min();
        let timeout = due.map(|at| {
            let left = at.saturating_duration_since(now) + Duration::from_millis(1);
            Timespec::try_from(left).unwrap_or(Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            })
        });
        let watched = self.watched();
        let mut fds: Vec<PollFd<'_>> = watched
            .iter()
            .map(|(_, fd, events)| PollFd::from_borrowed_fd(*fd, *events))
            .collect();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(watched
            .iter()
            .zip(&fds)
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|((token, ..), fd)| (*token, fd.revents()))
            .collect())
    }

    fn watched(&self) -> Vec<(Token, BorrowedFd<'_>, PollFlags)> {
        let mut all = vec![
            (Token::Signals, self.signals.as_fd(), PollFlags::IN),
            (Token::Listener, self.listener.as_fd(), PollFlags::IN),
        ];
        if let Some(agent) = &self.agent {
            let writing = if agent.has_output() {
                PollFlags::OUT
            } else {
                PollFlags::empty()
            };
            all.push((Token::Agent, agent.as_fd(), PollFlags::IN | writing));
        }
        if let Some(reaper) = &self.reaper {
            all.push((Token::Reaper, reaper.socket.as_fd(), PollFlags::IN));
        }
        for launch in self.launches.values().chain(&self.stub) {
            all.push((
                Token::Launch(launch.id),
                launch.socket.as_fd(),
                PollFlags::IN,
            ));
        }
        for process in self.processes.values() {
            if !process.is_paused() {
                for (index, output) in process.outputs.iter().enumerate() {
                    let Some((fd, _)) = output else { continue };
                    all.push((Token::Output(process.id, index), fd.as_fd(), PollFlags::IN));
                }
            }
            if let Some(fd) = process.stdin_waiting() {
                all.push((Token::Stdin(process.id), fd.as_fd(), PollFlags::OUT));
            }
        }
        all
    }

    fn handle(&mut self, token: Token, events: PollFlags) {
        match token {
            Token::Signals => self.reap(),
            Token::Listener => self.accept(),
            Token::Agent => self.serve_agent(events),
            Token::Reaper => self.reap_inside(),
            Token::Launch(id) => self.follow_launch(id),
            Token::Output(id, index) => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.read_output(index, &mut self.buffer);
                }
            }
            Token::Stdin(id) => self.write_stdin(id),
        }
    }

    // The agent.

    fn accept(&mut self) {
        let Ok((socket, _)) = self.listener.accept() else {
            return;
        };
        let Ok(connection) = Connection::new(socket) else {
            return;
        };
        // The newest agent is the agent: an older connection is a dead agent's, or about to be.
        self.lose_agent();
        self.agent = Some(connection);
        self.greeted = false;
        self.greet();
    }

    /// The Hello waits until it is known whether the slot is warm or broken.
    fn greet(&mut self) {
        if matches!(self.stage, Stage::Preparing) || self.greeted || self.agent.is_none() {
            return;
        }
        self.greeted = true;
        let broken = match &self.stage {
            Stage::Broken(reason) => Some(reason.clone()),
            _ => None,
        };
        let hello = KeeperHello {
            slot: self.config.slot.clone(),
            keeper_pid: rustix::process::getpid().as_raw_nonzero().get(),
            container: self.container.as_ref().map(|one| one.id),
            processes: self.processes.values().map(Process::state).collect(),
            broken,
            version: VERSION,
        };
        for process in self.processes.values_mut() {
            process.announced_end = process.log_end();
        }
        self.tell(&Message::Hello(hello));
    }

    fn lose_agent(&mut self) {
        if self.agent.take().is_some() {
            self.processes
                .values_mut()
                .for_each(|process| process.places.orphan());
        }
    }

    fn tell(&mut self, message: &Message) {
        if let Some(agent) = &mut self.agent
            && agent.send(message).is_err()
        {
            self.lose_agent();
        }
    }

    fn event(&mut self, event: KeeperEvent) {
        if self.greeted {
            self.tell(&Message::Event(event));
        }
    }

    fn reply(&mut self, number: u64, outcome: Outcome) {
        self.tell(&Message::Reply { number, outcome });
    }

    /// New log ends, merged: while the agent has unread messages, it hears of growth later.
    fn announce(&mut self) {
        if !self.greeted || self.agent.as_ref().is_none_or(Connection::has_output) {
            return;
        }
        let mut grown = Vec::new();
        for process in self.processes.values_mut() {
            let end = process.log_end();
            if end > process.announced_end {
                process.announced_end = end;
                grown.push(KeeperEvent::LogGrown {
                    process: process.id,
                    end,
                });
            }
        }
        grown.into_iter().for_each(|event| self.event(event));
    }

    fn serve_agent(&mut self, events: PollFlags) {
        let Some(agent) = &mut self.agent else { return };
        let mut alive = agent.flush().is_ok();
        if alive && events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            alive = agent.fill().unwrap_or(false);
        }
        // What came before the end of the stream is still done.
        loop {
            match self.agent.as_mut().map(Connection::next_request) {
                Some(Ok(Some(request))) => self.request(request),
                Some(Ok(None)) | None => break,
                Some(Err(_)) => {
                    alive = false;
                    break;
                }
            }
        }
        if !alive {
            self.lose_agent();
        }
    }

    // Children.

    fn process_ended(&mut self, id: ProcessId, status: ExitStatus) {
        if self
            .container
            .as_ref()
            .is_some_and(|one| one.id.main_process() == id)
        {
            // All others in the pid namespace are dead: what the reaper said last, then the rest.
            self.reap_inside();
            self.end_inside();
        }
        let oom_kills = self.cgroup.oom_kills();
        let Some(process) = self.processes.get_mut(&id) else {
            return;
        };
        // Whoever ends a process by a signal means what it started too.
        if let (ExitStatus::Signal(signal), Some(cgroup)) = (status, &process.cgroup)
            && process.signalled == Some(signal)
        {
            let _ = cgroup.kill_all();
        }
        process.drain_output(&mut self.buffer);
        process.close_stdin();
        process.ended = Some(status);
        let exit = ProcessExit {
            status,
            timed_out: process.timed_out,
            oom: oom_kills > 0 && status.code() == ExitStatus::Signal(libc::SIGKILL).code(),
        };
        process.exit = Some(exit);
        process.told = self.greeted && self.agent.is_some();
        let log_end = process.log_end();
        process.announced_end = log_end;
        let container = self.container.as_ref();
        if container.is_some_and(|one| one.id.main_process() == id) {
            self.record_exit(exit, log_end);
            self.stage = Stage::Ending;
        }
        self.event(KeeperEvent::Exited {
            process: id,
            exit,
            log_end,
        });
    }

    fn record_exit(&self, exit: ProcessExit, log_end: u64) {
        if let Some(container) = &self.container {
            let record = ExitRecord {
                container: container.id,
                exit,
                log_end,
                finished_ms: unix_ms(),
            };
            // The agent that is connected hears it anyway; to another it is "ended, unknown how".
            let _ = record.write(&container.dir);
        }
    }

    /// Leaves nothing behind: processes, cgroup, socket. Mounts and network go with the process.
    fn end(&mut self) {
        let killed = self.cgroup.kill_all();
        // Whoever was killed here is reaped before the groups can be removed.
        while wait(WaitOptions::empty()).is_ok_and(|one| one.is_some()) {}
        let removed = killed.and_then(|()| self.cgroup.remove());
        let _ = std::fs::remove_file(super::socket_path(&self.config.run_dir, &self.config.slot));
        if let Some(number) = self.destroyer.take() {
            let outcome = match removed {
                Ok(()) => Outcome::Done,
                Err(error) => {
                    Outcome::Refused(super::stub::failed(super::wire::StartStep::Destroy)(error))
                }
            };
            self.reply(number, outcome);
        }
        if let Some(agent) = &mut self.agent {
            agent.drain(FAREWELL);
        }
    }

    fn write_stdin(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get_mut(&id) else {
            return;
        };
        let before = process.stdin_consumed();
        let closed = process.write_stdin();
        let total = process.stdin_consumed();
        if total > before {
            self.event(KeeperEvent::StdinConsumed { process: id, total });
        }
        if closed {
            self.event(KeeperEvent::StdinClosed { process: id });
        }
    }

    fn refuse(&mut self, number: u64, refusal: Refusal) {
        self.reply(number, Outcome::Refused(refusal));
    }
}
