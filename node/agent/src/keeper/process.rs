//! One process of a container as its keeper sees it: pipes, log, followers, end.
//!
//! Owner: the supervisor. Invariant: a process is reported as ended only after all that it wrote is
//! in its log, or kept for its readers if that cannot be written; nothing but a place that is far behind
//! ever stops it. Next: `places`, `output`.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use teu_protocol::ids::{AttachmentId, ProcessId};

use super::{
    log::{Channel, LogRecord, LogWriter, RECORD_MAX},
    output::Output,
    payload::ChildStdio,
    places::{Places, Speaker},
    wire::{ExitStatus, ProcessExit, ProcessState, Refusal, STDIN_WINDOW},
};
use crate::sys::cgroup::Cgroup;

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
    /// The last signal that a client sent it.
    pub signalled: Option<i32>,
    /// Standard output first; a closed one is `None`.
    pub outputs: Vec<Option<(OwnedFd, Channel)>>,
    pub terminal: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    stdin_queue: VecDeque<u8>,
    stdin_eof: bool,
    stdin_consumed: u64,
    output: Output,
    /// The end cursor that the agent was told.
    pub announced_end: u64,
    pub places: Places,
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
            Some((pipes.stdout, Channel::Stdout)),
            Some((pipes.stderr, Channel::Stderr)),
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
        process.outputs = vec![Some((master.try_clone()?, Channel::Stdout))];
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
            signalled: None,
            outputs: Vec::new(),
            terminal: None,
            stdin: None,
            stdin_queue: VecDeque::new(),
            stdin_eof: false,
            stdin_consumed: 0,
            announced_end: log.end(),
            output: Output::new(log),
            places: Places::default(),
            ended: None,
            exit: None,
            told: false,
        }
    }

    pub(super) fn state(&self) -> ProcessState {
        ProcessState {
            id: self.id,
            pid: self.pid,
            log_end: self.output.end(),
            stdin_consumed: self.stdin_consumed,
            exit: self.exit,
            readers: self.places.owners(),
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
        self.output.end()
    }

    // Output.

    /// Whether a place lags so far that the process has to wait; also when there is no room for what
    /// the place has not read and the log cannot hold.
    pub(super) fn is_paused(&self) -> bool {
        self.places.slowest().is_some_and(|slowest| {
            let lag = self.output.end().saturating_sub(slowest);
            lag > self.output.lag_max() || (lag > 0 && self.output.is_full())
        })
    }

    /// Moves one read's worth of output into the log. A closed stream is forgotten.
    pub(super) fn read_output(&mut self, index: usize, buffer: &mut [u8; RECORD_MAX]) -> usize {
        let Some(output) = self.outputs.get_mut(index) else {
            return 0;
        };
        let Some((fd, channel)) = output else {
            return 0;
        };
        match rustix::io::read(fd, &mut buffer[..]) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => 0,
            // A terminal says EIO when its last user has closed it.
            Ok(0) | Err(_) => {
                *output = None;
                0
            }
            Ok(got) => {
                let is_read = self.places.slowest().is_some();
                self.output
                    .take(*channel, unix_ms(), &buffer[..got], is_read);
                got
            }
        }
    }

    /// After the process's end: all that it left in its pipes. The channels take turns, so that neither
    /// moves far ahead of the other.
    pub(super) fn drain_output(&mut self, buffer: &mut [u8; RECORD_MAX]) {
        let mut left = vec![FINAL_DRAIN_MAX; self.outputs.len()];
        loop {
            let mut got_any = false;
            for (index, left) in left.iter_mut().enumerate() {
                if *left > 0 {
                    let got = self.read_output(index, buffer);
                    *left = left.saturating_sub(got);
                    got_any |= got > 0;
                }
            }
            if !got_any {
                return;
            }
        }
    }

    /// A client stands at `cursor`; how much of its input was taken is told.
    pub(super) fn place(
        &mut self,
        speaker: Speaker,
        owner: Option<AttachmentId>,
        cursor: Option<u64>,
    ) -> Result<u64, Refusal> {
        let cursor = cursor.map(|cursor| cursor.min(self.output.end()));
        let input = self.places.place(speaker, owner, cursor)?;
        if let Some(slowest) = self.places.slowest() {
            self.output.was_read(slowest);
        }
        Ok(input)
    }

    /// Output that is not in the log yet.
    pub(super) fn unwritten(&mut self, cursor: u64) -> Vec<LogRecord> {
        self.output.write();
        self.output.unwritten(cursor)
    }

    // Input.

    /// Takes input of a place, as much as there is room for; how much of its input was taken in all
    /// is told.
    pub(super) fn take_input(
        &mut self,
        speaker: Speaker,
        offset: u64,
        bytes: &[u8],
        eof: bool,
    ) -> Result<u64, Refusal> {
        let fresh = self.places.fresh(speaker, offset, bytes.len() as u64)?;
        let fresh = usize::try_from(fresh)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let fresh = &bytes[bytes.len() - fresh..];
        let room = (STDIN_WINDOW as usize).saturating_sub(self.stdin_queue.len());
        let taken = &fresh[..fresh.len().min(room)];
        self.queue_stdin(taken, eof && taken.len() == fresh.len())?;
        Ok(self.places.took(speaker.reader, taken.len() as u64))
    }

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
