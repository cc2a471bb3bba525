//! The `teu` command: parses, runs one verb, turns what came of it into an exit code.
//!
//! Built only on the SDK (crate `teu`). One file a verb under `verbs/`, each holding its
//! arguments and its doing. Data goes to stdout, everything else to stderr.

mod args;
mod consent;
mod dev;
mod docker;
mod failure;
mod json;
mod output;
mod progress;
mod published;
mod signals;
mod stdio;
mod terminal;
mod verbs;
mod waiting;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    if std::env::args_os().len() == 1 {
        return failure::without_arguments();
    }
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::usage(&error),
    };
    start_log(cli.globals.verbose);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(source) => return failure::report(&failure::Failure::Runtime(source)),
    };
    let code = match runtime.block_on(verbs::run(cli)) {
        Ok(code) => code,
        Err(failure) => failure::report(&failure),
    };
    // A thread may still block in a read of standard input: do not wait for it.
    runtime.shutdown_background();
    code
}

/// Log lines go to stderr: warnings, or with `-v` what the SDK does. `TEU_LOG` overrides.
fn start_log(verbose: u8) {
    let level = match verbose {
        0 => "error",
        1 => "info",
        _ => "debug",
    };
    let filter = std::env::var("TEU_LOG").unwrap_or_else(|_| level.to_owned());
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .without_time()
        .try_init();
}
