//! `teu stop`: ask containers to end, then kill them.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use teu::Signal;

use crate::{args::Globals, failure::Failure};

/// Arguments of `teu stop`.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Seconds until it is killed
    #[arg(short, long, default_value_t = 10, value_name = "SECONDS")]
    time: u32,
    /// Instead of the image's own stop signal
    #[arg(short, long)]
    signal: Option<Signal>,
    /// Names or ids
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Runs `teu stop`.
pub(crate) async fn run(globals: &Globals, args: StopArgs) -> Result<ExitCode, Failure> {
    let location = super::connect(globals, "stop").await?;
    let grace = Duration::from_secs(args.time.into());
    let code = super::for_each(
        globals,
        &location,
        &args.containers,
        |container| async move {
            container.stop(args.signal, grace).await?;
            Ok(())
        },
    )
    .await;
    location.close().await;
    code
}
