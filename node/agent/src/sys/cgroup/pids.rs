//! How many processes and threads a node's containers may have together, so that the host keeps some.
//!
//! Invariant: the bound of the whole is that of the instance's group, above all slots; it is set before the first
//! keeper is forked.

use std::{fs, io};

use super::{Cgroup, CgroupError, Controller, write};

/// Of the kernel's own bounds, in quarters: the last one is the host's.
const QUARTERS: u32 = 3;
/// One container has at most this part of what all have.
const CONTAINERS_PART: u32 = 4;
/// If the kernel does not tell: its default on small machines.
const USUAL: u32 = 32_768;

/// Processes and threads of all containers and keepers of a node.
#[must_use]
pub fn node_pids() -> u32 {
    let read = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/kernel/{name}"));
        text.ok().and_then(|text| text.trim().parse::<u32>().ok())
    };
    share(read("pid_max"), read("threads-max"))
}

fn share(pid_max: Option<u32>, threads_max: Option<u32>) -> u32 {
    let least = pid_max
        .unwrap_or(USUAL)
        .min(threads_max.unwrap_or(u32::MAX));
    (least / 4 * QUARTERS).max(1)
}

/// The most that one container may be given.
#[must_use]
pub fn container_pids() -> u32 {
    (node_pids() / CONTAINERS_PART).max(1)
}

impl Cgroup {
    /// Bounds the processes and threads of the group and all below it.
    ///
    /// # Errors
    /// The host has no such controller, or refuses.
    pub fn bound_pids(&self, most: u32) -> Result<(), CgroupError> {
        let (_, dir) = self.with(Controller::Pids, "pids.max")?;
        write(&dir.join("pids.max"), &most.to_string())
    }

    /// That bound; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn pids_bound(&self) -> Result<Option<u32>, CgroupError> {
        let (_, dir) = self.with(Controller::Pids, "pids.max")?;
        let path = dir.join("pids.max");
        let text = fs::read_to_string(&path).map_err(CgroupError::new("read", &path))?;
        match text.trim() {
            "max" => Ok(None),
            number => number
                .parse()
                .map(Some)
                .map_err(|_| CgroupError::new("read", &path)(io::ErrorKind::InvalidData.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_kernels_bound_stays_the_hosts() {
        assert_eq!(share(Some(32_768), Some(190_000)), 24_576);
        assert_eq!(share(Some(4_194_304), Some(100_000)), 75_000);
        assert_eq!(share(None, None), 24_576);
        assert!(container_pids() * 4 <= node_pids());
    }
}
