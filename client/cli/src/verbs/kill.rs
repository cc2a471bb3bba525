//! `teu kill`: send a signal to containers' first processes.

use std::process::ExitCode;

use clap::Args;
use teu::Signal;

use crate::{args::Globals, failure::Failure};

/// Arguments of `teu kill`.
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// A name such as HUP or RTMIN+3, or a number
    #[arg(short, long, default_value = "KILL")]
    signal: Signal,
    /// Names or ids
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Runs `teu kill`.
pub(crate) async fn run(globals: &Globals, args: KillArgs) -> Result<ExitCode, Failure> {
    let location = super::connect(globals, "kill").await?;
    let code = super::for_each(
        globals,
        &location,
        &args.containers,
        |container| async move {
            container.signal(args.signal).await?;
            Ok(())
        },
    )
    .await;
    location.close().await;
    code
}
