//! The supervisor: starts master and node, starts again what crashes, ends both on a signal.
//!
//! ```text
//!            ended                  waited (backoff.rs)
//!  running ────────► waiting ───────────────────────────► running
//! ```
//! Before the location was ready for the first time, a daemon that ends again and again ends the start.

use std::{
    fs,
    future::Future,
    io::{Seek as _, Write as _},
    os::unix::process::ExitStatusExt as _,
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, flock},
    process::Signal,
};
use tokio::{
    process::{Child, Command},
    time::Instant,
};

use super::{
    DevError, Layout,
    backoff::{Backoff, WELL_AFTER},
    claim,
    detach::READY,
    error::file_error,
    processes, settle,
};
use crate::{args::Globals, failure::Failure, output, signals::Interrupts};

/// How long a child may take to end after SIGTERM.
pub(super) const END_WITHIN: Duration = Duration::from_secs(10);

/// Daemons that ended at their start had a moment in which they lived: shorter than any real start takes.
const STEADY_AFTER: Duration = Duration::from_millis(250);

/// A daemon that has ended so often without having been well will not start.
const GIVE_UP_AFTER: u32 = 3;

/// The pid file, locked for as long as the supervisor lives.
#[derive(Debug)]
struct PidFile(fs::File);

/// Who waits for the supervisor's word that the location is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// A person at the terminal. With `new`, the location is made by this start.
    Person { new: bool },
    /// `teu dev --detach`.
    Starter,
}

/// Runs the location until a signal ends it. Containers go on; `teu dev --stop` ends them.
pub(super) async fn supervise(
    globals: &Globals,
    layout: &Layout,
    told: Told,
) -> Result<(), Failure> {
    let mut interrupts = Interrupts::listen().map_err(Failure::Terminal)?;
    let _lock = PidFile::take(layout)?;
    end_orphans(layout).await?;
    let master_key = settle::settle(layout).await?;
    let mut master = Service::start("teu-master", layout.run_master())?;
    let mut node = Service::start("teu-node", layout.run_node(&master_key))?;
    let ready = wait_ready(globals, layout, told);
    let outcome = tokio::select! {
        outcome = run(&mut master, &mut node, ready, || tell(globals, layout, told)) => outcome,
        _ = interrupts.next() => Ok(()),
    };
    node.end().await;
    master.end().await;
    outcome
}

/// Daemons whose supervisor was killed run on; two of a kind would fight.
async fn end_orphans(layout: &Layout) -> Result<(), Failure> {
    for daemon in processes::daemons(&layout.data) {
        output::note(&format!(
            "teu dev: ending {} (process {}), which an earlier supervisor has left",
            daemon.program, daemon.pid
        ));
    }
    let left = processes::end(&layout.data, END_WITHIN).await;
    if let Some(daemon) = left.first() {
        let what = format!("{} (process {})", daemon.program, daemon.pid);
        return Err(DevError::StillRunning(what).into());
    }
    let port = layout.mark.port;
    if claim::port_is_free(port) {
        Ok(())
    } else {
        Err(DevError::PortTaken(port).into())
    }
}

async fn wait_ready(globals: &Globals, layout: &Layout, told: Told) -> Result<(), Failure> {
    settle::wait_ready(globals, layout).await?;
    match told {
        // It looks for itself.
        Told::Starter => Ok(()),
        Told::Person { new } => match settle::check_pool(globals, layout).await {
            Err(failure) if !new => {
                output::note(&format!("teu dev: {failure}"));
                Ok(())
            }
            checked => checked,
        },
    }
}

fn tell(globals: &Globals, layout: &Layout, told: Told) {
    match told {
        // Who started us may be gone; that is no reason to end.
        Told::Starter => {
            let _ = output::line(READY);
        }
        Told::Person { .. } => output::note(&format!(
            "location `{}` is ready at {}; try, in another terminal: {}",
            layout.name(),
            layout.endpoint(),
            settle::client_command(globals, layout, "resources"),
        )),
    }
}

/// Keeps both daemons running; calls `tell` once, when the location is ready and neither has crashed
/// lately. Ends if that does not come to be.
async fn run(
    master: &mut Service,
    node: &mut Service,
    ready: impl Future<Output = Result<(), Failure>>,
    tell: impl Fn(),
) -> Result<(), Failure> {
    let mut ready = std::pin::pin!(ready);
    let (mut is_ready, mut is_told) = (false, false);
    let mut steady_at = Instant::now() + STEADY_AFTER;
    loop {
        let ended = tokio::select! {
            outcome = &mut ready, if !is_ready => {
                outcome?;
                is_ready = true;
                None
            }
            () = tokio::time::sleep_until(steady_at), if is_ready && !is_told => {
                is_told = true;
                tell();
                None
            }
            ended = master.turn() => ended?,
            ended = node.turn() => ended?,
        };
        if let Some(ended) = ended {
            steady_at = Instant::now() + ended.again_in + WELL_AFTER;
            if !is_told && ended.times >= GIVE_UP_AFTER {
                return Err(DevError::CrashLoop {
                    program: ended.program,
                    times: ended.times,
                    how: ended.how,
                }
                .into());
            }
            output::note(&ended.to_string());
        }
    }
}

impl PidFile {
    fn take(layout: &Layout) -> Result<Self, DevError> {
        let path = layout.pid_file();
        let mut file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(file_error("open", &path))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let pid = processes::supervisor(&layout.data).unwrap_or_default();
            return Err(claim::running(&layout.data, pid));
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(file_error("write", &path))?;
        Ok(Self(file))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = self.0.set_len(0);
    }
}

/// A daemon that is started again when it crashes.
struct Service {
    program: &'static str,
    command: Command,
    state: State,
    backoff: Backoff,
}

enum State {
    Running(Child, Instant),
    Waiting(Instant),
}

/// A daemon that has ended.
#[derive(Debug, thiserror::Error)]
#[error("teu dev: {program} ended ({how}); it is started again in {} ms", .again_in.as_millis())]
struct Ended {
    program: &'static str,
    how: String,
    /// In a row, without having been well.
    times: u32,
    again_in: Duration,
}

impl Service {
    fn start(program: &'static str, mut command: Command) -> Result<Self, DevError> {
        // Ctrl-C is for the supervisor, which ends its children in order. Its standard output is for
        // who started it.
        command
            .process_group(0)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null());
        let state = spawn(program, &mut command)?;
        Ok(Self {
            program,
            command,
            state,
            backoff: Backoff::default(),
        })
    }

    /// Waits for the daemon's end, or for the time of its next start. Loses nothing if it is dropped.
    async fn turn(&mut self) -> Result<Option<Ended>, DevError> {
        match &mut self.state {
            State::Waiting(until) => {
                tokio::time::sleep_until(*until).await;
                self.state = spawn(self.program, &mut self.command)?;
                Ok(None)
            }
            State::Running(child, since) => {
                let status = child.wait().await;
                let killed = status
                    .as_ref()
                    .is_ok_and(|status| status.signal() == Some(Signal::KILL.as_raw()));
                let again_in = self.backoff.ended(since.elapsed(), killed);
                self.state = State::Waiting(Instant::now() + again_in);
                Ok(Some(Ended {
                    program: self.program,
                    how: status.map_or_else(|error| error.to_string(), |status| status.to_string()),
                    times: self.backoff.in_a_row(),
                    again_in,
                }))
            }
        }
    }

    async fn end(&mut self) {
        let State::Running(child, _) = &mut self.state else {
            return;
        };
        if let Some(pid) = child.id() {
            processes::send(pid, Signal::TERM);
        }
        if tokio::time::timeout(END_WITHIN, child.wait())
            .await
            .is_err()
        {
            let _ = child.kill().await;
        }
    }
}

fn spawn(program: &'static str, command: &mut Command) -> Result<State, DevError> {
    let child = command
        .spawn()
        .map_err(|source| DevError::Start { program, source })?;
    Ok(State::Running(child, Instant::now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(script: &str) -> Service {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Service::start("teu-node", command).unwrap()
    }

    #[tokio::test]
    async fn a_location_whose_daemon_does_not_start_is_given_up_and_never_called_ready() {
        let (mut master, mut node) = (service("exec sleep 1000"), service("exit 3"));
        // As a master that answers for the moment in which the node lives.
        let State::Running(child, _) = &node.state else {
            panic!("it was not started")
        };
        let stat = format!("/proc/{}/stat", child.id().unwrap());
        let ready = async {
            while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
                tokio::task::yield_now().await;
            }
            Ok(())
        };
        let outcome = run(&mut master, &mut node, ready, || {
            panic!("it was called ready")
        });
        let error = outcome.await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "teu-node ended 3 times within seconds (exit status: 3), so the start was given up"
        );
        assert_eq!(error.exit_code(), 1);
        master.end().await;
    }

    #[tokio::test]
    async fn daemons_that_run_are_called_ready_once() {
        let (mut master, mut node) = (service("exec sleep 1000"), service("exec sleep 1000"));
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let running = run(&mut master, &mut node, async { Ok(()) }, || {
            told.send(()).unwrap();
        });
        tokio::select! {
            outcome = running => panic!("{outcome:?}"),
            word = heard.recv() => assert_eq!(word, Some(())),
        }
        master.end().await;
        node.end().await;
        assert!(heard.try_recv().is_err());
    }
}
