//! Control groups on v1, hybrid and v2 hosts, by detection.
//!
//! Owner: a keeper makes, limits, kills and removes the groups of its slot; the agent does so
//! only when it sweeps after a dead keeper. A slot's group is `<parent>/<slot>` in each hierarchy.
//! A further process (exec) has a group below it, so that killing it kills all that it forked.
//! Invariant: a limit that was asked for and cannot be set is an error, never ignored.
//! Where the files live is in `cgroup::hierarchy`, what is written into them here.

mod freezer;
mod hierarchy;
mod pids;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

pub use hierarchy::{Controller, Hierarchies, Hierarchy};
pub use pids::{container_pids, node_pids};

use crate::keeper::{IoLimit, Limits};

/// The CPU accounting period; a quota is this times the number of CPUs.
const CPU_PERIOD_US: u64 = 100_000;
/// How long killing everything in a group may take before it is an error.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at a group whose processes were killed.
const KILL_POLL: Duration = Duration::from_millis(2);

/// What was attempted on which file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} cgroup file {path}")]
pub struct CgroupError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl CgroupError {
    fn new(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self {
            action,
            path,
            source,
        }
    }
}

/// One group, in every hierarchy that matters.
#[derive(Debug, Clone)]
pub struct Cgroup {
    /// One directory for each hierarchy.
    dirs: Vec<(Hierarchy, PathBuf)>,
}

impl Cgroup {
    /// Names `<parent>/<name>` without touching it.
    #[must_use]
    pub fn named(hierarchies: &Hierarchies, parent: &str, name: &str) -> Self {
        let dirs = hierarchies
            .iter()
            .map(|one| (one.clone(), one.mount.join(parent).join(name)))
            .collect();
        Self { dirs }
    }

    /// The group of a further process: below this one, in the hierarchy that is enough to find
    /// and kill its descendants. Elsewhere its processes belong to this group itself.
    #[must_use]
    pub fn below(&self, name: &str) -> Self {
        let tracked = self.tracking().map(|(one, _)| one.mount.clone());
        let dirs = self
            .dirs
            .iter()
            .map(|(one, dir)| {
                let below = tracked.as_ref() == Some(&one.mount);
                (
                    one.clone(),
                    if below { dir.join(name) } else { dir.clone() },
                )
            })
            .collect();
        Self { dirs }
    }

    /// The directory by which processes are found: v2, or the pids controller, or any.
    fn tracking(&self) -> Option<&(Hierarchy, PathBuf)> {
        self.dirs
            .iter()
            .find(|(one, _)| one.unified || one.has(Controller::Pids))
            .or_else(|| self.dirs.first())
    }

    /// Makes the directories, and on v2 hands the controllers down to them.
    ///
    /// # Errors
    /// A directory that cannot be made.
    pub fn create(&self) -> Result<(), CgroupError> {
        for (one, dir) in &self.dirs {
            if one.unified {
                enable_controllers(&one.mount, dir)?;
            }
            fs::create_dir_all(dir).map_err(CgroupError::new("make", dir))?;
        }
        Ok(())
    }

    /// Makes only the directory that tells this group from its parent; see [`Self::below`].
    ///
    /// # Errors
    /// A directory that cannot be made.
    pub fn create_tracking(&self) -> Result<(), CgroupError> {
        self.tracking().map_or(Ok(()), |(_, dir)| {
            fs::create_dir_all(dir).map_err(CgroupError::new("make", dir))
        })
    }

    /// On v2, the directory to be born in (`CLONE_INTO_CGROUP`); on v1 there is no such thing.
    #[must_use]
    pub fn birthplace(&self) -> Option<&Path> {
        match self.dirs.as_slice() {
            [(one, dir)] if one.unified => Some(dir),
            _ => None,
        }
    }

    /// Moves the calling process into the group. On v1 the first write waits for an RCU grace
    /// period (7 to 24 ms measured), so this is done ahead of time where it can be.
    ///
    /// # Errors
    /// A `cgroup.procs` that cannot be written.
    pub fn join(&self) -> Result<(), CgroupError> {
        for (_, dir) in &self.dirs {
            write(&dir.join("cgroup.procs"), "0")?;
        }
        Ok(())
    }

    /// Sets the limits. The process count is always limited.
    ///
    /// # Errors
    /// A limit whose controller this host does not have, or that the kernel refuses.
    pub fn limit(&self, limits: &Limits) -> Result<(), CgroupError> {
        if let Some(bytes) = limits.memory_bytes {
            let (one, dir) = self.with(Controller::Memory, "memory.max")?;
            if one.unified {
                write(&dir.join("memory.max"), &bytes.to_string())?;
                write_if_there(&dir.join("memory.swap.max"), "0")?;
            } else {
                write(&dir.join("memory.limit_in_bytes"), &bytes.to_string())?;
                write_if_there(&dir.join("memory.memsw.limit_in_bytes"), &bytes.to_string())?;
            }
        }
        if let Some(millis) = limits.cpu_millis {
            let quota_us = u64::from(millis) * CPU_PERIOD_US / 1000;
            let (one, dir) = self.with(Controller::Cpu, "cpu.max")?;
            if one.unified {
                write(&dir.join("cpu.max"), &format!("{quota_us} {CPU_PERIOD_US}"))?;
            } else {
                write(&dir.join("cpu.cfs_period_us"), &CPU_PERIOD_US.to_string())?;
                write(&dir.join("cpu.cfs_quota_us"), &quota_us.to_string())?;
            }
        }
        let (_, dir) = self.with(Controller::Pids, "pids.max")?;
        write(&dir.join("pids.max"), &limits.pids.to_string())?;
        limits.io.iter().try_for_each(|limit| self.limit_io(limit))
    }

    fn limit_io(&self, limit: &IoLimit) -> Result<(), CgroupError> {
        let (one, dir) = self.with(Controller::Io, "io.max")?;
        let device = format!("{}:{}", limit.major, limit.minor);
        let wanted = [
            (
                "rbps",
                "blkio.throttle.read_bps_device",
                limit.read_bytes_per_s,
            ),
            (
                "wbps",
                "blkio.throttle.write_bps_device",
                limit.write_bytes_per_s,
            ),
            (
                "riops",
                "blkio.throttle.read_iops_device",
                limit.read_ops_per_s,
            ),
            (
                "wiops",
                "blkio.throttle.write_iops_device",
                limit.write_ops_per_s,
            ),
        ];
        for (key, legacy_file, value) in wanted {
            let Some(value) = value else { continue };
            if one.unified {
                write(&dir.join("io.max"), &format!("{device} {key}={value}"))?;
            } else {
                write(&dir.join(legacy_file), &format!("{device} {value}"))?;
            }
        }
        Ok(())
    }

    fn with(
        &self,
        controller: Controller,
        file: &str,
    ) -> Result<&(Hierarchy, PathBuf), CgroupError> {
        self.dirs
            .iter()
            .find(|(one, _)| one.has(controller))
            .ok_or_else(|| {
                let missing = io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!("this host has no {controller:?} controller"),
                );
                CgroupError::new("set", Path::new(file))(missing)
            })
    }

    /// How many processes of the group the kernel has killed for want of memory.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        let Ok((one, dir)) = self.with(Controller::Memory, "memory.events") else {
            return 0;
        };
        let file = if one.unified {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        fs::read_to_string(dir.join(file)).map_or(0, |text| counter(&text, "oom_kill"))
    }

    /// Kills everything in the group and below it, and waits until it is empty.
    ///
    /// # Errors
    /// Processes that do not go: `TimedOut`.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        let Some((one, dir)) = self.tracking() else {
            return Ok(());
        };
        let freezer = self
            .dirs
            .iter()
            .find(|(one, _)| !one.unified && one.has(Controller::Freezer));
        let deadline = Instant::now() + KILL_PATIENCE;
        loop {
            let pids = pids_below(dir);
            if pids.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(CgroupError::new("empty", dir)(
                    io::ErrorKind::TimedOut.into(),
                ));
            }
            if !(one.unified && fs::write(dir.join("cgroup.kill"), "1").is_ok()) {
                // Frozen, a fork bomb cannot outrun its killer.
                if let Some((_, dir)) = freezer {
                    let _ = fs::write(dir.join("freezer.state"), "FROZEN");
                }
                for pid in pids_below(dir) {
                    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                    }
                }
                if let Some((_, dir)) = freezer {
                    let _ = fs::write(dir.join("freezer.state"), "THAWED");
                }
            }
            std::thread::sleep(KILL_POLL);
        }
    }

    /// The processes of the group and below it.
    #[must_use]
    pub fn pids(&self) -> Vec<i32> {
        self.tracking()
            .map_or_else(Vec::new, |(_, dir)| pids_below(dir))
    }

    /// Removes the group's directories and all below. They must be empty of processes; a group
    /// that is not there is removed already.
    ///
    /// # Errors
    /// A directory that stays busy.
    pub fn remove(&self) -> Result<(), CgroupError> {
        self.dirs.iter().try_for_each(|(_, dir)| remove_tree(dir))
    }

    /// Removes only the directory that tells this group from its parent; see [`Self::below`].
    ///
    /// # Errors
    /// A directory that stays busy.
    pub fn remove_tracking(&self) -> Result<(), CgroupError> {
        self.tracking().map_or(Ok(()), |(_, dir)| remove_tree(dir))
    }

    /// Whether any of its directories exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.dirs.iter().any(|(_, dir)| dir.exists())
    }
}

/// On v2 a controller works in a group only if each ancestor hands it down. A controller that the
/// host lacks is skipped here: [`Cgroup::limit`] refuses when it is needed.
fn enable_controllers(mount: &Path, dir: &Path) -> Result<(), CgroupError> {
    let Some(parent) = dir.parent() else {
        return Ok(());
    };
    fs::create_dir_all(parent).map_err(CgroupError::new("make", parent))?;
    let ancestors: Vec<&Path> = parent
        .ancestors()
        .take_while(|one| one.starts_with(mount))
        .collect();
    for ancestor in ancestors.into_iter().rev() {
        for controller in ["+memory", "+cpu", "+pids", "+io"] {
            let _ = fs::write(ancestor.join("cgroup.subtree_control"), controller);
        }
    }
    Ok(())
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    fs::write(path, value).map_err(CgroupError::new("write", path))
}

fn write_if_there(path: &Path, value: &str) -> Result<(), CgroupError> {
    if path.exists() {
        write(path, value)
    } else {
        Ok(())
    }
}

/// The number after `key` in a flat keyed file.
fn counter(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

fn pids_below(dir: &Path) -> Vec<i32> {
    let mut pids: Vec<i32> = fs::read_to_string(dir.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    for child in child_dirs(dir) {
        pids.extend(pids_below(&child));
    }
    pids
}

fn child_dirs(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).map_or_else(
        |_| Vec::new(),
        |entries| {
            entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path())
                .collect()
        },
    )
}

/// A dead process leaves its group a moment after its death is visible: EBUSY is tried again.
fn remove_tree(dir: &Path) -> Result<(), CgroupError> {
    for child in child_dirs(dir) {
        remove_tree(&child)?;
    }
    let deadline = Instant::now() + KILL_PATIENCE;
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                std::thread::sleep(KILL_POLL);
            }
            Err(error) => return Err(CgroupError::new("remove", dir)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_whole_name() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(counter(text, "oom_kill"), 3);
        assert_eq!(counter("low 0\noom 2\n", "oom_kill"), 0);
    }
}
