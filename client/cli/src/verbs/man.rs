//! `teu man`: manual pages, one a verb.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory as _};

use crate::{args::Cli, failure::Failure, output};

/// Arguments of `teu man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Where to write them
    directory: PathBuf,
}

/// Runs `teu man`.
pub(crate) fn run(args: &ManArgs) -> Result<ExitCode, Failure> {
    let failed = |source| Failure::File {
        what: format!(
            "cannot write manual pages into {}",
            args.directory.display()
        ),
        source,
    };
    std::fs::create_dir_all(&args.directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), &args.directory).map_err(failed)?;
    output::note(&format!(
        "wrote the manual pages; read one with `man {}/teu.1`",
        args.directory.display()
    ));
    Ok(ExitCode::SUCCESS)
}
