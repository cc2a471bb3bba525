//! How the node fares, in findings for `teu doctor`.
//!
//! Owner: whoever asks. Invariant: a finding that is not good says how to mend it; nothing is
//! changed by looking. Next: `sys::net` for the network's own problems.

mod volumes;

use std::path::Path;

use teu_protocol::{
    ids::{ContainerId, VolumeId},
    message::{Finding, Severity, VolumeState},
};

use crate::{
    containers::Yard,
    keeper,
    link::chain,
    scratch::{DEFAULT_STORAGE_BYTES, Scratch},
    sys::cgroup::{Cgroup, Hierarchies, container_pids},
};

/// Below this share of the disk, images no longer fit soon.
const DISK_FREE_PERCENT: u64 = 5;

/// Looks at everything.
pub async fn examine(
    yard: &Yard,
    stuck: &[ContainerId],
    unwell: &[(VolumeId, VolumeState)],
) -> Vec<Finding> {
    let mut findings = vec![
        kernel(),
        cgroups(),
        processes(&yard.cgroup_parent),
        program("nft", "the package nftables"),
        disk(yard.data.path()),
    ];
    findings.extend(scratch(yard.data.scratch().clone()).await);
    let problems = yard.network.check().await;
    if problems.is_empty() {
        findings.push(good("network", "bridge, rules and forwarding are in place"));
    }
    findings.extend(problems.iter().map(|problem| {
        let text = problem.to_string();
        let (message, cure) = match text.split_once("; ") {
            Some((message, cure)) => (message.to_owned(), Some(cure.to_owned())),
            None => (text, None),
        };
        Finding {
            severity: Severity::Bad,
            subject: "network".to_owned(),
            message,
            cure,
        }
    }));
    findings.push(leftovers(yard, stuck));
    findings.extend(yard.data.damaged().iter().map(|path| damaged(path)));
    let layers = yard.layers.usage();
    let message = format!("{} layers in {} MiB", layers.layers, layers.bytes >> 20);
    findings.push(good("layers", &message));
    findings.extend(volumes::findings(yard.volumes.view(), unwell).await);
    findings
}

fn good(subject: &str, message: &str) -> Finding {
    let (subject, message) = (subject.to_owned(), message.to_owned());
    Finding {
        severity: Severity::Good,
        subject,
        message,
        cure: None,
    }
}

fn poor(severity: Severity, subject: &str, message: String, cure: &str) -> Finding {
    Finding {
        severity,
        subject: subject.to_owned(),
        message,
        cure: Some(cure.to_owned()),
    }
}

/// Id-mapped mounts on overlay's layers came with 5.19; overlayfs itself must be there.
fn kernel() -> Finding {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let file_systems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !file_systems
        .lines()
        .any(|line| line.trim_end().ends_with("\toverlay"))
    {
        let message = format!("kernel {release} has no overlayfs");
        return poor(
            Severity::Bad,
            "kernel",
            message,
            "load it: `modprobe overlay`",
        );
    }
    match version(release) {
        Some(version) if version < (5, 19) => {
            let message = format!("kernel {release} is older than 5.19");
            poor(
                Severity::Bad,
                "kernel",
                message,
                "use a kernel from 5.19 on",
            )
        }
        _ => good("kernel", &format!("{release}, with overlayfs")),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn cgroups() -> Finding {
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let memory_v1 = Path::new("/sys/fs/cgroup/memory").exists();
    match (unified, memory_v1) {
        (true, _) => good("cgroups", "version 2"),
        (false, true) => good(
            "cgroups",
            "version 1 or hybrid: spawns cost some milliseconds more",
        ),
        (false, false) => {
            let message = "no cgroup hierarchy is mounted at /sys/fs/cgroup".to_owned();
            poor(
                Severity::Bad,
                "cgroups",
                message,
                "mount cgroup2 there; systemd does it",
            )
        }
    }
}

/// What the launcher has set.
fn processes(cgroup_parent: &str) -> Finding {
    const SUBJECT: &str = "processes";
    let bound = Hierarchies::detect()
        .map_err(|error| error.to_string())
        .and_then(|all| {
            let group = Cgroup::named(&all, "", cgroup_parent);
            group.pids_bound().map_err(|error| chain(&error))
        });
    let cure = "give the node the pids controller (`cgroup_disable` in the kernel's command line), and restart it";
    match bound {
        Ok(Some(most)) => good(
            SUBJECT,
            &format!(
                "{most} for all containers together, {} for one",
                container_pids()
            ),
        ),
        Ok(None) => {
            let message =
                "containers together have no bound: they can take all of the host's".to_owned();
            poor(Severity::Warning, SUBJECT, message, cure)
        }
        Err(why) => {
            let message = format!("the bound of all containers together cannot be read: {why}");
            poor(Severity::Warning, SUBJECT, message, cure)
        }
    }
}

fn program(name: &str, package: &str) -> Finding {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain([
            Path::new("/usr/sbin").to_owned(),
            Path::new("/sbin").to_owned(),
        ])
        .any(|dir| dir.join(name).is_file());
    if found {
        good(name, "is installed")
    } else {
        let cure = format!("install {package}");
        poor(Severity::Bad, name, "is not installed".to_owned(), &cure)
    }
}

fn disk(data: &Path) -> Finding {
    let Ok(disk) = rustix::fs::statvfs(data) else {
        let message = format!("{} cannot be looked at", data.display());
        return poor(
            Severity::Bad,
            "disk",
            message,
            "see that its file system is mounted",
        );
    };
    let free = disk.f_bavail * disk.f_frsize;
    let message = format!("{} MiB free for images and containers", free >> 20);
    if disk.f_bavail * 100 < disk.f_blocks * DISK_FREE_PERCENT {
        let cure = "remove images (`teu image rm`) and containers (`teu rm`)";
        poor(Severity::Warning, "disk", message, cure)
    } else {
        good("disk", &message)
    }
}

fn damaged(path: &Path) -> Finding {
    let message = format!("the record {} was damaged and is set aside", path.display());
    let cure =
        "check the disk; remove the file (of a container: its directory) when it is not needed";
    poor(Severity::Warning, "records", message, cure)
}

/// Where containers write.
async fn scratch(scratch: Scratch) -> Vec<Finding> {
    let look = move || scratch_findings(&scratch);
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}

fn scratch_findings(scratch: &Scratch) -> Vec<Finding> {
    const SUBJECT: &str = "containers' disk";
    let mut findings = vec![match (scratch.unbounded(), scratch.space()) {
        (Some(why), _) => {
            let message = format!(
                "what a container writes into its root has no bound on this node, and a full disk is everybody's: {why}"
            );
            let cure = "see to that and restart the node while it has no containers; until then the node refuses \
                        containers when its disk is at its reserve";
            poor(Severity::Warning, SUBJECT, message, cure)
        }
        (None, Some(space)) => {
            let message = format!(
                "{} of {} MiB free, {} MiB for a container without --storage",
                space.free >> 20,
                space.total >> 20,
                DEFAULT_STORAGE_BYTES >> 20
            );
            match scratch.has_room() {
                Ok(()) => good(SUBJECT, &message),
                Err(_) => {
                    let cure = "remove containers that wrote much (`teu rm`)";
                    poor(Severity::Bad, SUBJECT, message, cure)
                }
            }
        }
        (None, None) => {
            let message = "the file system of containers cannot be looked at".to_owned();
            let cure = "see `dmesg`; it is made anew when the node starts without containers";
            poor(Severity::Bad, SUBJECT, message, cure)
        }
    }];
    findings.extend(scratch.warnings().into_iter().map(|warning| {
        let (message, cure) = warning
            .split_once("; ")
            .unwrap_or((&warning, "free some room on the host's disk"));
        poor(Severity::Warning, SUBJECT, message.to_owned(), cure)
    }));
    findings
}

fn leftovers(yard: &Yard, stuck: &[ContainerId]) -> Finding {
    let slots = keeper::slots(&yard.run_dir).map_or(0, |slots| slots.len());
    if stuck.is_empty() {
        return good(
            "sandboxes",
            &format!("{slots}, warm ones included; none is stuck"),
        );
    }
    let names: Vec<String> = stuck.iter().map(ContainerId::short).collect();
    let message = format!(
        "these containers could not be removed: {}",
        names.join(", ")
    );
    poor(
        Severity::Bad,
        "sandboxes",
        message,
        "destroy them again; the node's log says what fails",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_compared_as_numbers() {
        assert_eq!(version("5.19.0-rc1"), Some((5, 19)));
        assert_eq!(version("6.1-arch"), Some((6, 1)));
        assert!(version("10.2") > version("5.19"));
        assert_eq!(version("odd"), None);
    }
}
