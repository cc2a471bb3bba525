//! What btrfs tells about a subvolume and a file system, without starting a process for it.
//!
//! Owner: the btrfs pool. Invariant: reads only. The structures are those of linux/btrfs.h.
#![allow(unsafe_code)]

use std::{fs::File, io, os::fd::AsFd, path::Path};

use rustix::{
    fs::{FileType, Stat},
    ioctl::{Getter, Updater, ioctl, opcode},
};

/// The magic of statfs(2).
pub const MAGIC: i64 = 0x9123_683e;
/// The inode of every subvolume's root.
const ROOT_INODE: u64 = 256;

/// A subvolume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subvolume {
    /// Its number, never used again in this file system; its qgroup is `0/<id>`.
    pub id: u64,
    /// It cannot be changed.
    pub read_only: bool,
    /// Its own name.
    pub uuid: [u8; 16],
    /// What it was made from, or zeros.
    pub parent: [u8; 16],
    /// What was sent to make it, or zeros; set when `btrfs receive` has come to its end.
    pub received: [u8; 16],
    /// When it was made: milliseconds since 1970.
    pub created_ms: u64,
}

/// `struct btrfs_ioctl_timespec`.
#[repr(C)]
struct Time {
    sec: u64,
    nsec: u32,
}

/// `struct btrfs_ioctl_get_subvol_info_args`.
#[repr(C)]
struct SubvolumeInfo {
    treeid: u64,
    name: [u8; 256],
    parent_id: u64,
    dirid: u64,
    generation: u64,
    flags: u64,
    uuid: [u8; 16],
    parent_uuid: [u8; 16],
    received_uuid: [u8; 16],
    transactions: [u64; 4],
    changed: Time,
    made: Time,
    sent: Time,
    received: Time,
    reserved: [u64; 8],
}

/// `struct btrfs_ioctl_fs_info_args`.
#[repr(C)]
struct FsInfo {
    max_id: u64,
    num_devices: u64,
    fsid: [u8; 16],
    rest: [u8; 992],
}

const _: () = assert!(size_of::<SubvolumeInfo>() == 504 && size_of::<FsInfo>() == 1024);

/// Of a root item (`BTRFS_ROOT_SUBVOL_RDONLY`), not of the calls that set it.
const READ_ONLY: u64 = 1;

/// Whether it is the root of a subvolume.
#[must_use]
pub fn is_subvolume(stat: &Stat) -> bool {
    stat.st_ino == ROOT_INODE && FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// The subvolume that a directory lies in or is.
///
/// # Errors
///
/// As open(2); ENOTTY if it is not on a btrfs.
pub fn subvolume(path: &Path) -> io::Result<Subvolume> {
    let file = File::open(path)?;
    // SAFETY: BTRFS_IOC_GET_SUBVOL_INFO writes exactly this structure, all of whose bits are valid
    // in every pattern.
    let info: SubvolumeInfo = unsafe {
        let call = Getter::<{ opcode::read::<SubvolumeInfo>(0x94, 60) }, SubvolumeInfo>::new();
        ioctl(file.as_fd(), call)?
    };
    Ok(Subvolume {
        id: info.treeid,
        read_only: info.flags & READ_ONLY != 0,
        uuid: info.uuid,
        parent: info.parent_uuid,
        received: info.received_uuid,
        created_ms: info.made.sec * 1000 + u64::from(info.made.nsec / 1_000_000),
    })
}

/// The file system's UUID, as `/sys/fs/btrfs` has it.
///
/// # Errors
///
/// As open(2); ENOTTY if it is not a btrfs.
pub fn file_system(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    let mut info = FsInfo {
        max_id: 0,
        num_devices: 0,
        fsid: [0; 16],
        rest: [0; 992],
    };
    // SAFETY: BTRFS_IOC_FS_INFO writes exactly this structure, all of whose bits are valid in every
    // pattern. What it reads (flags that ask for more) is zero.
    unsafe {
        let call = Updater::<{ opcode::read::<FsInfo>(0x94, 31) }, FsInfo>::new(&mut info);
        ioctl(file.as_fd(), call)?;
    }
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let id = &info.fsid;
    let parts = [&id[..4], &id[4..6], &id[6..8], &id[8..10], &id[10..]];
    Ok(parts.map(hex).join("-"))
}
