//! Why a one-machine location could not be started or stopped.

use std::{
    io,
    path::{Path, PathBuf},
};

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
    #[error("the location in {data} is running already (its supervisor is process {pid})")]
    #[diagnostic(help("`{stop}` stops it"))]
    Running {
        data: PathBuf,
        pid: u32,
        stop: String,
    },
    #[error("a program listens at 127.0.0.1:{0} already")]
    #[diagnostic(help("leave out --port for a free one, or give another"))]
    PortTaken(u16),
    #[error("processes of an unknown location are in the control group `{0}` of this machine")]
    #[diagnostic(help(
        "leave out --instance for a free one, or give another; if it was a `teu-node` of yours, end that one"
    ))]
    InstanceTaken(String),
    #[error("`{0}` names a location elsewhere in the list of locations")]
    #[diagnostic(help("give another --name, or forget that one: `teu location rm {0}`"))]
    NameTaken(String),
    #[error("no usual value of {0} is free on this machine")]
    #[diagnostic(help("give one"))]
    NothingFree(&'static str),
    #[error(
        "location `{other}` (its data: {other_data}) has what {option} {value} would be for {data}"
    )]
    #[diagnostic(help(
        "leave out {option} for a free one, or give another; `{stop}` stops `{other}`"
    ))]
    Clash {
        option: &'static str,
        value: Box<str>,
        data: PathBuf,
        other: Box<str>,
        other_data: PathBuf,
        stop: Box<str>,
    },
    #[error("{data} holds the location `{name}` with {option} {has}, not {option} {given}")]
    #[diagnostic(help(
        "for that location: `{command}`; for another one, give the --data of that one (or an empty directory)"
    ))]
    Differs {
        option: &'static str,
        given: Box<str>,
        has: Box<str>,
        name: Box<str>,
        data: PathBuf,
        command: Box<str>,
    },
    #[error("{path} does not describe a location: {why}")]
    #[diagnostic(help("use the teu that made it, or put the file back as it was"))]
    BadMark { path: PathBuf, why: String },
    #[error("{data} is not empty and holds no location")]
    #[diagnostic(help("give an empty or new directory as --data; nothing there was touched"))]
    Foreign { data: PathBuf },
    #[error("{data} holds no location: it has no file `{mark}`", mark = super::mark::MARK_FILE)]
    #[diagnostic(help(
        "give the location's --data; nothing was touched. The data of an older TEU get that file when they \
         are started once: `{start}`"
    ))]
    NoLocation { data: PathBuf, start: String },
    #[error("volumes cannot be kept in `{pool}`: {why}")]
    #[diagnostic(help("mend that, or give another --pool (auto: a file among the data)"))]
    Pool { pool: String, why: String },
    #[error("{program} ended {times} times within seconds ({how}), so the start was given up")]
    CrashLoop {
        program: &'static str,
        times: u32,
        how: String,
    },
    #[error("no node was ready after {seconds} s")]
    NotReady { seconds: u64 },
    #[error("the location could not be started; the end of its log:\n{log}")]
    #[diagnostic(help("{help}"))]
    NotStarted { log: String, help: String },
    #[error("processes of the location do not end: {0}")]
    #[diagnostic(help("`dmesg` may say what holds them"))]
    StillRunning(String),
}

impl DevError {
    /// Whether a start was tried and failed: exit code 1, where 125 means that it was refused.
    pub(crate) const fn is_failed_start(&self) -> bool {
        matches!(
            self,
            Self::CrashLoop { .. }
                | Self::NotReady { .. }
                | Self::NotStarted { .. }
                | Self::Pool { .. }
        )
    }
}

/// An error about a file.
pub(super) fn file_error(
    doing: &'static str,
    path: &Path,
) -> impl FnOnce(std::io::Error) -> DevError + use<> {
    let path = path.to_owned();
    move |source| DevError::File {
        doing,
        path,
        source,
    }
}
