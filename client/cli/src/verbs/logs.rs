//! `teu logs`: what a container's program wrote.

mod lines;

use std::process::ExitCode;

use clap::Args;
use futures::StreamExt as _;
use teu::{Error, LogStart};

use self::lines::Lines;
use crate::{args::Globals, failure::Failure};

/// Arguments of `teu logs`.
#[derive(Debug, Args)]
#[command(after_help = "\
Of each program's output the newest part is kept: 8 to 16 MiB, or what `teu run --log-size` says. Where bytes are \
missing, a line on stderr tells how many. -f does not hold the program back; `teu run` and `teu exec` do.")]
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
    let mut lines = Lines::new(args.tail.is_none());
    while let Some(chunk) = logs.next().await {
        match chunk {
            Ok(chunk) => lines.write(&chunk)?,
            Err(Error::OutputLost { bytes }) => lines.lost(bytes)?,
            Err(error) => return Err(error.into()),
        }
    }
    lines.end();
    location.close().await;
    Ok(ExitCode::SUCCESS)
}
