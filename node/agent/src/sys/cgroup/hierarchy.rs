//! Which control group hierarchies this host has, read from `mountinfo`.
//!
//! Pure but for [`Hierarchies::detect`]. Invariant: a controller is in one hierarchy; v1 wins,
//! because a controller that v1 holds is not usable on v2 (hybrid hosts).

use std::{
    io,
    path::{Path, PathBuf},
};

/// What TEU uses of the kernel's controllers. `Io` is `blkio` on v1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    Memory,
    Cpu,
    CpuAccounting,
    Pids,
    Io,
    Freezer,
}

impl Controller {
    fn from_legacy_name(name: &str) -> Option<Self> {
        Some(match name {
            "memory" => Self::Memory,
            "cpu" => Self::Cpu,
            "cpuacct" => Self::CpuAccounting,
            "pids" => Self::Pids,
            "blkio" => Self::Io,
            "freezer" => Self::Freezer,
            _ => return None,
        })
    }
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    pub mount: PathBuf,
    /// cgroup v2.
    pub unified: bool,
    controllers: Vec<Controller>,
}

impl Hierarchy {
    /// v2 has all that TEU uses (which of them are really there, the limit's file tells).
    #[must_use]
    pub fn has(&self, controller: Controller) -> bool {
        self.unified || self.controllers.contains(&controller)
    }
}

/// The hierarchies that a slot has a group in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchies(Vec<Hierarchy>);

impl Hierarchies {
    /// Reads this process's `mountinfo`.
    ///
    /// # Errors
    /// `NotFound` if no hierarchy with a useful controller is mounted.
    pub fn detect() -> io::Result<Self> {
        let found = Self::parse(&std::fs::read_to_string("/proc/self/mountinfo")?);
        if found.0.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "no cgroup file system is mounted",
            ));
        }
        Ok(found)
    }

    /// Finds the hierarchies in the text of a `mountinfo` (see proc_pid_mountinfo(5)).
    #[must_use]
    pub fn parse(mountinfo: &str) -> Self {
        let mut legacy: Vec<Hierarchy> = Vec::new();
        let mut unified = None;
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let (mut left, mut right) = (left.split(' ').skip(3), right.split(' '));
            // A bind mount of a part of a hierarchy is not the hierarchy.
            let (Some("/"), Some(mount), Some(kind)) = (left.next(), left.next(), right.next())
            else {
                continue;
            };
            let mount = Path::new(mount);
            match kind {
                "cgroup2" => {
                    unified.get_or_insert_with(|| mount.to_owned());
                }
                "cgroup" => {
                    let controllers: Vec<_> = right
                        .nth(1)
                        .unwrap_or_default()
                        .split(',')
                        .filter_map(Controller::from_legacy_name)
                        .filter(|one| !legacy.iter().any(|seen| seen.controllers.contains(one)))
                        .collect();
                    if !controllers.is_empty() {
                        legacy.push(Hierarchy {
                            mount: mount.to_owned(),
                            unified: false,
                            controllers,
                        });
                    }
                }
                _ => {}
            }
        }
        match unified {
            Some(mount) if legacy.is_empty() => Self(vec![Hierarchy {
                mount,
                unified: true,
                controllers: Vec::new(),
            }]),
            _ => Self(legacy),
        }
    }

    /// Each hierarchy once.
    pub fn iter(&self) -> impl Iterator<Item = &Hierarchy> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 22 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 31 0:30 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
35 31 0:31 / /sys/fs/cgroup/systemd rw - cgroup systemd rw,xattr,name=systemd
36 31 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
37 31 0:29 /some/part /mnt/bind rw - cgroup cgroup rw,memory
38 31 0:29 / /mnt/again rw - cgroup cgroup rw,memory";

    #[test]
    fn hybrid_uses_the_legacy_hierarchies_once_each() {
        let found = Hierarchies::parse(HYBRID);
        let mounts: Vec<_> = found
            .iter()
            .map(|one| one.mount.to_str().unwrap())
            .collect();
        assert_eq!(
            mounts,
            [
                "/sys/fs/cgroup/cpu,cpuacct",
                "/sys/fs/cgroup/memory",
                "/sys/fs/cgroup/pids"
            ]
        );
        assert!(found.iter().all(|one| !one.unified));
        assert!(found.iter().next().unwrap().has(Controller::CpuAccounting));
    }

    #[test]
    fn unified_is_one_hierarchy_with_everything() {
        let found = Hierarchies::parse(
            "30 22 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate",
        );
        let all: Vec<_> = found.iter().collect();
        assert_eq!(all.len(), 1);
        assert!(all[0].unified && all[0].has(Controller::Memory));
    }

    #[test]
    fn nothing_mounted_is_nothing_found() {
        assert_eq!(
            Hierarchies::parse("1 0 0:1 / / rw - ext4 /dev/vda rw"),
            Hierarchies(Vec::new())
        );
    }
}
