//! `teu logs`: what a container's program wrote.

use std::process::ExitCode;

use clap::Args;
use futures::StreamExt as _;
use teu::LogStart;

use crate::{args::Globals, failure::Failure, stdio};

/// Arguments of `teu logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Go on until the program ends
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines
    #[arg(short = 'n', long, value_name = "LINES")]
    tail: Option<u32>,
    /// The container's name or id
    container: String,
}

/// Runs `teu logs`.
pub(crate) async fn run(globals: &Globals, args: LogsArgs) -> Result<ExitCode, Failure> {
    let location = super::connect(globals, "logs").await?;
    let container = super::find(&location, &args.container).await?;
    let from = args.tail.map_or(LogStart::Oldest, LogStart::Tail);
    let logs = container.logs(from, args.follow).await?;
    let mut logs = std::pin::pin!(logs);
    while let Some(chunk) = logs.next().await {
        stdio::write(&chunk?)?;
    }
    location.close().await;
    Ok(ExitCode::SUCCESS)
}
