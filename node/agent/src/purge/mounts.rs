//! Taking down what the agent has mounted for its volumes.
//!
//! Owner: `purge`. Invariant: nothing is removed here, and afterwards nothing is mounted there, so that
//! removing the directory reaches no volume.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::mount::{UnmountFlags, unmount as umount2};

use super::PurgeError;

/// Unmounts `dir` and all below it, and gives back the loop devices that were mounted there.
pub(super) fn unmount(dir: &Path) -> Result<(), PurgeError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| PurgeError::Unmount { path, source }
    };
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(failed(dir))?;
    let below = mounted(&table, dir);
    // The youngest first: it may be mounted on another.
    for (point, _) in below.iter().rev() {
        match umount2(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Gone with one that it was mounted on.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(failed(point)(error.into())),
        }
    }
    for device in below.iter().map(|(_, source)| source) {
        if device.starts_with("/dev/loop") {
            detach(device);
        }
    }
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(failed(dir))?;
    match mounted(&table, dir).into_iter().next() {
        None => Ok(()),
        Some((point, _)) => Err(failed(&point)(io::ErrorKind::ResourceBusy.into())),
    }
}

/// Gives back the loop devices that show certain files.
pub(super) fn detach_files(is_ours: impl Fn(&Path) -> bool) {
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    for device in devices {
        let shown = fs::read_to_string(device.path().join("loop/backing_file"));
        let is_ours = shown.is_ok_and(|shown| is_ours(&backing_file(&shown)));
        if is_ours {
            detach(&format!("/dev/{}", device.file_name().to_string_lossy()));
        }
    }
}

/// As the kernel writes it: with a line's end, and marked if the file is gone.
fn backing_file(shown: &str) -> PathBuf {
    let shown = shown.trim_end_matches('\n');
    PathBuf::from(shown.strip_suffix(" (deleted)").unwrap_or(shown))
}

/// A device that is still busy goes by itself when its last user does (losetup(8)).
fn detach(device: &str) {
    let status = Command::new("losetup")
        .args(["--detach", device])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !status.is_ok_and(|status| status.success()) {
        tracing::warn!("the loop device {device} is not given back");
    }
}

/// Where, and what, from the lines of a `mountinfo` (proc_pid_mountinfo(5)).
fn mounted(table: &str, dir: &Path) -> Vec<(PathBuf, String)> {
    let one = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let point = PathBuf::from(plain(mount.split(' ').nth(4)?));
        let source = file_system.split(' ').nth(1)?.to_owned();
        point.starts_with(dir).then_some((point, source))
    };
    table.lines().filter_map(one).collect()
}

/// Blanks and the like are written in octal.
fn plain(field: &str) -> String {
    let odd = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    odd.iter()
        .fold(field.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_gone_is_still_shown() {
        for shown in ["/data/pool.btrfs\n", "/data/pool.btrfs (deleted)\n"] {
            assert_eq!(backing_file(shown), Path::new("/data/pool.btrfs"));
        }
    }

    #[test]
    fn only_what_is_below_is_found() {
        let table = "36 35 0:40 / /data/volumes rw - btrfs /dev/loop3 rw\n\
                     37 36 0:41 / /data/volumes/a\\040b rw shared:1 - zfs tank/teu/x rw\n\
                     38 35 0:42 / /data/volumes2 rw - btrfs /dev/loop4 rw\n\
                     broken\n";
        let found = mounted(table, Path::new("/data/volumes"));
        let expected = [
            ("/data/volumes".into(), "/dev/loop3".to_owned()),
            ("/data/volumes/a b".into(), "tank/teu/x".to_owned()),
        ];
        assert_eq!(found, expected);
    }
}
