//! A sparse file with a btrfs in it.

/// How far a loop file may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopLimits {
    /// The size it is made with. At least 128 MiB, or `mkfs.btrfs` refuses.
    pub initial: u64,
    /// How much free room growing aims to keep in it.
    pub headroom: u64,
    /// The size it may grow to.
    pub max: u64,
    /// What is left free on the host's file system.
    pub host_reserve: u64,
}

impl Default for LoopLimits {
    fn default() -> Self {
        const GIB: u64 = 1 << 30;
        Self { initial: GIB, headroom: 4 * GIB, max: 1 << 50, host_reserve: 2 * GIB }
    }
}

/// What it takes, and the package that has it.
pub(super) const PROGRAMS: [(&str, &str); 3] = [("btrfs", "btrfs-progs"), ("mkfs.btrfs", "btrfs-progs"), ("losetup", "mount")];
