//! What a location has on the machine: compared before and after, to find what is left behind.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

/// Names of the things that containers need. Warm slots are included: their number returns to the
/// same after a container has come and gone, so counts are compared where slots are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    /// Host ends of veth pairs.
    pub links: usize,
    /// cgroup directories.
    pub cgroups: usize,
    /// Mounts below the data directory, as init sees them.
    pub mounts: BTreeSet<String>,
    /// Directories of containers.
    pub containers: BTreeSet<String>,
    /// Keeper processes and what runs in them.
    pub keepers: usize,
    /// Addresses in the firewall table's sets.
    pub rules: usize,
}

impl Census {
    pub(super) fn take(instance: &str, data: &Path) -> Self {
        Self {
            links: links(instance),
            cgroups: cgroups(instance),
            mounts: mounts(data),
            containers: entries(&data.join("node/containers")),
            keepers: keepers(instance),
            rules: rules(instance),
        }
    }
}

fn entries(directory: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return BTreeSet::new();
    };
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn links(instance: &str) -> usize {
    let prefix = format!("{instance}v");
    interfaces()
        .iter()
        .filter(|name| name.starts_with(&prefix))
        .count()
}

/// Names of the network interfaces of this process's network namespace (sysfs would tell those of
/// whoever mounted it).
#[must_use]
pub fn interfaces() -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let names = table.lines().filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

fn cgroups(instance: &str) -> usize {
    let roots = entries(Path::new("/sys/fs/cgroup"));
    let below = |path: &Path| count_directories(path);
    let direct = below(&Path::new("/sys/fs/cgroup").join(instance));
    roots
        .iter()
        .map(|controller| below(&Path::new("/sys/fs/cgroup").join(controller).join(instance)))
        .sum::<usize>()
        + direct
}

fn count_directories(path: &Path) -> usize {
    let Ok(entries) = fs::read_dir(path) else {
        return 0;
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| 1 + count_directories(&entry.path()))
        .sum()
}

fn mounts(data: &Path) -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let data = data.display().to_string();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| point.starts_with(&data))
        .map(str::to_owned)
        .collect()
}

fn keepers(instance: &str) -> usize {
    let Ok(processes) = fs::read_dir("/proc") else {
        return 0;
    };
    let marker = format!("/{instance}/");
    processes
        .flatten()
        .filter(|process| {
            let cgroup = fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
            cgroup
                .lines()
                .any(|line| format!("{line}/").contains(&marker))
        })
        .count()
}

fn rules(instance: &str) -> usize {
    let listed = Command::new("nft")
        .args(["list", "table", "inet", instance])
        .output();
    let text = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default()
        .matches(&format!("\"{instance}v"))
        .count()
}
