//! Whether the node has the room for another container.
//!
//! Invariant: below its reserve a node takes no more containers, so that those that run, the agent's records
//! and other programs of the host still can write. The master looks at the same number before, from the
//! node's last report.

use rustix::fs::{StatVfs, statvfs};
use teu_protocol::message::{Refusal, RefusalCode, ResourceLimits};

use crate::{state::DataDir, sys::cgroup::container_pids};

/// Of the data directory's file system: the same as the master's (`DISK_SPARE_BYTES`).
const RESERVE_BYTES: u64 = 256 << 20;
/// Files that can still be made there. A file system that makes inodes as it needs them tells 0 of 0.
const RESERVE_INODES: u64 = 4_096;

const MIB: u64 = 1 << 20;

/// Refuses a container that would be given more processes than one may have on this node.
pub(super) fn check_pids(limits: &ResourceLimits) -> Result<(), Refusal> {
    let most = container_pids();
    match limits.pids {
        Some(pids) if pids > most => Err(Refusal::new(
            RefusalCode::LimitReached,
            format!(
                "{pids} processes are more than one container may have on this node: {most}, a quarter of what is left beside the host's own"
            ),
        )),
        _ => Ok(()),
    }
}

/// Refuses if the host's disk or the containers' own is at its reserve.
pub(super) fn check(data: &DataDir) -> Result<(), Refusal> {
    let full = |what: String, cure: &str| {
        let message = format!("the node takes no more containers: {what}. {cure}");
        Err(Refusal::new(RefusalCode::NoCapacity, message))
    };
    if let Ok(disk) = statvfs(data.path())
        && let Some(what) = lacks(&disk)
    {
        return full(
            what,
            "Remove images and containers, or files beside them, or spawn on another node",
        );
    }
    match data.scratch().has_room() {
        Ok(()) => Ok(()),
        Err(what) => full(
            what,
            "Remove containers that wrote much, or spawn on another node",
        ),
    }
}

fn lacks(disk: &StatVfs) -> Option<String> {
    let free = disk.f_bavail * disk.f_frsize;
    if free < RESERVE_BYTES {
        return Some(format!(
            "its disk has {} MiB left, and {} MiB are kept free",
            free / MIB,
            RESERVE_BYTES / MIB
        ));
    }
    if disk.f_files > 0 && disk.f_favail < RESERVE_INODES {
        return Some(format!(
            "its disk can hold {} more files, and {RESERVE_INODES} are kept free",
            disk.f_favail
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_container_has_at_most_a_quarter_of_the_nodes_processes() {
        let of = |pids| ResourceLimits {
            pids,
            ..ResourceLimits::default()
        };
        assert!(check_pids(&of(None)).is_ok());
        assert!(check_pids(&of(Some(container_pids()))).is_ok());
        let refusal = check_pids(&of(Some(container_pids() + 1))).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::LimitReached);
    }

    #[test]
    fn a_node_below_its_reserve_of_bytes_or_files_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = statvfs(dir.path()).unwrap();
        (disk.f_frsize, disk.f_bavail) = (4096, RESERVE_BYTES / 4096);
        (disk.f_files, disk.f_favail) = (1 << 20, RESERVE_INODES);
        assert_eq!(lacks(&disk), None);
        disk.f_bavail -= 1;
        assert!(lacks(&disk).unwrap().contains("255 MiB left"));
        disk.f_bavail += 1;
        disk.f_favail -= 1;
        assert!(lacks(&disk).unwrap().contains("4095 more files"));
        disk.f_files = 0;
        assert_eq!(lacks(&disk), None);
    }
}
