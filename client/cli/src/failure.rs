//! Why a verb failed, how that is told, and which exit code it makes.

use std::{
    error::Error as _,
    io::{self, Write as _},
    process::ExitCode,
};

use miette::Diagnostic;
use teu::RefusalCode;

/// Why a verb failed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub(crate) enum Failure {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Usage(#[from] Usage),
    #[error(transparent)]
    Teu(#[from] teu::Error),
    #[error("the session's name is not one")]
    SessionName(#[source] teu::ParseTagError),
    #[error("{what}")]
    File {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    #[error("cannot read standard input")]
    Input(#[source] io::Error),
    #[error("cannot use the terminal")]
    Terminal(#[source] io::Error),
    #[error("cannot start the asynchronous runtime")]
    Runtime(#[source] io::Error),
    #[error("the output could not be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Dev(#[from] crate::dev::DevError),
    #[error("cannot listen at {address}")]
    #[diagnostic(help("{help}"))]
    Listen {
        address: std::net::SocketAddr,
        help: &'static str,
        #[source]
        source: io::Error,
    },
    /// Asked, and the answer was no.
    #[error("nothing was destroyed")]
    Declined,
    /// The words of the process that should hold the tunnel.
    #[error("{0}")]
    Background(String),
}

/// The command line asks for something that makes no sense.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{what}")]
#[diagnostic(help("{help}"))]
pub(crate) struct Usage {
    pub(crate) what: String,
    pub(crate) help: String,
}

impl Usage {
    pub(crate) fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            help: help.into(),
        }
    }
}

impl Failure {
    /// Docker's codes: 125 teu itself failed, 126 and 127 from the program; 2: not placed. And 1: the
    /// person said no.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Teu(error) => match error.refusal().map(|refusal| refusal.code) {
                Some(RefusalCode::CommandNotFound) => 127,
                Some(RefusalCode::CommandNotExecutable) => 126,
                Some(RefusalCode::NoCapacity) => 2,
                _ => 125,
            },
            Self::Declined => 1,
            Self::Dev(error) if error.is_failed_start() => 1,
            _ => 125,
        }
    }
}

/// Tells of a failure on stderr, and gives its exit code.
pub(crate) fn report(failure: &Failure) -> ExitCode {
    let code = ExitCode::from(failure.exit_code());
    if is_broken_pipe(failure) {
        return ExitCode::from(141);
    }
    let _ = writeln!(io::stderr(), "{}", rendered(failure));
    code
}

/// What happened, why, and what to do: a line each, nothing twice.
fn rendered(failure: &Failure) -> String {
    let mut text = format!("teu: {failure}");
    let mut cause = failure.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text.push_str("\n  because: ");
            text.push_str(&reason);
        }
        cause = error.source();
    }
    if let Some(help) = failure.help() {
        text.push_str("\n  try: ");
        text.push_str(&help.to_string());
    }
    crate::output::harmless(&text)
}

/// A reader such as `head` has gone: the usual silent end.
fn is_broken_pipe(failure: &Failure) -> bool {
    matches!(failure, Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
}

/// Tells of a command line that does not parse (or prints the help that was asked for).
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let arguments: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    match crate::docker::answer(error, &arguments) {
        Some(answer) => crate::output::note(&format!("teu: {answer}")),
        None => drop(error.print()),
    }
    if error.use_stderr() {
        ExitCode::from(125)
    } else {
        ExitCode::SUCCESS
    }
}

/// `teu` alone: the help with its examples, on stderr, for nothing was done.
pub(crate) fn without_arguments() -> ExitCode {
    use clap::CommandFactory as _;
    let help = crate::args::Cli::command().render_help();
    let _ = write!(io::stderr(), "{help}");
    ExitCode::from(125)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_cannot_play_with_the_terminal() {
        let failure = Failure::Background("no \x1b[2J".to_owned());
        assert_eq!(rendered(&failure), "teu: no \u{fffd}[2J");
    }

    #[test]
    fn a_failure_tells_what_why_and_what_to_do() {
        let failure = Failure::File {
            what: "cannot read a".to_owned(),
            source: io::Error::new(io::ErrorKind::NotFound, "no such file"),
        };
        assert_eq!(
            rendered(&failure),
            "teu: cannot read a\n  because: no such file"
        );
        assert_eq!(rendered(&Failure::Declined), "teu: nothing was destroyed");
        assert_eq!(Failure::Declined.exit_code(), 1);
        let failure = Failure::from(Usage::new("no node `x`", "its nodes are: y"));
        assert_eq!(
            rendered(&failure),
            "teu: no node `x`\n  try: its nodes are: y"
        );
    }
}
