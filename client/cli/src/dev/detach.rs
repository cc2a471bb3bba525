//! `teu dev --detach`: a supervisor in the background, and waiting until it says that all is ready.
//!
//! Invariant: a start that fails leaves no process, and of a new location nothing at all.

use std::{fs, os::unix::fs::OpenOptionsExt as _, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::{DevError, claim::Claim, error::file_error, settle, stop};
use crate::{args::Globals, failure::Failure, output};

/// What the supervisor prints once containers can be spawned.
pub(super) const READY: &str = "ready";

/// Lines of the log that are shown when a start fails.
const LOG_LINES: usize = 10;

/// Starts the supervisor in the background, its output in the log file, and waits until it is ready.
pub(super) async fn detach(globals: &Globals, claim: &Claim) -> Result<(), Failure> {
    match start(globals, claim).await {
        Ok(()) => Ok(()),
        Err(failure) => {
            let failure = match failure {
                Failure::Dev(error) if matches!(error, DevError::NotReady { .. }) => {
                    with_log(claim).into()
                }
                other => other,
            };
            stop::undo(claim).await;
            Err(failure)
        }
    }
}

async fn start(globals: &Globals, claim: &Claim) -> Result<(), Failure> {
    let layout = &claim.layout;
    let mut supervisor = spawn(globals, claim)?;
    let mut ready = false;
    if let Some(stdout) = supervisor.stdout.take() {
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if line == READY {
                ready = true;
                break;
            }
        }
    }
    if !ready {
        let _ = supervisor.wait().await;
        return Err(with_log(claim).into());
    }
    match settle::check_pool(globals, layout).await {
        Err(failure) if !claim.is_new => {
            output::note(&format!("teu dev: {failure}"));
            Ok(())
        }
        checked => checked,
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
    let log = fs::read_to_string(&path).unwrap_or_default();
    let tail: Vec<&str> = log.lines().rev().take(LOG_LINES).collect();
    let log = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
    let help = if claim.is_new {
        "mend that and start it again; what this start had made is removed".to_owned()
    } else {
        format!("the whole log is {}", path.display())
    };
    DevError::NotStarted { log, help }
}
