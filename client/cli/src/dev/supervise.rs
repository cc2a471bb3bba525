//! The supervisor: starts master and node, starts again what crashes, ends both on a signal.

use std::{
    fs,
    io::{Seek as _, Write as _},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use tokio::process::{Child, Command};

use super::{DevError, Layout, layout::file_error, settle};
use crate::{args::Globals, failure::Failure, output, signals::Interrupts};

/// Between a crash and the next start: short, for containers wait for their agent.
const RESTART_AFTER: Duration = Duration::from_millis(200);

/// How long a child may take to end after SIGTERM.
const END_WITHIN: Duration = Duration::from_secs(10);

/// The pid file, locked for as long as the supervisor lives.
#[derive(Debug)]
struct PidFile(fs::File);

/// Runs the location until a signal ends it. Containers go on; `teu dev --stop` ends them.
pub(super) async fn foreground(globals: &Globals, layout: &Layout) -> Result<(), Failure> {
    let mut interrupts = Interrupts::listen().map_err(Failure::Terminal)?;
    fs::create_dir_all(&layout.data).map_err(file_error("make", &layout.data))?;
    let _lock = PidFile::take(layout)?;
    let master_key = settle::settle(globals, layout).await?;
    let mut master = Service::start("teu-master", layout.run_master())?;
    let mut node = Service::start("teu-node", layout.run_node(&master_key))?;
    let ready = settle::wait_ready(globals, layout);
    let mut ready = std::pin::pin!(ready);
    let mut told = false;
    loop {
        tokio::select! {
            outcome = &mut ready, if !told => {
                told = true;
                match outcome {
                    Ok(()) => output::note(&format!(
                        "location `{}` is ready at {}; try, in another terminal: teu resources",
                        layout.name, layout.endpoint()
                    )),
                    Err(failure) => output::note(&format!("teu dev: {failure}")),
                }
            }
            () = master.crashed() => master.start_again().await?,
            () = node.crashed() => node.start_again().await?,
            _ = interrupts.next() => break,
        }
    }
    node.end().await;
    master.end().await;
    Ok(())
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
            return Err(DevError::Running(running(layout).unwrap_or_default()));
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

/// The supervisor's process, if one runs: it holds the lock.
pub(super) fn running(layout: &Layout) -> Option<u32> {
    let file = fs::File::open(layout.pid_file()).ok()?;
    if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        return None;
    }
    fs::read_to_string(layout.pid_file())
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// A child that is started again when it crashes.
struct Service {
    program: &'static str,
    command: Command,
    child: Child,
}

impl Service {
    fn start(program: &'static str, mut command: Command) -> Result<Self, DevError> {
        // Ctrl-C is for the supervisor, which ends its children in order.
        command.process_group(0).stdin(std::process::Stdio::null());
        let child = command
            .spawn()
            .map_err(|source| DevError::Start { program, source })?;
        Ok(Self {
            program,
            command,
            child,
        })
    }

    async fn crashed(&mut self) {
        let status = self.child.wait().await;
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        output::note(&format!(
            "teu dev: {} ended ({how}); starting it again",
            self.program
        ));
    }

    async fn start_again(&mut self) -> Result<(), DevError> {
        tokio::time::sleep(RESTART_AFTER).await;
        let program = self.program;
        self.child = self
            .command
            .spawn()
            .map_err(|source| DevError::Start { program, source })?;
        Ok(())
    }

    async fn end(&mut self) {
        if let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(END_WITHIN, self.child.wait())
            .await
            .is_err()
        {
            let _ = self.child.kill().await;
        }
    }
}
