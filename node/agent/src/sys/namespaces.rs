//! Entering and leaving namespaces, and what is mounted in the stub's own.
//!
//! Owner: stub and tenant, both single-threaded. Invariant: mounts made here never propagate back.
#![allow(unsafe_code)]

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount},
    thread::{LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags},
};

use super::cgroup::Hierarchies;

/// A mount namespace of one's own; nothing propagates either way.
///
/// # Errors
/// What unshare(2) or mount(2) said.
pub fn private_mounts() -> io::Result<()> {
    // SAFETY: the caller has one thread and shares no file system state that matters.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    Ok(mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )?)
}

/// A cgroup namespace whose root is the group that the caller is in.
///
/// # Errors
/// What unshare(2) said.
pub fn own_cgroup_view() -> io::Result<()> {
    // SAFETY: as above.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP) }?)
}

/// Joins every namespace of the process behind `pidfd`, except its network (the keeper is in that
/// one already). Children are then born in its pid namespace. The caller's ids are still the host's:
/// use [`credentials::join_as_root`](super::credentials::join_as_root).
///
/// # Errors
/// What setns(2) said.
pub(super) fn join_container(pidfd: impl AsFd) -> io::Result<()> {
    let all = ThreadNameSpaceType::USER
        | ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::CONTROL_GROUP;
    Ok(rustix::thread::move_into_thread_name_spaces(
        pidfd.as_fd(),
        all,
    )?)
}

/// Children are born in the pid namespace of the process behind `pidfd` from now on.
///
/// # Errors
/// What setns(2) said.
pub fn join_pid(pidfd: impl AsFd) -> io::Result<()> {
    Ok(rustix::thread::move_into_thread_name_spaces(
        pidfd.as_fd(),
        ThreadNameSpaceType::PROCESS_ID,
    )?)
}

/// Joins one user namespace.
///
/// # Errors
/// What setns(2) said.
pub fn join_user(userns: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(
        userns,
        Some(LinkNameSpaceType::User),
    )?)
}

/// Where every cgroup file system of a Linux host is mounted, or below.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Mounts the container's `/sys` at `target`: a sysfs of the current network namespace, read-only,
/// and on a v2 host in it the current cgroup namespace, so that programs see their limits. Only
/// the host's root can do this; the container's root, who does not own the network namespace,
/// could not.
///
/// On v1 there is no cgroup view: libcontainer would take it for the host's (see [`hide_cgroups`]).
///
/// # Errors
/// What mount(2) said of sysfs. A cgroup view that cannot be had is left out.
pub fn mount_sys(target: &Path, hierarchies: &Hierarchies) -> io::Result<()> {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("sysfs", target, "sysfs", flags, None)?;
    if hierarchies.iter().any(|one| one.unified) {
        let _ = mount("cgroup2", target.join("fs/cgroup"), "cgroup2", flags, None);
    }
    Ok(())
}

/// Takes every cgroup file system out of this mount namespace and returns the directory that is
/// free now. libcontainer would otherwise write to each `cgroup.procs` that it finds, although the
/// process is in its group already, and on v1 each container would pay an RCU grace period (7 to
/// 24 ms measured) for nothing.
///
/// # Errors
/// What umount(2) said; a host without that directory.
pub fn hide_cgroups() -> io::Result<&'static Path> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let mut found: Vec<&str> = Vec::new();
    for line in text.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        if let (Some(at), true) = (left.split(' ').nth(4), right.starts_with("cgroup")) {
            found.push(at);
        }
    }
    for at in found.into_iter().rev() {
        unmount(at, UnmountFlags::DETACH)?;
    }
    let root = Path::new(CGROUP_ROOT);
    root.metadata().map(|_| root)
}
