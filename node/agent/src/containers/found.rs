//! What an earlier agent left: containers to take over, slots to clear.
//!
//! Owner: the agent, once, before it does anything else. Invariants: a container whose keeper lives
//! is taken over as it is; every other one has ended, and its slot is swept; a slot without a
//! container, or of one whose record is damaged, is destroyed.

use std::{collections::HashSet, fs, path::Path, time::Duration};

use teu_node_core::node::Found;
use teu_protocol::message::{Cause, ExitStatus, Termination};

use super::process_end;
use crate::{
    keeper::{self, ExitRecord, KeeperHello, KeeperLink, socket_path, sweep},
    link::chain,
    state::{DataDir, FoundRecord, StateError, StoredContainer},
    sys::names::SlotName,
};

/// A keeper that lives answers at once; one that starts something right now, a little later.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);

/// One container.
#[derive(Debug)]
pub struct FoundContainer {
    /// Its record.
    pub stored: StoredContainer,
    /// How it is.
    pub found: Found,
    /// Its keeper, if that lives.
    pub keeper: Option<(KeeperLink, KeeperHello)>,
    /// Where its first process's log ends, if it has ended.
    pub log_end: u64,
}

/// Looks at all that is there, and clears what nobody owns.
///
/// # Errors
/// [`StateError`] if the containers cannot be listed or read.
pub async fn find(
    data: &DataDir,
    run_dir: &Path,
    cgroup_parent: &str,
) -> Result<Vec<FoundContainer>, StateError> {
    let mut found = Vec::new();
    for stored in stored(data)? {
        found.push(find_one(data, run_dir, cgroup_parent, stored).await);
    }
    let used: HashSet<SlotName> = found
        .iter()
        .filter(|one| one.keeper.is_some())
        .map(|one| one.stored.slot.clone())
        .collect();
    let slots = keeper::slots(run_dir).unwrap_or_default();
    let orphans = slots.into_iter().filter(|slot| !used.contains(slot));
    futures::future::join_all(orphans.map(|slot| clear(run_dir, cgroup_parent, slot))).await;
    Ok(found)
}

fn stored(data: &DataDir) -> Result<Vec<StoredContainer>, StateError> {
    let dir = data.containers();
    let entries = fs::read_dir(&dir).map_err(|source| StateError::Io {
        action: "list",
        path: dir.clone(),
        source,
    })?;
    let mut all = Vec::new();
    for entry in entries.flatten() {
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let dir = data.container(id);
        match dir.find()? {
            FoundRecord::Whole(stored) => all.push(*stored),
            // What its preparation left.
            FoundRecord::NeverReady => dir.remove()?,
            // The doctor tells of it.
            FoundRecord::Damaged => {}
        }
    }
    Ok(all)
}

async fn find_one(
    data: &DataDir,
    run_dir: &Path,
    cgroup_parent: &str,
    stored: StoredContainer,
) -> FoundContainer {
    let id = stored.record.container;
    let connected = connect(run_dir, &stored.slot).await;
    if let Some((keeper, hello)) = connected {
        let sleeps = run_dir.join("asleep").join(id.to_string()).exists();
        let found = match hello.container {
            Some(container) if container == id => Some(Found::Running),
            None if sleeps && hello.broken.is_none() => Some(Found::Asleep),
            _ => None,
        };
        if let Some(found) = found {
            return FoundContainer {
                stored,
                found,
                keeper: Some((keeper, hello)),
                log_end: 0,
            };
        }
    }
    clear(run_dir, cgroup_parent, stored.slot.clone()).await;
    let exit = ExitRecord::read(data.container(id).path()).ok().flatten();
    let (found, log_end) = match exit {
        Some(exit) => {
            let end = process_end(exit.exit);
            let cause = if end.out_of_memory {
                Cause::OutOfMemory
            } else {
                Cause::Exited
            };
            let termination = Termination {
                status: end.status,
                cause,
            };
            (
                Found::Exited {
                    termination,
                    at_ms: exit.finished_ms,
                },
                exit.log_end,
            )
        }
        None => {
            let status = ExitStatus::Signal(9);
            let termination = Termination {
                status,
                cause: Cause::NodeLost,
            };
            (
                Found::Exited {
                    termination,
                    at_ms: crate::agent::unix_ms(),
                },
                u64::MAX,
            )
        }
    };
    FoundContainer {
        stored,
        found,
        keeper: None,
        log_end,
    }
}

async fn connect(run_dir: &Path, slot: &SlotName) -> Option<(KeeperLink, KeeperHello)> {
    let path = socket_path(run_dir, slot);
    let connected = tokio::time::timeout(HELLO_PATIENCE, KeeperLink::connect(&path)).await;
    match connected {
        Ok(Ok(connected)) => Some(connected),
        Ok(Err(error)) => {
            tracing::debug!(%slot, "no keeper: {}", chain(&error));
            None
        }
        Err(_) => None,
    }
}

/// Ends the slot's keeper if it lives, and removes what it left if it does not.
async fn clear(run_dir: &Path, cgroup_parent: &str, slot: SlotName) {
    if let Some((keeper, _)) = connect(run_dir, &slot).await {
        let destroyed = tokio::time::timeout(HELLO_PATIENCE, keeper.destroy()).await;
        if matches!(destroyed, Ok(Ok(()))) {
            return;
        }
    }
    let (run_dir, parent) = (run_dir.to_owned(), cgroup_parent.to_owned());
    let swept = tokio::task::spawn_blocking(move || sweep(&run_dir, &parent, &slot)).await;
    if let Ok(Err(error)) = swept {
        tracing::warn!("a slot is not swept: {}", chain(&error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_record_is_set_aside_and_the_others_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let id = |byte| teu_protocol::ids::ContainerId::from_bytes([byte; 16]);
        for byte in [1, 2] {
            fs::create_dir(data.container(id(byte)).path()).unwrap();
        }
        let record = data.container(id(1)).path().join("record.mp");
        fs::write(&record, b"").unwrap();
        for _ in 0..2 {
            assert_eq!(stored(&data).unwrap(), []);
            assert!(!data.container(id(2)).path().exists(), "it was never ready");
            assert_eq!(data.damaged(), [record.with_extension("mp.damaged")]);
        }
    }
}
