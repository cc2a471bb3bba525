//! `teu exec`: a further process in a container.

use std::{process::ExitCode, time::Duration};

use clap::Args;

use super::run::{EnvSpec, duration};
use crate::{args::Globals, failure::Failure, output, signals::Interrupts, stdio, terminal};

/// Arguments of `teu exec`.
#[derive(Debug, Args)]
#[command(after_help = "Without -d the process ends with this command, however this command ends.")]
pub(crate) struct ExecArgs {
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    tty: bool,
    /// Run in the background
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    detach: bool,
    /// Set an environment variable; without `=VALUE`: pass this one on
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<EnvSpec>,
    /// The directory that the process starts in
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// The user (and group) that the process runs as
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Kill the process after this long (exit code 124), such as 90s, 5m or 500ms
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    /// The container's name or id
    container: String,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs `teu exec`.
pub(crate) async fn run(globals: &Globals, args: ExecArgs) -> Result<ExitCode, Failure> {
    if args.tty && args.interactive {
        terminal::require_input()?;
    }
    let location = super::connect(globals, "exec").await?;
    let container = super::find(globals, &location, &args.container).await?;
    let mut exec = container.run(&args.command).stdin(args.interactive);
    for variable in &args.env {
        if let Some((name, value)) = variable.resolve() {
            exec = exec.env(name, value);
        }
    }
    if let Some(workdir) = &args.workdir {
        exec = exec.workdir(workdir);
    }
    if let Some(user) = &args.user {
        exec = exec.user(user);
    }
    if let Some(timeout) = args.timeout {
        exec = exec.timeout(timeout);
    }
    if args.tty {
        exec = exec.tty(terminal::size());
    }
    if args.detach {
        let process = exec.detached().await?;
        output::line(&process.to_string())?;
        location.close().await;
        return Ok(ExitCode::SUCCESS);
    }
    let interrupts = Interrupts::listen().map_err(Failure::Terminal)?;
    let process = exec.start().await?;
    let code = stdio::converse(process, args.interactive, args.tty, interrupts).await;
    location.close().await;
    code
}
