//! `teu wake`: start containers that were spawned asleep.

use std::process::ExitCode;

use clap::Args;

use crate::{args::Globals, failure::Failure};

/// Arguments of `teu wake`.
#[derive(Debug, Args)]
pub(crate) struct WakeArgs {
    /// Names or ids
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Runs `teu wake`.
pub(crate) async fn run(globals: &Globals, args: WakeArgs) -> Result<ExitCode, Failure> {
    let location = super::connect(globals, "wake").await?;
    let code = super::for_each(
        globals,
        &location,
        &args.containers,
        |container| async move {
            container.wake().await?;
            Ok(())
        },
    )
    .await;
    location.close().await;
    code
}
