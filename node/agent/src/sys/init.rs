//! A container's first process in front of its program (`--init`): passes signals on, reaps orphans,
//! and ends as the program ends.
//!
//! Owner: the process itself, just before it would execute the program: it needs nothing of the image.
//! Invariants: it has the program's user, capabilities and seccomp filter, no descriptor and no
//! handler; the container cannot look into it, for its memory is a copy of the node's own program.
#![allow(unsafe_code)]

use std::io;

/// Every signal, as the kernel's own set of 64 (libraries leave out those that they keep).
const EVERYTHING: u64 = u64::MAX;
const NOTHING: u64 = 0;
/// What it is called in the container's process list.
const NAME: &std::ffi::CStr = c"teu-init";

/// Forks. The child returns, and is to execute the program; this process never returns.
///
/// # Errors
/// What fork(2) said.
pub fn stand_in_front() -> io::Result<()> {
    set_mask(EVERYTHING);
    // SAFETY: this process has one thread and is about to execute a program.
    match unsafe { libc::fork() } {
        -1 => {
            let error = io::Error::last_os_error();
            set_mask(NOTHING);
            Err(error)
        }
        0 => {
            lead_terminal();
            set_mask(NOTHING);
            Ok(())
        }
        program => watch(program),
    }
}

/// A group of its own that has the terminal, if there is one: what is typed there is the program's.
fn lead_terminal() {
    // SAFETY: plain calls; without a terminal the second fails, which is right.
    unsafe {
        libc::setpgid(0, 0);
        libc::tcsetpgrp(0, libc::getpid());
    }
}

fn watch(program: libc::pid_t) -> ! {
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let _ = rustix::thread::set_name(NAME);
    // The program's streams end with the program, not with this process.
    // SAFETY: nothing here owns a descriptor that is used again.
    unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) };
    loop {
        match next_signal() {
            Some(libc::SIGCHLD) => reap(program),
            // SAFETY: a plain call; the program is not reaped yet, so the number is its own.
            Some(signal) => drop(unsafe { libc::kill(program, signal) }),
            None => {}
        }
    }
}

fn next_signal() -> Option<i32> {
    let everything = EVERYTHING;
    let no_info = std::ptr::null_mut::<libc::siginfo_t>();
    let no_limit = std::ptr::null::<libc::timespec>();
    // SAFETY: the set outlives the call, the others may be null.
    let signal = unsafe {
        libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const everything,
            no_info,
            no_limit,
            size_of::<u64>(),
        )
    };
    i32::try_from(signal).ok().filter(|&signal| signal > 0)
}

/// Signals are merged: one may stand for many children.
fn reap(program: libc::pid_t) {
    loop {
        let mut status = 0;
        // SAFETY: the status outlives the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid == program && (libc::WIFEXITED(status) || libc::WIFSIGNALED(status)) {
            let code = if libc::WIFEXITED(status) {
                libc::WEXITSTATUS(status)
            } else {
                // A first process cannot end itself by a signal; this is what a shell says.
                128 + libc::WTERMSIG(status)
            };
            // SAFETY: ends the process at once, and with it all that is left in the container.
            unsafe { libc::_exit(code) }
        }
        if pid <= 0 {
            return;
        }
    }
}

fn set_mask(mask: u64) {
    // SAFETY: the set outlives the call; the old one is not asked for.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            std::ptr::null_mut::<u64>(),
            size_of::<u64>(),
        );
    }
}
