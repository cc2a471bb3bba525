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
    while let Some(chunk) = logs.next().await {
        stdio::write(&chunk?)?;
    }
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
