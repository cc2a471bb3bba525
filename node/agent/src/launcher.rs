//! The launcher: the single-threaded process that keepers are forked from.
//!
//! Owner: the agent starts one (`teu-node launcher`, the same program) and talks to it through
//! [`LauncherHandle`]. The agent has many threads and can never fork safely; this process has one,
//! has the seccomp program compiled, and is already in the cgroup that all keepers stay in.
//! Invariant: it ends when its agent does; the keepers it forked go on.
//!
//! `serve` is the process, `handle` the agent's side.

mod handle;
mod serve;

pub use handle::{LaunchError, LauncherConfig, LauncherHandle};
pub use serve::main;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sys::names::SlotName;

/// The cgroup of launcher and keepers, below the instance's parent. No slot can have this name.
pub const KEEPERS_GROUP: &str = "_keepers";

/// From the agent.
#[derive(Debug, Serialize, Deserialize)]
enum LauncherRequest {
    /// Always the first.
    Configure {
        run_dir: PathBuf,
        volumes: PathBuf,
        cgroup_parent: String,
    },
    Fork {
        slot: SlotName,
    },
}

/// To the agent; one for each request.
#[derive(Debug, Serialize, Deserialize)]
enum LauncherReply {
    Ready,
    Forked { pid: i32 },
    Failed { reason: String },
}
