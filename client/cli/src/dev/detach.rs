//! `teu dev --detach`: a supervisor in the background, and waiting until it says that all is ready.
//!
//! Invariant: a start that fails leaves no process, and of a new location nothing at all.

use std::{
    fs,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::Stdio,
};

use rustix::process::Signal;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::{DevError, claim::Claim, error::file_error, processes, settle, stop};
use crate::{args::Globals, failure::Failure, output};

/// What the supervisor prints once containers can be spawned.
pub(super) const READY: &str = "ready";

/// Lines of the log that are shown when a start fails.
const LOG_LINES: usize = 10;

/// Bytes at the log's end in which those lines are looked for.
const LOG_TAIL_BYTES: u64 = 16 * 1024;

/// Starts the supervisor in the background, its output in the log file, and waits until it is ready.
pub(super) async fn detach(globals: &Globals, claim: &Claim) -> Result<(), Failure> {
    let mut supervisor = spawn(globals, claim)?;
    let outcome = ready(globals, claim, &mut supervisor).await;
    if outcome.is_err() {
        end(&mut supervisor).await;
        stop::undo(claim).await;
    }
    outcome
}

async fn ready(globals: &Globals, claim: &Claim, supervisor: &mut Child) -> Result<(), Failure> {
    if !says_ready(supervisor).await {
        let _ = supervisor.wait().await;
        return Err(with_log(claim).into());
    }
    match settle::check_pool(globals, &claim.layout).await {
        Err(failure) if !claim.is_new => {
            output::note(&format!("teu dev: {failure}"));
            Ok(())
        }
        checked => checked,
    }
}

/// Waits for its word, or its end.
async fn says_ready(supervisor: &mut Child) -> bool {
    let Some(stdout) = supervisor.stdout.take() else {
        return false;
    };
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line == READY {
            return true;
        }
    }
    false
}

async fn end(supervisor: &mut Child) {
    if let Some(pid) = supervisor.id() {
        processes::send(pid, Signal::TERM);
    }
    if tokio::time::timeout(stop::SUPERVISOR_WITHIN, supervisor.wait())
        .await
        .is_err()
    {
        let _ = supervisor.kill().await;
    }
}

fn spawn(globals: &Globals, claim: &Claim) -> Result<Child, Failure> {
    let layout = &claim.layout;
    let path = layout.log_file();
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(file_error("open", &path))?;
    let program = std::env::current_exe().map_err(file_error("find", "teu".as_ref()))?;
    let mut command = Command::new("setsid");
    command.arg(program);
    command.arg("--home").arg(layout.home());
    command.args(["--session", &globals.session]);
    command.args(["dev", "--supervised", "--data"]);
    command.arg(&layout.data);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    command.spawn().map_err(|source| {
        DevError::Start {
            program: "teu",
            source,
        }
        .into()
    })
}

/// Why it did not start, by its own words.
fn with_log(claim: &Claim) -> DevError {
    let path = claim.layout.log_file();
    let log = end_of(&path).unwrap_or_default();
    let tail: Vec<&str> = log.lines().rev().take(LOG_LINES).collect();
    let log = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
    let help = if claim.is_new {
        "mend that and start it again; what this start had made is removed".to_owned()
    } else {
        format!("the whole log is {}", path.display())
    };
    DevError::NotStarted { log, help }
}

fn end_of(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut end = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}
