//! Opening a path as if a directory were the root: the one place that calls openat2(2).
//!
//! Owner: whoever walks what a container, an image or a volume made up. Invariants: nothing is found
//! outside of the directory, nor through a magic link of `/proc`; a rename or a mount that happens
//! elsewhere on the machine meanwhile is no error.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
    path::Arg,
};

/// The kernel gives a `..` up if anything on the machine was renamed or mounted while it walked the
/// path (openat2(2), EAGAIN: "the caller may choose to retry"). Even with every CPU doing nothing but
/// renaming, a walk that takes microseconds gets through within a few dozen.
const TRIES: u32 = 4_096;

/// Opens `path` below `root`, which is the root of all links and `..` in it. `resolve` restricts
/// further. Descriptors are closed on exec.
///
/// # Errors
/// What openat2(2) said; EAGAIN only if that many tries met somebody's rename, or the file has a lease.
pub fn open_in_root(
    root: impl AsFd,
    path: impl Arg + Copy,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    until_calm(|| openat2(root.as_fd(), path, flags, mode, resolve))
}

fn until_calm<T>(mut attempt: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    for _ in 1..TRIES {
        match attempt() {
            Err(Errno::AGAIN) => {}
            outcome => return outcome,
        }
    }
    attempt()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::atomic::{AtomicBool, Ordering},
        time::{Duration, Instant},
    };

    use super::*;

    const FLAGS: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

    #[test]
    fn a_busy_machine_is_tried_again_and_not_for_ever() {
        let mut tries = 0;
        let mut fails = |count| {
            until_calm(|| {
                tries += 1;
                if tries > count {
                    Ok(tries)
                } else {
                    Err(Errno::AGAIN)
                }
            })
        };
        assert_eq!(fails(7), Ok(8));
        let mut tries = 0;
        let outcome: Result<(), Errno> = until_calm(|| {
            tries += 1;
            Err(Errno::AGAIN)
        });
        assert_eq!((outcome, tries), (Err(Errno::AGAIN), TRIES));
        assert_eq!(until_calm(|| Err::<(), _>(Errno::NOENT)), Err(Errno::NOENT));
    }

    /// The real race, for as long as it takes to be seen by who does not try again.
    #[test]
    fn renames_elsewhere_do_not_disturb_a_path_that_goes_up() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c/d");
        fs::create_dir_all(&deep).unwrap();
        let root = fs::File::open(dir.path()).unwrap();
        let path = "a/b/../b/c/../c/d/../../../../a/b/c/d";
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for number in 0..2 {
                let (one, other) = (
                    elsewhere.path().join(format!("{number}")),
                    elsewhere.path().join(format!("{number}x")),
                );
                fs::create_dir(&one).unwrap();
                let over = &over;
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        fs::rename(&one, &other).unwrap();
                        fs::rename(&other, &one).unwrap();
                    }
                });
            }
            let mut disturbed = 0;
            let deadline = Instant::now() + Duration::from_secs(60);
            let mut failed = None;
            while disturbed < 50 && failed.is_none() && Instant::now() < deadline {
                let once = openat2(&root, path, FLAGS, Mode::empty(), ResolveFlags::IN_ROOT);
                disturbed += usize::from(once.err() == Some(Errno::AGAIN));
                let none = ResolveFlags::empty();
                failed = open_in_root(&root, path, FLAGS, Mode::empty(), none).err();
            }
            over.store(true, Ordering::Relaxed);
            assert_eq!(failed, None, "after {disturbed} disturbances");
            assert!(
                disturbed > 0,
                "nobody's walk was disturbed: this tests nothing"
            );
        });
    }

    #[test]
    fn nothing_is_found_outside() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("in/top")).unwrap();
        let root = fs::File::open(dir.path().join("in")).unwrap();
        let open = |path: &str| {
            let none = ResolveFlags::empty();
            let fd = open_in_root(&root, path, FLAGS, Mode::empty(), none)?;
            rustix::fs::fstat(&fd)
        };
        let own = rustix::fs::fstat(&root).unwrap().st_ino;
        for path in ["../../..", "/", "top", "top/.."] {
            assert_eq!(open(path).unwrap().st_ino, own, "{path}");
        }
        assert_eq!(open("../in").unwrap_err(), Errno::NOENT);
    }
}
