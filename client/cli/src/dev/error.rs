//! Why a one-machine location could not be started or stopped.

use std::{io, path::PathBuf};

use miette::Diagnostic;

/// Why a one-machine location could not be started or stopped.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub(crate) enum DevError {
    #[error("`teu dev` needs root")]
    #[diagnostic(help("run it with sudo; the other commands do not need root"))]
    NotRoot,
    #[error("the program {0} is not beside teu and not in PATH")]
    #[diagnostic(help("build it (`cargo build --release --workspace`), or install the package"))]
    ProgramMissing(&'static str),
    #[error("cannot {doing} {path}")]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot start {program}")]
    Start {
        program: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{program} failed: {said}")]
    Failed { program: &'static str, said: String },
    #[error("this location is running already (process {0})")]
    #[diagnostic(help("`teu dev --stop` stops it"))]
    Running(u32),
    #[error("something listens at {0} already")]
    #[diagnostic(help(
        "if it is another location, stop that one (`teu dev --stop`, with its --data); else give this \
         one another --port"
    ))]
    PortTaken(String),
    #[error("the location was not ready after {seconds} s; the end of its log:\n{log}")]
    #[diagnostic(help("the whole log is {path}"))]
    NotReady {
        seconds: u64,
        log: String,
        path: String,
    },
    #[error("the location ended at once; the end of its log:\n{log}")]
    #[diagnostic(help("the whole log is {path}"))]
    Ended { log: String, path: String },
    #[error("the supervisor (process {0}) did not end")]
    StillRunning(u32),
}
