//! Locks the process in before it looks at a single byte.
//!
//! Owner: [`super::main`]. Invariant: after [`confine`] the root directory *is* the target, mounted
//! nosuid, nodev and noexec; there is no network, no other file descriptor than 0, 1 and 2, no way to
//! gain a right or to start a program, and no device node can be made. If any step fails, nothing is
//! unpacked.
#![allow(unsafe_code)]

use std::{fs::File, os::fd::OwnedFd, path::Path};

use caps::{CapSet, Capability, CapsHashSet};
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, UnmountFlags},
    process::{Resource, Rlimit},
    thread::UnshareFlags,
};

use super::{UnpackError, UnpackLimits};

/// zstd's window is at most 128 MiB, remembered paths 64 MiB or so.
const ADDRESS_SPACE_BYTES: u64 = 2 * 1024 * 1024 * 1024;

const OPEN_FILES: u64 = 64;

/// What it takes to give files to others, with their bits. Whiteouts need no `MKNOD`.
const KEPT: [Capability; 5] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_SETFCAP,
];

/// All that extracting calls, the allocator, and ending.
const ALLOWED: &[&str] = &[
    "brk",
    "clock_gettime",
    "close",
    "exit",
    "exit_group",
    "fchmod",
    "fchown",
    "fchownat",
    "fcntl",
    "fsetxattr",
    "fstat",
    "fstatfs",
    "futex",
    "getpid",
    "getrandom",
    "gettid",
    "linkat",
    "lseek",
    "madvise",
    "mkdirat",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "newfstatat",
    "openat",
    "openat2",
    "read",
    "restart_syscall",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_yield",
    "sigaltstack",
    "statx",
    "symlinkat",
    "tgkill",
    "unlinkat",
    "utimensat",
    "write",
    "writev",
];

/// Returns the target, which is then `/`.
pub(super) fn confine(target: &Path, limits: &UnpackLimits) -> Result<OwnedFd, UnpackError> {
    // SAFETY: closing what we did not open; nothing in this process, which has just started and
    // has one thread, holds a descriptor above 2.
    let closed = unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    if closed != 0 {
        return Err(failed("close files", std::io::Error::last_os_error()));
    }
    isolate().map_err(|errno| failed("leave the namespaces", errno))?;
    enter(target).map_err(|errno| failed("change the root directory", errno))?;
    let root = File::open("/").map_err(|error| failed("open the root directory", error))?;
    limit(limits).map_err(|errno| failed("set limits", errno))?;
    // Modes are set explicitly; nothing must be taken from them on the way.
    rustix::process::umask(rustix::fs::Mode::empty());
    drop_capabilities().map_err(|error| failed("drop capabilities", error))?;
    rustix::thread::set_no_new_privs(true)
        .map_err(|errno| failed("give up new privileges", errno))?;
    filter_calls().map_err(|error| failed("filter system calls", error))?;
    Ok(root.into())
}

/// Drops standard input, so that the parent's next write fails.
pub(super) fn close_stdin() {
    // SAFETY: standard input is not read after this; no owned object stands for descriptor 0.
    unsafe {
        libc::close(0);
    }
}

fn isolate() -> rustix::io::Result<()> {
    let flags = UnshareFlags::NEWNS
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWCGROUP;
    // SAFETY: one thread; it shares neither its file table nor its file system state.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )
}

fn enter(target: &Path) -> rustix::io::Result<()> {
    rustix::mount::mount_bind(target, target)?;
    let flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount_remount(target, flags, c"")?;
    rustix::process::chdir(target)?;
    // The old root ends up on top of the new one, and is taken off there (pivot_root(2)).
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}

fn limit(limits: &UnpackLimits) -> rustix::io::Result<()> {
    for (resource, most) in [
        (Resource::As, ADDRESS_SPACE_BYTES),
        (Resource::Core, 0),
        (Resource::Nofile, OPEN_FILES),
        (Resource::Fsize, limits.file_bytes),
    ] {
        rustix::process::setrlimit(
            resource,
            Rlimit {
                current: Some(most),
                maximum: Some(most),
            },
        )?;
    }
    Ok(())
}

fn drop_capabilities() -> Result<(), caps::errors::CapsError> {
    let kept: CapsHashSet = KEPT.into_iter().collect();
    caps::clear(None, CapSet::Ambient)?;
    // Those of a kernel newer than this list go with the permitted set.
    for capability in caps::all() {
        if !kept.contains(&capability) && caps::has_cap(None, CapSet::Bounding, capability)? {
            caps::drop(None, CapSet::Bounding, capability)?;
        }
    }
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    caps::clear(None, CapSet::Inheritable)
}

fn filter_calls() -> Result<(), libseccomp::error::SeccompError> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Errno(libc::EPERM))?;
    filter.set_ctl_nnp(false)?;
    for name in ALLOWED {
        // `newfstatat` and others have other names elsewhere.
        let Ok(call) = ScmpSyscall::from_name(name) else {
            continue;
        };
        filter.add_rule(ScmpAction::Allow, call)?;
    }
    // Pipes and whiteouts: nothing that stands for a device.
    let no_device = ScmpArgCompare::new(3, ScmpCompareOp::Equal, 0);
    let mknodat = ScmpSyscall::from_name("mknodat")?;
    filter.add_rule_conditional(ScmpAction::Allow, mknodat, &[no_device])?;
    filter.load()
}

fn failed(step: &str, why: impl std::fmt::Display) -> UnpackError {
    UnpackError::Confine {
        step: step.to_owned(),
        why: why.to_string(),
    }
}
