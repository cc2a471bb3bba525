//! Forking from a single-threaded process.
//!
//! Owner: launcher and keeper. Invariant: the caller has exactly one thread, which is checked, so a child may use the allocator and everything else that a lock could guard.
//! The children never return into the caller's frames: they end with `_exit`.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

/// What a child that panics exits with.
const PANICKED: i32 = 101;

/// From linux/sched.h; `libc` has it as a type that it does not fit.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// How a child is made.
#[derive(Debug, Default, Clone, Copy)]
pub struct ForkOptions<'a> {
    /// Born inside this cgroup v2 directory: no later write to `cgroup.procs`, no waiting.
    pub into_cgroup: Option<BorrowedFd<'a>>,
    /// The child's parent is the caller's parent, which is then the one to reap it.
    pub as_sibling: bool,
}

/// `struct clone_args` of clone3(2), version 2 (88 bytes).
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Forks a sibling, and names it for good: its pid as the caller sees it, and a pidfd.
///
/// # Errors
/// What clone3(2) said.
pub fn fork_sibling(child: impl FnOnce() -> i32) -> io::Result<(i32, OwnedFd)> {
    let mut pidfd = -1;
    let options = ForkOptions {
        into_cgroup: None,
        as_sibling: true,
    };
    let pid = forked(clone3(options, Some(&mut pidfd)), child)?;
    // SAFETY: the kernel has just made it for this process, and nobody else knows it.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// Forks; `child` runs in the new process, and its result is that process's exit code.
///
/// # Errors
/// `Unsupported` if the caller has more than one thread; else what clone3(2) said.
pub fn fork(options: ForkOptions<'_>, child: impl FnOnce() -> i32) -> io::Result<i32> {
    // Who makes siblings is itself a fresh fork, and may have no /proc that shows it.
    if !options.as_sibling && thread_count()? != 1 {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "fork from a process with several threads",
        ));
    }
    let pid = if options.as_sibling || options.into_cgroup.is_some() {
        clone3(options, None)
    } else {
        // SAFETY: as the process has one thread, the child may do anything that the parent may.
        i64::from(unsafe { libc::fork() })
    };
    forked(pid, child)
}

/// Goes on in the child, or tells the parent.
fn forked(pid: i64, child: impl FnOnce() -> i32) -> io::Result<i32> {
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or(PANICKED);
            // SAFETY: ends the process at once, running no destructor of the caller's frames.
            unsafe { libc::_exit(code) }
        }
        pid => i32::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidData)),
    }
}

/// clone3(2) without shared memory: -1, 0 in the child, the pid in the parent.
fn clone3(options: ForkOptions<'_>, pidfd: Option<&mut i32>) -> i64 {
    let mut args = CloneArgs::default();
    if options.as_sibling {
        // The exit signal is then the caller's own; giving one is EINVAL.
        args.flags |= libc::CLONE_PARENT as u64;
    } else {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = options.into_cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    if let Some(pidfd) = pidfd {
        args.flags |= libc::CLONE_PIDFD as u64;
        args.pidfd = std::ptr::from_mut(pidfd) as u64;
    }
    // SAFETY: without CLONE_VM this is fork(2): the child has its own copy of all memory, and
    // as there is one thread, no lock is held by a thread that the child lacks.
    unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) }
}

/// The pid of the process behind `pidfd`, as `/proc` counts here; 0 if it is dead and reaped.
#[must_use]
pub fn pid_of(pidfd: &OwnedFd) -> i32 {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"));
    pid.and_then(|text| text.trim().parse().ok())
        .filter(|pid| *pid > 0)
        .unwrap_or(0)
}

/// The calling process's threads: `/proc/self/task` has one directory each.
fn thread_count() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// The kernel's `struct sigaction`, all zero: default action, no flags, no mask. The C library's
/// call refuses the signals that it keeps for itself, but those are inherited over exec as well.
#[repr(C)]
#[derive(Default)]
struct DefaultAction {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

/// Back to what a fresh program expects: no blocked signals, default actions (Rust's runtime
/// ignores SIGPIPE, and that would be inherited over exec). Ends with an exec: the C library's own
/// handlers are gone too.
pub fn reset_signals() {
    const SIGNALS: libc::c_int = 64;
    let default = DefaultAction::default();
    for signal in 1..=SIGNALS {
        // SAFETY: the struct is as the kernel wants it; SIGKILL and SIGSTOP only give EINVAL.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                &raw const default,
                std::ptr::null_mut::<DefaultAction>(),
                size_of::<u64>(),
            );
        }
    }
    // SAFETY: an all-zero sigset_t is the empty set; the pointer outlives the call.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Sends a signal by its number: libraries' types know only those below 32.
///
/// # Errors
/// What pidfd_send_signal(2) said.
pub fn send_signal(pidfd: &OwnedFd, signal: u8) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed; the descriptor outlives the call.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::c_int::from(signal),
            no_info,
            0,
        )
    };
    if sent == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Orphans below this process become its children (`PR_SET_CHILD_SUBREAPER`).
///
/// # Errors
/// What prctl(2) said.
pub fn adopt_orphans() -> io::Result<()> {
    // SAFETY: only sets a flag of the process.
    if unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Children that end are reaped by the kernel: the launcher never looks at a keeper's status.
pub fn reap_children_automatically() {
    // SAFETY: setting a disposition that runs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Blocks `signals` and returns a descriptor that becomes readable when one arrives.
///
/// # Errors
/// What signalfd(2) said.
pub fn signal_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset and outlives the calls; the returned
    // descriptor is fresh and owned by nobody else.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Marks every descriptor from `first` on close-on-exec.
///
/// # Errors
/// What close_range(2) said.
pub fn cloexec_from(first: u32) -> io::Result<()> {
    // SAFETY: only sets a flag on descriptors.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Keeps a small process small: big buffers go back to the kernel as soon as they are freed
/// (glibc otherwise raises its mmap threshold to the largest one ever freed).
pub fn return_memory_early() {
    // SAFETY: mallopt and malloc_trim only tune the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 * 1024);
        libc::malloc_trim(0);
    }
}

/// Soft and hard limit of open files for containers: what systemd gives services.
const OPEN_FILES: libc::rlimit = libc::rlimit {
    rlim_cur: 1024,
    rlim_max: 524_288,
};

/// Sets the resource limits that a container starts with: not more than the caller may have, if it
/// lacks `CAP_SYS_RESOURCE`.
///
/// # Errors
/// What getrlimit(2) or setrlimit(2) said.
pub fn container_rlimits() -> io::Result<()> {
    let no_core = libc::rlimit {
        rlim_cur: 0,
        rlim_max: libc::RLIM_INFINITY,
    };
    for (resource, wanted) in [
        (libc::RLIMIT_NOFILE, OPEN_FILES),
        (libc::RLIMIT_CORE, no_core),
    ] {
        // SAFETY: the structs outlive the calls.
        let done = unsafe {
            if libc::setrlimit(resource, &raw const wanted) == 0 {
                continue;
            }
            let mut have = wanted;
            libc::getrlimit(resource, &raw mut have);
            have.rlim_cur = wanted.rlim_cur.min(have.rlim_max);
            libc::setrlimit(resource, &raw const have)
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Drops all supplementary groups, or takes exactly these.
///
/// # Errors
/// What setgroups(2) said.
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the slice is valid for its length.
    if unsafe { libc::setgroups(groups.len(), groups.as_ptr()) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Ends this process at once: nothing that its frames own is dropped.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: runs nothing of ours.
    unsafe { libc::_exit(code) }
}

/// Replaces this process's program. Returns only on failure.
pub fn execve(
    program: &std::ffi::CStr,
    args: &[std::ffi::CString],
    env: &[std::ffi::CString],
) -> io::Error {
    let pointers = |list: &[std::ffi::CString]| -> Vec<*const libc::c_char> {
        list.iter()
            .map(|item| item.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (argv, envp) = (pointers(args), pointers(env));
    // SAFETY: both arrays end in null and point to strings that outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Closes every descriptor from 3 on but those in `keep`. For a freshly forked child that never returns
/// to the owners of what is closed.
///
/// # Errors
/// What close_range(2) said.
pub fn close_all_but(keep: &[std::os::fd::RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep
        .iter()
        .filter_map(|&fd| u32::try_from(fd).ok())
        .collect();
    keep.sort_unstable();
    let mut first = 3;
    // Behind the last one, to the end.
    for last in keep.into_iter().map(Some).chain([None]) {
        let end = last.map_or(Some(u32::MAX), |kept| kept.checked_sub(1));
        let range = end.filter(|&end| end >= first).map(|end| (first, end));
        first = first.max(last.map_or(first, |kept| kept + 1));
        let Some((first, last)) = range else {
            continue;
        };
        // SAFETY: no owner of these descriptors runs again in this process.
        if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
