//! Owner, mode, attributes and times of what was extracted.
//!
//! Owner: [`super::extract`]. Invariant: attributes that mean something to overlayfs or to a security
//! module never come out of an archive; only `user.*` and file capabilities do. Order: owner, then
//! mode, then capabilities, because each earlier one clears the later.

use std::{ffi::CString, os::fd::BorrowedFd};

use rustix::{
    fs::{Gid, Mode, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};
use teu_protocol::tar_stream::Member;

const CAPABILITY: &[u8] = b"security.capability";

/// `VFS_CAP_REVISION_2` (linux/capability.h): for whichever user namespace owns the file.
const CAPABILITY_V2_BYTES: usize = 20;
const CAPABILITY_V3_BYTES: usize = 24;
const REVISION_2: u8 = 2;

/// Files and directories, opened.
pub(super) fn apply(file: BorrowedFd<'_>, member: &Member) -> Result<(), Errno> {
    rustix::fs::fchown(file, Some(uid(member)?), Some(gid(member)?))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(member.mode))?;
    for (name, value) in &member.xattrs {
        if let Some(value) = accepted(name, value) {
            let name = CString::new(&name[..]).map_err(|_| Errno::INVAL)?;
            match rustix::fs::fsetxattr(file, &name, &value, XattrFlags::empty()) {
                // A file system without user attributes can still hold layers.
                Err(Errno::NOTSUP) if name.as_bytes() != CAPABILITY => {}
                other => other?,
            }
        }
    }
    Ok(())
}

/// Symlinks and pipes, by name.
pub(super) fn apply_at(parent: BorrowedFd<'_>, name: &[u8], member: &Member) -> Result<(), Errno> {
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(parent, name, Some(uid(member)?), Some(gid(member)?), flags)?;
    rustix::fs::utimensat(
        parent,
        name,
        &times(member.mtime, member.mtime_nanos),
        flags,
    )
}

pub(super) fn times(mtime: i64, nanos: u32) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime,
        tv_nsec: nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// The value to set, if any.
fn accepted(name: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    if name == CAPABILITY {
        return capability(value);
    }
    let plain = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
    (plain && name.len() <= 255).then(|| value.to_vec())
}

/// Version 3 names a root user of the machine that made the layer, which says nothing here:
/// version 2 is what it means.
fn capability(value: &[u8]) -> Option<Vec<u8>> {
    match value.len() {
        CAPABILITY_V2_BYTES if value[3] == REVISION_2 => Some(value.to_vec()),
        CAPABILITY_V3_BYTES => {
            let mut value = value[..CAPABILITY_V2_BYTES].to_vec();
            value[3] = REVISION_2;
            Some(value)
        }
        _ => None,
    }
}

fn uid(member: &Member) -> Result<Uid, Errno> {
    id(member.uid).map(Uid::from_raw)
}

fn gid(member: &Member) -> Result<Gid, Errno> {
    id(member.gid).map(Gid::from_raw)
}

/// The last id means "unchanged" to chown.
fn id(value: u64) -> Result<u32, Errno> {
    u32::try_from(value)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or(Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_attributes_pass() {
        let v2 = [&[1, 0, 0, 2][..], &[0; 16]].concat();
        let v3 = [&[1, 0, 0, 3][..], &[0; 16], &[9, 9, 9, 9]].concat();
        assert_eq!(accepted(CAPABILITY, &v2), Some(v2.clone()));
        assert_eq!(accepted(CAPABILITY, &v3), Some(v2));
        assert_eq!(accepted(CAPABILITY, b"x"), None);
        assert_eq!(accepted(b"user.a", b"x"), Some(b"x".to_vec()));
        for name in [
            &b"trusted.overlay.opaque"[..],
            b"trusted.a",
            b"user.overlay.opaque",
            b"security.selinux",
            b"system.posix_acl_access",
            b"",
        ] {
            assert_eq!(accepted(name, b"y"), None);
        }
    }
}
