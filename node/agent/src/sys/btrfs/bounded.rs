//! Subvolumes with a bound, made and destroyed in microseconds: no program is started for it.
//!
//! Owner: the scratch file system of containers. Invariant: a name is one path component below an open
//! directory; the structures are those of linux/btrfs.h.

use std::{
    fs::{File, Permissions},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::PermissionsExt,
    },
    path::Path,
};

use rustix::ioctl::{Setter, Updater, ioctl, opcode};

/// `BTRFS_PATH_NAME_MAX`, and the byte that ends it.
const NAME_BYTES: usize = 4_088;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct VolumeArgs {
    fd: i64,
    name: [u8; NAME_BYTES],
}

/// `struct btrfs_ioctl_qgroup_limit_args`.
#[repr(C)]
struct LimitArgs {
    /// 0: that of the subvolume that the descriptor lies in.
    qgroup: u64,
    flags: u64,
    max_referenced: u64,
    max_exclusive: u64,
    reserved_referenced: u64,
    reserved_exclusive: u64,
}

/// `struct btrfs_ioctl_quota_ctl_args`.
#[repr(C)]
struct QuotaArgs {
    command: u64,
    status: u64,
}

const _: () = assert!(size_of::<VolumeArgs>() == 4096 && size_of::<LimitArgs>() == 48);

/// `BTRFS_QGROUP_LIMIT_MAX_RFER`.
const MAX_REFERENCED: u64 = 1;
/// `BTRFS_QUOTA_CTL_ENABLE` and `BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA` (6.7): the latter counts by who wrote, which
/// costs nothing and is never inconsistent; without snapshots both count the same.
const ENABLE_FULL: u64 = 1;
const ENABLE_SIMPLE: u64 = 4;

fn arguments(name: &str) -> io::Result<VolumeArgs> {
    let mut args = VolumeArgs {
        fd: 0,
        name: [0; NAME_BYTES],
    };
    let fits = !name.is_empty() && !name.contains(['/', '\0']) && name.len() < NAME_BYTES;
    match args.name.get_mut(..name.len()).filter(|_| fits) {
        Some(place) => place.copy_from_slice(name.as_bytes()),
        None => return Err(io::ErrorKind::InvalidInput.into()),
    }
    Ok(args)
}

/// Turns accounting on, if it is not.
///
/// # Errors
/// What the kernel said.
pub fn enable_quotas(dir: impl AsFd) -> io::Result<()> {
    let enable = |command| {
        let mut args = QuotaArgs { command, status: 0 };
        // SAFETY: BTRFS_IOC_QUOTA_CTL reads and writes exactly this structure.
        unsafe {
            let call =
                Updater::<{ opcode::read_write::<QuotaArgs>(0x94, 40) }, QuotaArgs>::new(&mut args);
            ioctl(dir.as_fd(), call)
        }
    };
    match enable(ENABLE_SIMPLE) {
        // It is on, in one way or the other.
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(_) => Ok(enable(ENABLE_FULL)?),
    }
}

/// Makes a subvolume that may refer to at most `bound` bytes, its file names and inodes included.
///
/// # Errors
/// What the kernel said; then there is none.
pub fn create(dir: BorrowedFd<'_>, path: &Path, name: &str, bound: u64) -> io::Result<()> {
    let args = arguments(name)?;
    // SAFETY: BTRFS_IOC_SUBVOL_CREATE reads exactly this structure.
    unsafe {
        let call = Setter::<{ opcode::write::<VolumeArgs>(0x94, 14) }, VolumeArgs>::new(args);
        ioctl(dir, call)?;
    }
    let bounded = File::open(path.join(name)).and_then(|made| {
        // Whatever the umask of whoever started the agent.
        made.set_permissions(Permissions::from_mode(0o755))?;
        set_bound(&made, bound)
    });
    if bounded.is_err() {
        let _ = destroy(dir, name);
    }
    bounded
}

fn set_bound(subvolume: &File, bound: u64) -> io::Result<()> {
    let args = LimitArgs {
        qgroup: 0,
        flags: MAX_REFERENCED,
        max_referenced: bound,
        max_exclusive: 0,
        reserved_referenced: 0,
        reserved_exclusive: 0,
    };
    // SAFETY: BTRFS_IOC_QGROUP_LIMIT reads exactly this structure.
    unsafe {
        let call = Setter::<{ opcode::read::<LimitArgs>(0x94, 43) }, LimitArgs>::new(args);
        ioctl(subvolume.as_fd(), call)?;
    }
    Ok(())
}

/// Destroys a subvolume with all that is in it. Gone already is fine. Its room comes back in the background.
///
/// # Errors
/// What the kernel said.
pub fn destroy(dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let args = arguments(name)?;
    // SAFETY: BTRFS_IOC_SNAP_DESTROY reads exactly this structure.
    let done = unsafe {
        let call = Setter::<{ opcode::write::<VolumeArgs>(0x94, 15) }, VolumeArgs>::new(args);
        ioctl(dir, call)
    };
    match done {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
