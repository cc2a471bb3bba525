//! The only code of TEU that knows Linux: namespaces, links, firewall, cgroups, mounts.
//!
//! Owned by the node agent. Invariant: nothing above this module makes a system call for a
//! container's sake, and nothing in here decides; plans come from `teu-node-core`.
//! Next: `names` for what everything is called, `net` for the network.

pub mod btrfs;
pub mod cgroup;
pub mod credentials;
pub mod fork;
pub mod fs_user;
pub mod holders;
pub mod idmap;
pub mod mount_ns;
pub mod mount_table;
pub mod names;
pub mod namespaces;
pub mod net;
pub mod netns;
#[cfg(feature = "zfs-core")]
pub mod nvlist;
pub mod oci;
pub mod oom;
pub mod open_in_root;
pub mod pty;
pub mod rootfs;
pub mod seccomp;
pub mod seqpacket;
pub mod subid;
