//! User namespaces and id-mapped mounts: a layer on disk is owned by 0.., a container sees it so,
//! and the host sees the account's own range.
//!
//! Owner: the stub (see `keeper::stub`). Invariant: a mapping is one contiguous range from
//! container id 0; the host's root is never inside it.
#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags},
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
    process::{Pid, Signal, WaitOptions},
};

use crate::{keeper::IdRange, sys::fork};

// From linux/mount.h.
const MOUNT_ATTR_RDONLY: u64 = 0x1;
const MOUNT_ATTR_NODEV: u64 = 0x4;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// What a cloned mount allows.
#[derive(Debug, Clone, Copy, Default)]
pub struct MountRights<'a> {
    pub read_only: bool,
    /// Map owners through this user namespace.
    pub idmap: Option<BorrowedFd<'a>>,
}

/// A user namespace that is not mapped yet. Making one takes a fork and an unshare, so it is done
/// ahead; the mapping is known only when an account wants the slot.
#[derive(Debug)]
pub struct UnmappedNamespace {
    /// The process that the maps are written to; it only waits.
    holder: Pid,
    namespace: OwnedFd,
}

impl UnmappedNamespace {
    /// Makes a user namespace, owned by the caller's user.
    ///
    /// # Errors
    /// What fork or unshare said.
    pub fn new() -> io::Result<Self> {
        let (ready_read, ready_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let child = fork::fork(fork::ForkOptions::default(), move || {
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            // SAFETY: this process has one thread and shares no memory with another.
            let done =
                unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWUSER) };
            if done.is_err() || rustix::io::write(&ready_write, b"1").is_err() {
                return 1;
            }
            loop {
                // Killed when the maps are written, or with its parent.
                std::thread::park();
            }
        })?;
        let holder = Pid::from_raw(child).ok_or(io::ErrorKind::InvalidData)?;
        // The child alone holds the writing end now, so its death would end the stream.
        let outcome = (|| {
            let mut byte = [0; 1];
            if rustix::io::read(&ready_read, &mut byte)? == 0 {
                return Err(io::Error::other("the user namespace was refused"));
            }
            let path = format!("/proc/{child}/ns/user");
            Ok(rustix::fs::open(
                path,
                OFlags::RDONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )?)
        })();
        match outcome {
            Ok(namespace) => Ok(Self { holder, namespace }),
            Err(error) => {
                end(holder);
                Err(error)
            }
        }
    }

    /// Maps `range` to the namespace's ids 0.. and returns it; the descriptor keeps it.
    ///
    /// # Errors
    /// What the writes to the maps said.
    pub fn map(self, range: IdRange) -> io::Result<OwnedFd> {
        let map = format!("0 {} {}", range.base, range.count);
        let holder = self.holder.as_raw_nonzero();
        let written = std::fs::write(format!("/proc/{holder}/uid_map"), &map)
            .and_then(|()| std::fs::write(format!("/proc/{holder}/gid_map"), &map));
        end(self.holder);
        written.map(|()| self.namespace)
    }
}

fn end(holder: Pid) {
    let _ = rustix::process::kill_process(holder, Signal::KILL);
    let _ = rustix::process::waitpid(Some(holder), WaitOptions::empty());
}

/// Clones the mount at `source` without what is mounted below it, detached, with
/// no set-user-id surprises left to the host: nosuid is not set (the user namespace contains it),
/// nodev is.
///
/// # Errors
/// What open_tree(2) or mount_setattr(2) said.
pub fn clone_mount(source: &Path, rights: MountRights<'_>) -> io::Result<OwnedFd> {
    let tree = open_clone(source)?;
    restrict(&tree, rights)?;
    Ok(tree)
}

/// Clones the mount at `source` without what is mounted below it, detached, as it is.
///
/// # Errors
/// What open_tree(2) said.
pub fn open_clone(source: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(open_tree(CWD, source, flags)?)
}

/// Clones the mount whose root is open, detached, with its flags and its mapping.
///
/// # Errors
/// What open_tree(2) said.
pub fn clone_open(mount: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(open_tree(mount, "", flags)?)
}

/// Sets what a detached mount allows; nodev always.
///
/// # Errors
/// What mount_setattr(2) said.
pub fn restrict(tree: impl AsFd, rights: MountRights<'_>) -> io::Result<()> {
    let mut attr = MountAttr {
        attr_set: MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    if rights.read_only {
        attr.attr_set |= MOUNT_ATTR_RDONLY;
    }
    if let Some(userns) = rights.idmap {
        attr.attr_set |= MOUNT_ATTR_IDMAP;
        attr.userns_fd = userns.as_raw_fd() as u64;
    }
    // SAFETY: the path is an empty C string, the struct is valid for its size.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw mut attr,
            size_of::<MountAttr>(),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Attaches a detached mount at a path.
///
/// # Errors
/// What move_mount(2) said.
pub fn attach(tree: impl AsFd, target: &Path) -> io::Result<()> {
    Ok(move_mount(
        tree,
        "",
        CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?)
}

/// Attaches a detached mount on an open file or directory.
///
/// # Errors
/// What move_mount(2) said.
pub fn attach_on(tree: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(tree, "", target, "", flags)?)
}

/// Moves what is mounted at `source`, with all below it, onto an open directory.
///
/// # Errors
/// What open_tree(2) or move_mount(2) said.
pub fn move_attached(source: &Path, target: impl AsFd) -> io::Result<()> {
    attach_on(
        open_tree(CWD, source, OpenTreeFlags::OPEN_TREE_CLOEXEC)?,
        target,
    )
}
