//! Cleaning up after a keeper that died without doing it itself (kill -9).
//!
//! Owner: the agent's reconciler, which calls it only for slots whose keeper does not answer.
//! Invariant: afterwards no process, cgroup or socket of the slot is left. Mounts and the network
//! namespace went with the last process.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{socket_dir, socket_path};
use crate::sys::{
    cgroup::{Cgroup, CgroupError, Hierarchies},
    names::SlotName,
};

/// Why a slot could not be swept.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error("cannot find the cgroup hierarchies")]
    Detect(#[source] io::Error),
    #[error("cannot clear the cgroup of slot {slot}")]
    Cgroup { slot: SlotName, source: CgroupError },
    #[error("cannot remove {path}")]
    Remove { path: PathBuf, source: io::Error },
    #[error("cannot list {path}")]
    List { path: PathBuf, source: io::Error },
}

/// Kills what runs in the slot's cgroup and removes cgroup and socket. Blocking, normally for a few
/// milliseconds; up to seconds if processes do not die.
///
/// # Errors
/// What could not be removed.
pub fn sweep(run_dir: &Path, cgroup_parent: &str, slot: &SlotName) -> Result<(), SweepError> {
    let hierarchies = Hierarchies::detect().map_err(SweepError::Detect)?;
    let cgroup = Cgroup::named(&hierarchies, cgroup_parent, slot.as_str());
    cgroup
        .kill_all()
        .and_then(|()| cgroup.remove())
        .map_err(|source| SweepError::Cgroup {
            slot: slot.clone(),
            source,
        })?;
    let path = socket_path(run_dir, slot);
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(SweepError::Remove { path, source })
        }
        _ => Ok(()),
    }
}

/// The slots that have a socket: what a restarted agent tries to adopt, and sweeps if it cannot.
///
/// # Errors
/// The directory cannot be listed.
pub fn slots(run_dir: &Path) -> Result<Vec<SlotName>, SweepError> {
    let path = socket_dir(run_dir);
    let entries = match std::fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(SweepError::List { path, source }),
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let slot = name
            .to_str()
            .and_then(|name| name.strip_suffix(".sock")?.parse().ok());
        found.extend::<Option<SlotName>>(slot);
    }
    found.sort();
    Ok(found)
}
