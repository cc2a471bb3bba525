//! What btrfs tells about a subvolume and a file system, without starting a process for it.
//!
//! Owner: the btrfs pool. Invariant: reads only (but [`bounded`]). The structures are those of linux/btrfs.h.
#![allow(unsafe_code)]

pub mod bounded;

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

/// `struct btrfs_ioctl_search_args`: what to look for, then what was found.
#[repr(C)]
struct Search {
    tree_id: u64,
    min_objectid: u64,
    max_objectid: u64,
    min_offset: u64,
    max_offset: u64,
    min_transid: u64,
    max_transid: u64,
    min_type: u32,
    max_type: u32,
    nr_items: u32,
    unused: u32,
    unused_too: [u64; 4],
    found: [u8; 3992],
}

const _: () = assert!(size_of::<Search>() == 4096);

/// The tree of all trees (`BTRFS_ROOT_TREE_OBJECTID`).
const ROOT_TREE: u64 = 1;
/// In it: a subvolume (object) has another (offset) somewhere in its directories.
const ROOT_REF: u32 = 156;
/// `struct btrfs_ioctl_search_header`: transaction, object, offset; type, length of what follows.
const FOUND_HEADER: usize = 32;

/// The numbers of the subvolumes that lie directly in subvolume `id`, at whatever depth of directories.
/// Names play no part in it. `path` is anything on the file system.
///
/// # Errors
///
/// As open(2); ENOTTY if it is not on a btrfs.
pub fn nested(path: &Path, id: u64) -> io::Result<Vec<u64>> {
    let file = File::open(path)?;
    let mut all = Vec::new();
    let mut from = 0;
    loop {
        let mut search = Search {
            tree_id: ROOT_TREE,
            min_objectid: id,
            max_objectid: id,
            min_offset: from,
            max_offset: u64::MAX,
            min_transid: 0,
            max_transid: u64::MAX,
            min_type: ROOT_REF,
            max_type: ROOT_REF,
            nr_items: 4096,
            unused: 0,
            unused_too: [0; 4],
            found: [0; 3992],
        };
        // SAFETY: BTRFS_IOC_TREE_SEARCH reads and writes exactly this structure, all of whose bits are
        // valid in every pattern.
        unsafe {
            let call =
                Updater::<{ opcode::read_write::<Search>(0x94, 17) }, Search>::new(&mut search);
            ioctl(file.as_fd(), call)?;
        }
        let offsets = found_offsets(&search.found, search.nr_items);
        let Some(&last) = offsets.last() else {
            return Ok(all);
        };
        all.extend(offsets);
        let Some(next) = last.checked_add(1) else {
            return Ok(all);
        };
        from = next;
    }
}

fn found_offsets(found: &[u8], items: u32) -> Vec<u64> {
    let mut rest = found;
    let mut offsets = Vec::new();
    for _ in 0..items {
        let Some((header, after)) = rest.split_first_chunk::<FOUND_HEADER>() else {
            break;
        };
        let [
            ..,
            o0,
            o1,
            o2,
            o3,
            o4,
            o5,
            o6,
            o7,
            _,
            _,
            _,
            _,
            l0,
            l1,
            l2,
            l3,
        ] = *header;
        offsets.push(u64::from_ne_bytes([o0, o1, o2, o3, o4, o5, o6, o7]));
        let length = u32::from_ne_bytes([l0, l1, l2, l3]);
        rest = usize::try_from(length)
            .ok()
            .and_then(|length| after.get(length..))
            .unwrap_or_default();
    }
    offsets
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
