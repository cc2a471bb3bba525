//! Doing one thing inside another network namespace, and being back afterwards.
//!
//! Owned by the dedicated threads of `worker` and `connect`; never called on a tokio thread.
//! Invariant: a thread that cannot come back does no further work for anybody (it says so with
//! `NetnsError::Lost` and its owner ends it). A socket belongs for ever to the namespace that it
//! was made in, so leaving does not disturb it. Next: `slot`, `connect`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Which network namespace is meant.
#[derive(Debug)]
pub enum Netns {
    /// That of a living process. The caller knows that the process lives (a keeper is its child,
    /// or is held by a pidfd); a process id alone may have been given to somebody else.
    OfProcess(u32),
    /// An open namespace. Whoever keeps it open keeps the namespace alive.
    Open(OwnedFd),
}

/// Why a thing could not be done inside a namespace.
#[derive(Debug, thiserror::Error)]
pub(super) enum NetnsError {
    /// The namespace cannot be entered: usually its process has ended.
    #[error("cannot enter the network namespace")]
    Enter(#[source] io::Error),
    /// The thing itself failed.
    #[error(transparent)]
    Inside(io::Error),
    /// The thread is stuck inside and must end.
    #[error("cannot return from the network namespace")]
    Lost(#[source] io::Error),
}

/// The namespace that a thread belongs to.
#[derive(Debug)]
pub(super) struct Home(OwnedFd);

impl Home {
    /// The calling thread's namespace.
    pub(super) fn of_this_thread() -> io::Result<Self> {
        Ok(Self(File::open("/proc/thread-self/ns/net")?.into()))
    }

    /// Runs `inside` in `netns` on the calling thread and comes back.
    pub(super) fn visit<T>(
        &self,
        netns: &Netns,
        inside: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, NetnsError> {
        match netns {
            Netns::Open(fd) => self.visit_fd(fd, inside),
            Netns::OfProcess(pid) => {
                let fd = open_of_process(*pid).map_err(NetnsError::Enter)?;
                self.visit_fd(&fd, inside)
            }
        }
    }

    fn visit_fd<T>(
        &self,
        netns: &OwnedFd,
        inside: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, NetnsError> {
        enter(netns).map_err(NetnsError::Enter)?;
        let outcome = inside();
        enter(&self.0).map_err(NetnsError::Lost)?;
        outcome.map_err(NetnsError::Inside)
    }
}

/// Opens the network namespace of process `pid`.
pub(super) fn open_of_process(pid: u32) -> io::Result<OwnedFd> {
    Ok(File::open(format!("/proc/{pid}/ns/net"))?.into())
}

fn enter(netns: &OwnedFd) -> io::Result<()> {
    Ok(move_into_link_name_space(
        netns.as_fd(),
        Some(LinkNameSpaceType::Network),
    )?)
}
