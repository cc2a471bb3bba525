//! What of a location runs: its supervisor, its daemons, processes of its containers.
//!
//! Invariant: a process counts only if the kernel ties it to the location: a lock that it holds, the
//! data directory that it was started with, the control group that it is in.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, Signal, kill_process},
};

use super::{layout, values::Instance};

/// Longest command line that is looked at: those of daemons take some 300 bytes and a path or two.
const MAX_COMMAND_LINE_BYTES: u64 = 64 * 1024;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A daemon that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Daemon {
    pub(super) program: &'static str,
    pub(super) pid: u32,
}

/// The supervisor's process, if one runs: it holds the lock.
pub(super) fn supervisor(data: &Path) -> Option<u32> {
    let path = layout::pid_file(data);
    let file = fs::File::open(&path).ok()?;
    if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        return None;
    }
    // Written right after the lock was taken.
    Some(
        fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .parse()
            .unwrap_or_default(),
    )
}

/// The master and the node that run on this data, whoever started them.
pub(super) fn daemons(data: &Path) -> Vec<Daemon> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| daemon(pid, data))
        .collect()
}

fn daemon(pid: u32, data: &Path) -> Option<Daemon> {
    let file = fs::File::open(format!("/proc/{pid}/cmdline")).ok()?;
    let mut line = Vec::new();
    file.take(MAX_COMMAND_LINE_BYTES)
        .read_to_end(&mut line)
        .ok()?;
    let words: Vec<&str> = line
        .split(|byte| *byte == 0)
        .filter_map(|word| std::str::from_utf8(word).ok())
        .collect();
    let program = which(&words, data)?;
    Some(Daemon { program, pid })
}

/// Which daemon of the location has this command line. (The node's helpers are its own to end.)
fn which(words: &[&str], data: &Path) -> Option<&'static str> {
    let own = |program: &str, below: PathBuf| {
        let called = Path::new(words.first()?).file_name()? == program;
        let at = words.iter().position(|word| *word == "--data")?;
        let on = Path::new(words.get(at + 1)?) == below;
        (called && on).then_some(())
    };
    if own("teu-master", layout::master_data(data)).is_some() {
        return Some("teu-master");
    }
    let runs = words.get(1) == Some(&"run");
    (runs && own("teu-node", layout::node_data(data)).is_some()).then_some("teu-node")
}

/// Whether processes are in the instance's control groups: containers, or slots prepared for them.
pub(super) fn has_containers(instance: &Instance) -> bool {
    let root = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_dir(root).into_iter().flatten().flatten();
    controllers
        .map(|entry| entry.path())
        .chain([root.to_owned()])
        .any(|hierarchy| is_populated(&hierarchy.join(instance.as_str())))
}

fn is_populated(group: &Path) -> bool {
    let Ok(entries) = fs::read_dir(group) else {
        return false;
    };
    let own = fs::read(group.join("cgroup.procs")).is_ok_and(|procs| !procs.is_empty());
    own || entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .any(|entry| is_populated(&entry.path()))
}

/// Ends daemons: asks, waits, then kills. Gives those that did not end even then.
pub(super) async fn end(data: &Path, patience: Duration) -> Vec<Daemon> {
    // The node first: it says goodbye to the master.
    for program in ["teu-node", "teu-master"] {
        let is_there = || daemons(data).into_iter().any(|one| one.program == program);
        for signal in [Signal::TERM, Signal::KILL] {
            for one in daemons(data) {
                if one.program == program {
                    send(one.pid, signal);
                }
            }
            let gone = async {
                while is_there() {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            };
            if tokio::time::timeout(patience, gone).await.is_ok() {
                break;
            }
        }
    }
    daemons(data)
}

/// Sends a signal; a process that is gone needs none.
pub(super) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_daemons_of_this_data_are_found() {
        let data = Path::new("/d a");
        let master = [
            "/usr/bin/teu-master",
            "--listen",
            "x",
            "--data",
            "/d a/master",
        ];
        assert_eq!(which(&master, data), Some("teu-master"));
        let node = ["teu-node", "run", "--data", "/d a/node", ""];
        assert_eq!(which(&node, data), Some("teu-node"));
        for other in [
            &["teu-node", "purge", "--data", "/d a/node"][..],
            &["teu-node", "run", "--data", "/d a/node2"],
            &["teu-node", "run", "/d a/node"],
            &["vi", "--data", "/d a/master"],
            &["teu-master", "--data"],
            &[],
        ] {
            assert_eq!(which(other, data), None, "{other:?}");
        }
    }
}
