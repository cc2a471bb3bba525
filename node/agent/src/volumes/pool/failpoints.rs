//! The named places between two steps of a change to a pool, where tests end the process.
//!
//! Owner: the pools. Invariant: each name here is reached by one `fail_point!`, and
//! `tests/pools` kills a process at each, then recovers: done, or not begun, and nothing leaked.
//! They exist only with the cargo feature `failpoints`. Next: `btrfs.rs`, `zfs.rs`.

/// All, each backend's by its prefix: `volume-btrfs-…` and `volume-zfs-…`.
pub const FAILPOINTS: &[&str] = &[];
