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
Of each program's output the newest 8 to 16 MiB are kept. Where bytes are \
missing, a line on stderr tells how many. -f does not hold the program back; `teu run` and `teu exec` do.")]
pub(crate) struct LogsArgs {
    /// Go on until the program ends
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines, or `all`
    #[arg(short = 'n', long, value_name = "LINES", value_parser = tail)]
    tail: Option<LogStart>,
    /// The container's name or id
    container: String,
}

/// A number of lines, or `all`.
fn tail(text: &str) -> Result<LogStart, String> {
    match text {
        "all" => Ok(LogStart::Oldest),
        _ => text
            .parse()
            .map(LogStart::Tail)
            .map_err(|_| "a number of lines is expected, or `all`".to_owned()),
    }
}

/// Runs `teu logs`.
pub(crate) async fn run(globals: &Globals, args: LogsArgs) -> Result<ExitCode, Failure> {
    let location = super::connect(globals, "logs").await?;
    let container = super::find(globals, &location, &args.container).await?;
    let from = args.tail.unwrap_or(LogStart::Oldest);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails() {
        assert_eq!(tail("all"), Ok(LogStart::Oldest));
        assert_eq!(tail("20"), Ok(LogStart::Tail(20)));
        for bad in ["", "-1", "none"] {
            assert!(tail(bad).is_err(), "{bad}");
        }
    }
}
