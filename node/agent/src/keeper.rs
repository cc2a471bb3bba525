//! The keeper: one small process for each slot, the parent of that slot's container.
//!
//! Owner: forked by the launcher, spoken to by the agent through [`KeeperLink`]. It prepares a
//! sandbox ahead (a *warm slot*), starts one container in it, holds its stdio, writes its logs,
//! runs further processes in it, reaps all of them, and outlives agent and launcher. When the
//! container ends, it writes `exit.json`, removes what it made, and exits.
//!
//! ```text
//! Preparing -> Warm -> Starting -> Running -> Ending -> (exit)
//!      \-> Broken        \------------------/^
//! ```
//!
//! Invariant: a keeper has one thread and runs no async runtime; what needs libcontainer runs in a
//! child (`stub`, `tenant`) that ends before the container's program begins, so the keeper stays
//! small. Next: `supervisor` for the loop, `stub` for how a container is made, `link` for the
//! agent's side.

mod connection;
mod exit;
mod link;
mod log;
mod output;
mod payload;
mod places;
mod plan;
mod process;
mod reaper;
mod report;
mod runtime;
mod stub;
mod supervisor;
mod sweep;
mod tenant;
mod trees;
mod volumes;
mod wire;

pub use exit::{EXIT_FILE, ExitFileError, ExitRecord};
pub use link::{KeeperLink, LinkError, PlaceAsk, StartError};
pub use log::{
    Channel, HEADER_BYTES, LogChunk, LogReadError, LogReader, LogRecord, LogWriter, Spot,
};
pub use plan::{
    DEFAULT_PIDS, ExecPlan, HostEntry, IdRange, IoLimit, Limits, LogLimits, PreBootFile,
    ProcessPlan, RootPlan, StartPlan, TerminalSize, VolumeMountPlan,
};
pub(crate) use supervisor::{KeeperConfig, run};
pub use sweep::{SweepError, slots, sweep};
pub use wire::{
    ExitStatus, FOLLOWER_LAG_MAX, FRAME_MAX, KeeperEvent, KeeperHello, ProcessExit, ProcessState,
    Refusal, STDIN_WINDOW, SignalScope, StartStep, Started,
};
pub(crate) use wire::{frame, take_frame};

use std::path::{Path, PathBuf};

use crate::sys::names::SlotName;

/// Below a container's directory: its processes' logs.
pub const LOG_DIR: &str = "logs";

/// Below the instance's run directory: the keepers' sockets.
#[must_use]
pub fn socket_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("keepers")
}

/// Where the keeper of `slot` listens.
#[must_use]
pub fn socket_path(run_dir: &Path, slot: &SlotName) -> PathBuf {
    socket_dir(run_dir).join(format!("{slot}.sock"))
}
