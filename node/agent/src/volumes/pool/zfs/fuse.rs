//! Not asking zfs-fuse anything while it closes the device of an unmounted file system.
//!
//! Owner: the ZFS pool. zfs-fuse 0.7 does so some 20 to 100 ms after the unmount, and twice (destroy_fs in its
//! src/zfs-fuse/fuse_listener.c; strace(1) shows the second fail with EBADF). Whatever it opens between the two
//! has the same number and is closed: a command's connection, which is reset, or another file system's
//! device, which then is busy for ever. So after an unmount of ours it is left alone until that is over.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// The longest that is waited: somebody else may keep the mount.
const LET_GO: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(5);
/// From its first close to its second, on a loaded machine.
const BOTH: Duration = Duration::from_millis(20);

/// How many mounted file systems zfs-fuse has open.
pub(super) fn open_devices() -> usize {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let daemons = processes.filter(|one| {
        fs::read(one.path().join("comm")).is_ok_and(|name| name.trim_ascii() == b"zfs-fuse")
    });
    let files = daemons.flat_map(|one| fs::read_dir(one.path().join("fd")));
    let names = files.flatten().flatten();
    names
        .filter_map(|file| fs::read_link(file.path()).ok())
        .filter(|name| name == Path::new("/dev/fuse"))
        .count()
}

/// Waits until one of them is closed.
pub(super) fn wait_for_fewer_than(before: usize) {
    let end = Instant::now() + LET_GO;
    while open_devices() >= before && Instant::now() < end {
        thread::sleep(STEP);
    }
    thread::sleep(BOTH);
}
