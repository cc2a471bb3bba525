//! One process of a container as its keeper sees it: pipes, log, followers, end.
//!
//! Owner: the supervisor. Invariant: a process is reported as ended only after all that it wrote is
//! in its log; nobody's slowness but a lossless follower's ever stops it.

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use teu_protocol::ids::ProcessId;

use super::{
    log::{Channel, LogWriter, RECORD_MAX},
    payload::ChildStdio,
    wire::{ExitStatus, FOLLOWER_LAG_MAX, ProcessExit, ProcessState, Refusal, STDIN_WINDOW},
};
use crate::sys::cgroup::Cgroup;

/// A follower whose agent went away counts for this long: time for a restart and a new
/// acknowledgement.
const FOLLOWER_GRACE: Duration = Duration::from_secs(60);
/// What may still be in a pipe when its writer has died: its largest size.
const FINAL_DRAIN_MAX: usize = 1 << 20;
/// Ends a terminal's input (VEOF), as its user would.
const END_OF_TRANSMISSION: u8 = 4;

/// The keeper's ends of a process's pipes, and the process's own.
pub(super) struct Pipes {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

impl Pipes {
    /// Makes three pipes; the keeper's ends never block.
    pub(super) fn new() -> io::Result<(Self, ChildStdio)> {
        use std::rc::Rc;
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let ((stdin_r, stdin_w), (out_r, out_w), (err_r, err_w)) = (pipe()?, pipe()?, pipe()?);
        for fd in [&stdin_w, &out_r, &err_r] {
            nonblocking(fd)?;
        }
        let child = ChildStdio {
            stdin: Rc::new(stdin_r),
            stdout: Rc::new(out_w),
            stderr: Rc::new(err_w),
        };
        Ok((
            Self {
                stdin: stdin_w,
                stdout: out_r,
                stderr: err_r,
            },
            child,
        ))
    }
}

fn nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    Ok(rustix::fs::fcntl_setfl(
        &fd,
        flags | rustix::fs::OFlags::NONBLOCK,
    )?)
}

struct Follower {
    cursor: u64,
    /// Set while no agent is connected that could move it.
    expires: Option<Instant>,
}

/// See the module.
pub(super) struct Process {
    pub id: ProcessId,
    /// As the host sees it; 0 if it was dead before that was known.
    pub pid: i32,
    /// As the reaper sees it, which is then its parent: the container's number.
    pub pid_inside: Option<i32>,
    pub pidfd: Option<OwnedFd>,
    /// Its own group, for a further process.
    pub cgroup: Option<Cgroup>,
    /// When it is to be killed.
    pub deadline: Option<Instant>,
    pub timed_out: bool,
    pub outputs: Vec<(OwnedFd, Channel)>,
    pub terminal: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    stdin_queue: VecDeque<u8>,
    stdin_eof: bool,
    stdin_consumed: u64,
    log: LogWriter,
    /// The end cursor that the agent was told.
    pub announced_end: u64,
    followers: HashMap<u64, Follower>,
    /// Reaped, maybe not reported yet.
    pub ended: Option<ExitStatus>,
    pub exit: Option<ProcessExit>,
    /// An agent was there to hear of the end.
    pub told: bool,
}

impl Process {
    pub(super) fn with_pipes(
        id: ProcessId,
        pid: i32,
        log: LogWriter,
        pipes: Pipes,
        open_stdin: bool,
    ) -> Self {
        let mut process = Self::new(id, pid, log);
        process.stdin = open_stdin.then_some(pipes.stdin);
        process.outputs = vec![
            (pipes.stdout, Channel::Stdout),
            (pipes.stderr, Channel::Stderr),
        ];
        process
    }

    pub(super) fn with_terminal(
        id: ProcessId,
        pid: i32,
        log: LogWriter,
        master: OwnedFd,
        open_stdin: bool,
    ) -> io::Result<Self> {
        nonblocking(&master)?;
        let mut process = Self::new(id, pid, log);
        process.stdin = if open_stdin {
            Some(master.try_clone()?)
        } else {
            None
        };
        process.outputs = vec![(master.try_clone()?, Channel::Stdout)];
        process.terminal = Some(master);
        Ok(process)
    }

    fn new(id: ProcessId, pid: i32, log: LogWriter) -> Self {
        let pidfd = rustix::process::Pid::from_raw(pid).and_then(|pid| {
            rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
        });
        Self {
            id,
            pid,
            pid_inside: None,
            pidfd,
            cgroup: None,
            deadline: None,
            timed_out: false,
            outputs: Vec::new(),
            terminal: None,
            stdin: None,
            stdin_queue: VecDeque::new(),
            stdin_eof: false,
            stdin_consumed: 0,
            announced_end: log.end(),
            log,
            followers: HashMap::new(),
            ended: None,
            exit: None,
            told: false,
        }
    }

    pub(super) fn state(&self) -> ProcessState {
        ProcessState {
            id: self.id,
            pid: self.pid,
            log_end: self.log.end(),
            stdin_consumed: self.stdin_consumed,
            exit: self.exit,
        }
    }

    /// It has died or is dying, though its end may not have been told yet. A first process that dies has
    /// no root any more while it waits for all others in its pid namespace to be dead.
    pub(super) fn is_dead(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // A pidfd is readable once its process is dead.
        self.ended.is_some()
            || std::fs::read_link(format!("/proc/{}/root", self.pid)).is_err()
            || self.pidfd.as_ref().is_some_and(|pidfd| {
                poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now)) == Ok(1)
            })
    }

    pub(super) const fn log_end(&self) -> u64 {
        self.log.end()
    }

    // Output.

    /// Whether a lossless follower lags so far that the process has to wait.
    pub(super) fn is_paused(&self) -> bool {
        self.followers
            .values()
            .map(|one| one.cursor)
            .min()
            .is_some_and(|slowest| self.log.end().saturating_sub(slowest) > FOLLOWER_LAG_MAX)
    }

    /// Moves one read's worth of output into the log. A closed stream is forgotten.
    pub(super) fn read_output(&mut self, index: usize, buffer: &mut [u8; RECORD_MAX]) -> usize {
        let Some((fd, channel)) = self.outputs.get(index) else {
            return 0;
        };
        match rustix::io::read(fd, &mut buffer[..]) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => 0,
            // A terminal says EIO when its last user has closed it.
            Ok(0) | Err(_) => {
                self.outputs.remove(index);
                0
            }
            Ok(got) => {
                // A full disk loses output, not the container.
                let _ = self.log.append(*channel, unix_ms(), &buffer[..got]);
                got
            }
        }
    }

    /// After the process's end: all that it left in its pipes.
    pub(super) fn drain_output(&mut self, buffer: &mut [u8; RECORD_MAX]) {
        let mut index = 0;
        while index < self.outputs.len() {
            let (before, mut drained) = (self.outputs.len(), 0);
            loop {
                let got = self.read_output(index, buffer);
                drained += got;
                if got == 0 || drained >= FINAL_DRAIN_MAX {
                    break;
                }
            }
            if self.outputs.len() == before {
                index += 1;
            }
        }
    }

    pub(super) fn acknowledge(&mut self, follower: u64, cursor: Option<u64>) {
        match cursor {
            Some(cursor) => {
                self.followers.insert(
                    follower,
                    Follower {
                        cursor,
                        expires: None,
                    },
                );
            }
            None => {
                self.followers.remove(&follower);
            }
        }
    }

    /// The agent went away: its followers count for a while longer.
    pub(super) fn orphan_followers(&mut self) {
        let until = Instant::now() + FOLLOWER_GRACE;
        self.followers
            .values_mut()
            .for_each(|one| one.expires = one.expires.or(Some(until)));
    }

    /// Forgets followers that nobody took over; returns when the next one is due.
    pub(super) fn expire_followers(&mut self, now: Instant) -> Option<Instant> {
        self.followers
            .retain(|_, one| one.expires.is_none_or(|at| at > now));
        self.followers.values().filter_map(|one| one.expires).min()
    }

    // Input.

    pub(super) fn queue_stdin(&mut self, bytes: &[u8], eof: bool) -> Result<(), Refusal> {
        if self.stdin.is_none() {
            self.stdin_consumed += bytes.len() as u64;
            return Ok(());
        }
        if (self.stdin_queue.len() + bytes.len()) as u64 > STDIN_WINDOW {
            return Err(Refusal::StdinOverrun);
        }
        self.stdin_queue.extend(bytes);
        self.stdin_eof |= eof;
        Ok(())
    }

    pub(super) fn stdin_waiting(&self) -> Option<&OwnedFd> {
        self.stdin.as_ref().filter(|_| !self.stdin_queue.is_empty())
    }

    pub(super) const fn stdin_consumed(&self) -> u64 {
        self.stdin_consumed
    }

    pub(super) const fn stdin_is_open(&self) -> bool {
        self.stdin.is_some()
    }

    /// Writes what the process takes. `true` if it has just turned out not to read any more.
    pub(super) fn write_stdin(&mut self) -> bool {
        loop {
            let Some(fd) = &self.stdin else { return false };
            let (front, _) = self.stdin_queue.as_slices();
            if front.is_empty() {
                break;
            }
            match rustix::io::write(fd, front) {
                Ok(taken) => {
                    self.stdin_queue.drain(..taken);
                    self.stdin_consumed += taken as u64;
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return false,
                Err(_) => {
                    self.close_stdin();
                    return true;
                }
            }
        }
        if self.stdin_eof {
            if let Some(terminal) = &self.terminal {
                let _ = rustix::io::write(terminal, &[END_OF_TRANSMISSION]);
            }
            self.stdin = None;
        }
        false
    }

    pub(super) fn close_stdin(&mut self) {
        self.stdin_consumed += self.stdin_queue.len() as u64;
        self.stdin_queue = VecDeque::new();
        self.stdin = None;
    }
}

/// Now, as records and exit files tell it.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
