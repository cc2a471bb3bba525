//! Runs the file systems' own tools: with a deadline, without a shell, in English.
//!
//! Owner: one pool. Invariant: a tool that outlives a killed agent keeps the pool's lock, so that the next
//! agent waits for it before it recovers.
//! Next: `patience.rs` for tools that hang; `btrfs.rs` and `zfs/command.rs`, which know what the tools say.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

use super::{PoolError, patience::Patience};

/// How long an earlier agent's tools may take to end.
const LOCK_DEADLINE: Duration = Duration::from_secs(20);
/// The most that is kept of what a tool says when it fails.
const SAID_MAX: usize = 600;

/// Where tools lie, whatever the agent's own PATH.
const DIRS: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"];

/// Which of them are not installed.
pub(super) fn missing<'a>(programs: &[(&'a str, &'a str)]) -> Vec<&'a str> {
    let is_there = |name: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::env::split_paths(&path).chain(DIRS.iter().map(Into::into));
        dirs.into_iter().any(|dir| dir.join(name).is_file())
    };
    let names = programs.iter().map(|(name, _)| *name);
    names.filter(|name| !is_there(name)).collect()
}

/// How a tool failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// It said so: the command line and its standard error.
    Said { command: String, said: String },
    /// It could not be run, or did not answer.
    Pool(PoolError),
}

impl From<Failed> for PoolError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Pool(error) => error,
            Failed::Said { command, said } if said.contains("No space left") => {
                tracing::debug!(command, said, "the pool is full");
                Self::Full
            }
            Failed::Said { said, .. } if said.contains("Read-only file system") => {
                Self::Faulted(format!("the pool is read-only: {said}"))
            }
            Failed::Said { command, said } => Self::Tool { command, said },
        }
    }
}

impl From<PoolError> for Failed {
    fn from(error: PoolError) -> Self {
        Self::Pool(error)
    }
}

/// Runs tools for one pool.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    lock: Arc<File>,
    patience: Patience,
}

impl Tools {
    /// Takes the pool's lock, waiting for tools that an earlier agent left running.
    pub(crate) fn lock(file: &Path) -> Result<Self, PoolError> {
        let open = || {
            let mut options = File::options();
            options.create(true).truncate(false).read(true).write(true);
            options.open(file)
        };
        let lock = open().map_err(failed_io(format!("open {}", file.display())))?;
        let end = Instant::now() + LOCK_DEADLINE;
        // No way to wait for a flock with a deadline but to ask again.
        while let Err(errno) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if errno != rustix::io::Errno::WOULDBLOCK || Instant::now() > end {
                let holder = format!(
                    "another agent, or a command of an earlier one, has {} locked; stop it",
                    file.display()
                );
                return Err(PoolError::Busy(holder));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Self {
            lock: Arc::new(lock),
            patience: Patience::default(),
        })
    }

    /// The pool's, which its tools share with whatever else may hang.
    pub(super) fn patience(&self) -> &Patience {
        &self.patience
    }

    /// Runs a tool to its end and gives what it wrote to its standard output.
    pub(super) fn run<S: AsRef<OsStr>>(
        &self,
        program: &'static str,
        args: &[S],
    ) -> Result<String, Failed> {
        let (input, output) = (self.locked()?, Stdio::piped());
        self.spawn(program, args, input, output, Some(&self.patience))
    }

    /// Runs a tool that moves a volume's content, for as long as it takes.
    pub(super) fn stream<S: AsRef<OsStr>>(
        &self,
        program: &'static str,
        args: &[S],
        stream: Stream,
    ) -> Result<(), Failed> {
        let (input, output) = match stream {
            // The lock goes along in either direction.
            Stream::To(out) => (self.locked()?, Stdio::from(out)),
            Stream::From(input) => (Stdio::from(input), self.locked()?),
        };
        self.spawn(program, args, input, output, None).map(drop)
    }

    fn locked(&self) -> Result<Stdio, Failed> {
        let lock = self.lock.try_clone();
        let lock = lock.map_err(failed_io("duplicate the pool's lock".to_owned()))?;
        Ok(Stdio::from(lock))
    }

    fn spawn<S: AsRef<OsStr>>(
        &self,
        program: &'static str,
        args: &[S],
        input: Stdio,
        output: Stdio,
        patience: Option<&Patience>,
    ) -> Result<String, Failed> {
        self.patience.check()?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::env::split_paths(&path).chain(DIRS.iter().map(Into::into));
        let path = std::env::join_paths(dirs).unwrap_or_default();
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .env("LC_ALL", "C")
            .env("PATH", path);
        let line = line(program, args);
        let started = Instant::now();
        let mut child = command
            .stdin(input)
            .stdout(output)
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| cannot_run(program, source))?;
        let out = child.stdout.take().map(read_all);
        let err = child.stderr.take().map(read_all);
        if let Some(patience) = patience {
            child = patience.wait(child, &line)?;
        }
        let status = child
            .wait()
            .map_err(failed_io(format!("wait for `{line}`")))?;
        let text = |reader: Option<JoinHandle<Vec<u8>>>| {
            let bytes = reader
                .and_then(|reader| reader.join().ok())
                .unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (out, err) = (text(out), text(err));
        tracing::trace!(command = line, took = ?started.elapsed(), %status, "ran");
        if status.success() {
            return Ok(out);
        }
        let mut said: String = one_line(&err);
        if said.is_empty() {
            said = format!("{status}, without a word");
        }
        Err(Failed::Said {
            command: line,
            said,
        })
    }
}

/// Where a volume's content goes to or comes from.
pub(super) enum Stream {
    To(OwnedFd),
    From(OwnedFd),
}

fn read_all<R: Read + Send + 'static>(mut from: R) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

fn cannot_run(program: &'static str, source: io::Error) -> PoolError {
    if source.kind() != io::ErrorKind::NotFound {
        return failed_io(format!("run `{program}`"))(source);
    }
    let package = match program {
        "zfs" | "zpool" => "zfsutils-linux",
        "losetup" => "mount",
        "flock" => "util-linux",
        _ => "btrfs-progs",
    };
    PoolError::NoTool { program, package }
}

/// The command line, for people; a record in it is cut.
fn line<S: AsRef<OsStr>>(program: &str, args: &[S]) -> String {
    let mut line = program.to_owned();
    for arg in args {
        let arg = arg.as_ref().to_string_lossy();
        line.push(' ');
        line.extend(arg.chars().take(100));
        if arg.len() > 100 {
            line.push('…');
        }
    }
    line
}

fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines.join("; ").chars().take(SAID_MAX).collect()
}

/// For `map_err`: what was attempted.
pub(super) fn failed_io<E: Into<io::Error>>(action: String) -> impl FnOnce(E) -> PoolError {
    move |source| {
        let source = source.into();
        match source.raw_os_error() {
            Some(libc::ENOSPC) => PoolError::Full,
            Some(libc::EROFS) => PoolError::Faulted(format!(
                "cannot {action}: the pool is read-only; see `dmesg`"
            )),
            Some(libc::EIO | libc::ENXIO | libc::ENOTCONN) => {
                PoolError::Faulted(format!("cannot {action}: {source}; see `dmesg`"))
            }
            _ => PoolError::Io { action, source },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn tools() -> (tempfile::TempDir, Tools) {
        let dir = tempfile::tempdir().unwrap();
        let mut tools = Tools::lock(&dir.path().join("lock")).unwrap();
        tools.patience = Patience::of(Duration::from_millis(300), Duration::ZERO);
        (dir, tools)
    }

    #[test]
    fn what_a_tool_says_comes_back() {
        let (_dir, tools) = tools();
        assert_eq!(tools.run("echo", &["a b"]).unwrap(), "a b\n");
        let Err(Failed::Said { command, said }) =
            tools.run("sh", &["-c", "echo x >&2; echo y >&2; exit 3"])
        else {
            unreachable!("it failed");
        };
        assert_eq!(
            (command.as_str(), said.as_str()),
            ("sh -c echo x >&2; echo y >&2; exit 3", "x; y")
        );
        let Err(Failed::Pool(PoolError::NoTool { .. })) = tools.run("no-such-program", &[""])
        else {
            unreachable!("there is none");
        };
    }

    #[test]
    fn a_tool_that_hangs_is_given_up() {
        let (_dir, tools) = tools();
        let Err(Failed::Pool(PoolError::Faulted(why))) = tools.run("sleep", &["1000"]) else {
            unreachable!("it hangs");
        };
        assert!(why.contains("did not answer"), "{why}");
        tools.run("true", &[""; 0]).unwrap();
    }

    #[test]
    fn a_tool_that_is_left_running_keeps_the_lock() {
        let (dir, tools) = tools();
        let lock = tools.lock.try_clone().unwrap();
        let mut left = Command::new("sleep")
            .arg("0.3")
            .stdin(lock)
            .spawn()
            .unwrap();
        drop(tools);
        let started = Instant::now();
        drop(Tools::lock(&dir.path().join("lock")).unwrap());
        assert!(started.elapsed() > Duration::from_millis(200));
        left.wait().unwrap();
    }
}
