//! `teu completions`: completion scripts.

use std::{io::Write as _, process::ExitCode};

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::{args::Cli, failure::Failure};

/// Arguments of `teu completions`.
#[derive(Debug, Args)]
#[command(after_help = "For example: teu completions bash > /etc/bash_completion.d/teu")]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Runs `teu completions`.
pub(crate) fn run(args: &CompletionsArgs) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "teu", &mut script);
    std::io::stdout()
        .write_all(&script)
        .map_err(Failure::Output)?;
    Ok(ExitCode::SUCCESS)
}
