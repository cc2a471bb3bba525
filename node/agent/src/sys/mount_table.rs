//! The kernel's table of mounts (`mountinfo`), and taking mounts out of a namespace of one's own.
//!
//! Owner: keeper and volume worker. Invariant: parsing is pure; a line that cannot be understood is
//! left out. Paths are relative to the root of the process whose table it is.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use rustix::mount::{UnmountFlags, unmount};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// As `STATX_MNT_ID` tells.
    pub id: u64,
    /// The mount that it is mounted on.
    pub parent: u64,
    /// The file system's own device number; a file's may differ (btrfs subvolumes).
    pub superblock: u64,
    /// Where.
    pub point: PathBuf,
    /// This mount is read-only, whatever the file system is.
    pub read_only: bool,
}

/// Reads the lines of a `mountinfo` (see proc_pid_mountinfo(5)).
#[must_use]
pub fn parse(mountinfo: &[u8]) -> Vec<MountEntry> {
    mountinfo
        .split(|&byte| byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let device = std::str::from_utf8(fields.next()?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let superblock = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
    let point = unescaped(fields.nth(1)?);
    let read_only = fields
        .next()?
        .split(|&byte| byte == b',')
        .any(|option| option == b"ro");
    Some(MountEntry {
        id,
        parent,
        superblock,
        point: PathBuf::from(OsString::from_vec(point)),
        read_only,
    })
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.first_chunk::<3>().filter(|_| first == b'\\');
        let code = digits.and_then(|digits| {
            let text = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(text, 8).ok()
        });
        match code {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(first);
                rest = after;
            }
        }
    }
    out
}

/// Takes everything that is mounted below `dir` out of the calling process's mount namespace, which
/// must be its own: a copy of a mount keeps its file system busy as much as the mount itself.
///
/// # Errors
/// The table cannot be read, or what umount(2) said.
pub fn detach_below(dir: &Path) -> io::Result<()> {
    let table = parse(&fs::read("/proc/self/mountinfo")?);
    // The youngest first: it may be mounted on another.
    for entry in table.iter().rev() {
        if entry.point != dir && entry.point.starts_with(dir) {
            match unmount(&entry.point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                // Gone with one that it was mounted on.
                Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Takes every mount out of the calling process's mount namespace, which must be its own, but those that lead to one of
/// `needed` or lie below one.
///
/// # Errors
/// The table cannot be read, or what umount(2) said.
pub fn detach_all_but(needed: &[&Path]) -> io::Result<()> {
    let table = parse(&fs::read("/proc/self/mountinfo")?);
    for entry in table.iter().rev().filter(|one| !is_needed(one, needed)) {
        match unmount(&entry.point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Gone with one that it was mounted on.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn is_needed(entry: &MountEntry, needed: &[&Path]) -> bool {
    needed
        .iter()
        .any(|path| path.starts_with(&entry.point) || entry.point.starts_with(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_to_something_needed_is_needed() {
        let needed = ["/proc", "/run/teu", "/srv/data/node"].map(Path::new);
        let is_needed = |point: &str| {
            let entry = MountEntry {
                id: 1,
                parent: 0,
                superblock: 0,
                point: point.into(),
                read_only: false,
            };
            is_needed(&entry, &needed)
        };
        for kept in [
            "/",
            "/proc",
            "/proc/sys/fs/binfmt_misc",
            "/run",
            "/srv/data",
            "/srv/data/node/scratch",
        ] {
            assert!(is_needed(kept), "{kept}");
        }
        for gone in ["/mnt/disk", "/home", "/srv/data2", "/run/user/0"] {
            assert!(!is_needed(gone), "{gone}");
        }
    }

    #[test]
    fn lines_are_read_with_odd_names() {
        let text =
            b"36 35 98:3 /mnt1 /a\\040b/c\\134\\012d ro,noatime master:1 - ext3 /dev/root rw\n\
                     broken line\n\
                     37 36 0:40 / /x rw,nodev - btrfs none ro\n";
        let table = parse(text);
        assert_eq!(
            table,
            [
                MountEntry {
                    id: 36,
                    parent: 35,
                    superblock: rustix::fs::makedev(98, 3),
                    point: "/a b/c\\\nd".into(),
                    read_only: true,
                },
                MountEntry {
                    id: 37,
                    parent: 36,
                    superblock: rustix::fs::makedev(0, 40),
                    point: "/x".into(),
                    read_only: false,
                },
            ]
        );
    }
}
