//! Acting in another process's mount namespace.
//!
//! Owner: the stub (a container's first mounts) and the volume worker (exchanging them). Invariant: only
//! a thread made for it enters, and it ends there; the caller never leaves its own namespace. There
//! `/` is the container's root and `/proc` the container's: nothing is looked up by `/proc`.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{Mode, OFlags},
    thread::{LinkNameSpaceType, UnshareFlags},
};

use super::mount_table::{self, MountEntry};

/// What the entered thread has of its own.
#[derive(Debug)]
pub struct Inside {
    /// The thread's directory in the host's `/proc`.
    thread: OwnedFd,
}

impl Inside {
    /// The namespace's mounts, those on others after them.
    ///
    /// # Errors
    /// What reading said.
    pub fn mounts(&self) -> io::Result<Vec<MountEntry>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.thread, "mountinfo", flags, Mode::empty())?;
        let mut text = Vec::new();
        File::from(fd).read_to_end(&mut text)?;
        Ok(mount_table::parse(&text))
    }
}

/// Runs `work` in the mount namespace of `pid`; the caller has checked whose pid that is.
///
/// # Errors
/// What entering, or `work`, said.
pub fn inside<T: Send>(
    pid: i32,
    work: impl FnOnce(&Inside) -> io::Result<T> + Send,
) -> io::Result<T> {
    let namespace = File::open(format!("/proc/{pid}/ns/mnt"))?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("mounts".to_owned())
            .spawn_scoped(scope, || {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let thread = rustix::fs::open("/proc/thread-self", flags, Mode::empty())?;
                // SAFETY: root and working directory become this thread's own, which no other
                // thread relies on; descriptors stay shared.
                unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
                let mounts = Some(LinkNameSpaceType::Mount);
                rustix::thread::move_into_link_name_space(namespace.as_fd(), mounts)?;
                work(&Inside { thread })
            })?;
        thread
            .join()
            .map_err(|_| io::Error::other("the thread in the container's namespace panicked"))?
    })
}
