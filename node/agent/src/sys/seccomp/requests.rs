//! Requests of ioctl(2) that a container may not make. All others it may: what matters is which files it
//! can open, and for each of those the kernel asks for its own privileges.
//!
//! Pure data. The kernel looks at the lower 32 bits only, so the program does too. FICLONE (0x40049409),
//! FICLONERANGE and all that only tells are not here: they stay within the quota.

/// Answered EPERM.
pub(super) const REFUSED: &[u32] = &[
    // A subvolume or a snapshot inside a volume would count against nobody's quota, would not be in the
    // volume's snapshots, and would have to be found before the volume can be destroyed. btrfs lets
    // whoever can write to a directory make them.
    0x5000_940e, // BTRFS_IOC_SUBVOL_CREATE
    0x5000_9418, // BTRFS_IOC_SUBVOL_CREATE_V2
    0x5000_9401, // BTRFS_IOC_SNAP_CREATE
    0x5000_9417, // BTRFS_IOC_SNAP_CREATE_V2
    // The kernel refuses these two as well, unless the host's administrator mounted the pool with
    // `user_subvol_rm_allowed`. rmdir(2) removes an empty one, as a directory.
    0x5000_940f, // BTRFS_IOC_SNAP_DESTROY
    0x5000_943f, // BTRFS_IOC_SNAP_DESTROY_V2
    // The owner of a volume's root could make the tree read-only, which then cannot be moved out of the
    // way of a roll-back.
    0x4008_941a, // BTRFS_IOC_SUBVOL_SETFLAGS
    // And could give it the UUID under which `btrfs receive` looks for the base of a stream, in the whole
    // file system: that of another account's.
    0xc0c8_9425, // BTRFS_IOC_SET_RECEIVED_SUBVOL
    0xc0c0_9425, // the same of a 32-bit program
    // Typing into a terminal that another program of the container reads, which may be another user's
    // there; Linux refuses it by default since 6.2. No container has a console for the second one.
    0x5412, // TIOCSTI
    0x541c, // TIOCLINUX
];
