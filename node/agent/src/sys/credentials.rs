//! Who a process is: from the host's root to a container's root, and from there to its user.
//!
//! Owner: tenant and payload, both single-threaded. Invariants: an id is an [`IdInContainer`], so never
//! what setresuid(2) takes for "unchanged"; what was set is read back, and who is not who it should be
//! does not go on; after every step the process is not dumpable, so nothing in the container can look
//! into it or stop it before its program runs.
#![allow(unsafe_code)]

use std::{io, os::fd::AsFd};

use rustix::{
    process::{DumpableBehavior, set_dumpable_behavior},
    thread::{CapabilitySet, CapabilitySets},
};
use teu_protocol::image_config::user::{IdInContainer, Identity, Owner};

use super::{fork, namespaces};

/// What root in a container may do: Docker's default set without `NET_RAW` (no forged packets; ping
/// works by `ping_group_range`), `MKNOD` (there are no devices to make) and `AUDIT_WRITE`.
pub const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SYS_CHROOT);

/// More than any kernel has; from the first that it does not have, dropping one is EINVAL.
const CAPABILITY_NUMBERS: u32 = 64;

/// Joins a container's namespaces (but its network, see `namespaces`) and becomes its root at once, with
/// no more rights than that has. The caller is the reaper's child, so the container can see it, and signal
/// it from now on, but not look into it; its own children are born as the container's root.
///
/// # Errors
/// What a call said, or that the process is not the container's root after all.
pub fn join_as_root(pidfd: impl AsFd) -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    fork::set_groups(&[])?;
    namespaces::join_container(pidfd)?;
    set_ids(Owner::ROOT, &[])?;
    bound_capabilities(CAPABILITIES)?;
    keep_capabilities(CAPABILITIES)
}

/// Leaves the container's root, if another user is asked for, and every privilege that its processes
/// do not have. A user that is not root keeps none: with `no_new_privs`, a file's capabilities give what
/// the process has already. (They stay in the bounding set: without it such a program could not even
/// be executed.)
///
/// # Errors
/// What a call said, or that the process is not who it should be.
pub fn become_user(identity: &Identity) -> io::Result<()> {
    let kept = if identity.uid == IdInContainer::ROOT {
        CAPABILITIES
    } else {
        CapabilitySet::empty()
    };
    rustix::thread::set_no_new_privs(true)?;
    bound_capabilities(CAPABILITIES)?;
    set_ids(identity.owner(), &identity.groups)?;
    keep_capabilities(kept)
}

fn keep_capabilities(kept: CapabilitySet) -> io::Result<()> {
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets)?;
    rustix::thread::clear_ambient_capability_set()?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    if rustix::thread::capabilities(None)? != sets {
        return Err(io::Error::other("the process kept a capability"));
    }
    Ok(())
}

/// Takes everything but `kept` out of the bounding set. Needs `CAP_SETPCAP`, so it comes first.
fn bound_capabilities(kept: CapabilitySet) -> io::Result<()> {
    for number in 0..CAPABILITY_NUMBERS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(one) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Groups first, then the group, then the user: each needs rights that the next one gives up.
fn set_ids(owner: Owner, groups: &[IdInContainer]) -> io::Result<()> {
    let groups: Vec<libc::gid_t> = groups.iter().map(|group| group.get()).collect();
    fork::set_groups(&groups)?;
    let (uid, gid) = (owner.uid.get(), owner.gid.get());
    // SAFETY: these change nothing but ids of this process, which has one thread.
    let done =
        unsafe { libc::setresgid(gid, gid, gid) == 0 && libc::setresuid(uid, uid, uid) == 0 };
    if !done {
        return Err(io::Error::last_os_error());
    }
    // Changing ids may have made it dumpable again (fs.suid_dumpable).
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Who::am_i()?.must_be(uid, gid, &groups)
}

/// What the kernel says about the calling process.
#[derive(Debug)]
struct Who {
    /// Real, effective, saved, and the one that file systems ask for.
    users: [libc::uid_t; 4],
    groups: [libc::gid_t; 4],
    supplementary: Vec<libc::gid_t>,
}

impl Who {
    fn am_i() -> io::Result<Self> {
        let (mut users, mut groups) = ([0; 4], [0; 4]);
        let ([ru, eu, su, fu], [rg, eg, sg, fg]) = (&mut users, &mut groups);
        // SAFETY: the pointers are to integers that outlive the calls; setfsuid(-1) and setfsgid(-1)
        // change nothing and return what is set.
        let done = unsafe {
            *fu = libc::setfsuid(u32::MAX).cast_unsigned();
            *fg = libc::setfsgid(u32::MAX).cast_unsigned();
            libc::getresuid(ru, eu, su) == 0 && libc::getresgid(rg, eg, sg) == 0
        };
        if !done {
            return Err(io::Error::last_os_error());
        }
        let supplementary = rustix::process::getgroups()?;
        Ok(Self {
            users,
            groups,
            supplementary: supplementary.iter().map(|group| group.as_raw()).collect(),
        })
    }

    fn must_be(mut self, uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
        let mut wanted = groups.to_vec();
        wanted.sort_unstable();
        self.supplementary.sort_unstable();
        if self.users == [uid; 4] && self.groups == [gid; 4] && self.supplementary == wanted {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "the process should be user {uid}, group {gid}, groups {wanted:?}, but is {self:?}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_somebody_else_in_any_respect_is_refused() {
        let who = |change: fn(&mut Who)| {
            let mut who = Who {
                users: [7; 4],
                groups: [8; 4],
                supplementary: vec![10, 9],
            };
            change(&mut who);
            who.must_be(7, 8, &[9, 10])
        };
        assert!(who(|_| {}).is_ok());
        let changes: [fn(&mut Who); 6] = [
            |who| who.users[0] = 0,
            |who| who.users[3] = 0,
            |who| who.groups[2] = 0,
            |who| who.groups[3] = u32::MAX,
            |who| who.supplementary.push(0),
            |who| who.supplementary.truncate(1),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert!(who(change).is_err(), "{number}");
        }
    }

    #[test]
    fn what_the_kernel_says_is_read() {
        let who = Who::am_i().unwrap();
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let field = |name: &str| -> Vec<u32> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap()
                .split_whitespace()
                .map(|id| id.parse().unwrap())
                .collect()
        };
        assert_eq!(who.users.to_vec(), field("Uid:"));
        assert_eq!(who.groups.to_vec(), field("Gid:"));
        assert_eq!(who.supplementary, field("Groups:"));
    }
}
