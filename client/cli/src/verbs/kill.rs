//! `teu kill`: send a signal to containers' first processes.

use std::process::ExitCode;

use clap::Args;

use crate::{args::Globals, failure::Failure};

/// Arguments of `teu kill`.
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// A name such as HUP, or a number
    #[arg(short, long, default_value = "KILL", value_parser = signal)]
    signal: u8,
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

/// Linux's signals by name (signal(7)), as on x86-64 and arm64.
const SIGNALS: [(&str, u8); 18] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ABRT", 6),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("WINCH", 28),
];

/// `TERM`, `SIGTERM`, `term` or `15`.
pub(crate) fn signal(text: &str) -> Result<u8, String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let by_name = SIGNALS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number);
    by_name
        .or_else(|| text.parse().ok().filter(|number| (1..=64).contains(number)))
        .ok_or_else(|| "a signal is expected: a name such as TERM, or a number 1 to 64".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for text in ["TERM", "SIGTERM", "term", "15"] {
            assert_eq!(signal(text), Ok(15), "{text}");
        }
        for text in ["", "0", "65", "NOPE", "-9"] {
            assert!(signal(text).is_err(), "{text}");
        }
    }
}
