//! Files that are whole and durable, or as they were before.
//!
//! Invariants: a reader sees the old content or the new one; when [`write`] has returned, the new one
//! survives a crash of the machine. [`write_for_this_boot`] promises that for a crash of the process only.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Writes beside the final name, readable by the owner only, moves it there, and waits until the disk
/// has both the content and the name. Blocking.
///
/// # Errors
/// The file system's; the file is then as it was, or, if only the last step failed, new and not yet
/// certain to stay.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, true)?;
    sync_parent(path)
}

/// As [`write`], without waiting for the disk: for what is worthless once the machine has crashed.
///
/// # Errors
/// The file system's; the file is then as it was.
pub fn write_for_this_boot(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, false)
}

/// What [`set_aside`] adds to a file's name.
pub const DAMAGED: &str = ".damaged";

/// Moves a file that cannot be used out of the way, to be looked at: `record.mp` to
/// `record.mp.damaged`. Returns where it is now.
///
/// # Errors
/// The file system's.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = beside(path, DAMAGED);
    fs::rename(path, &aside)?;
    sync_parent(path)?;
    Ok(aside)
}

fn replace(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    let beside = beside(path, ".new");
    let written = write_new(&beside, bytes, sync).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // A part of a file is of no use, and may be what fills the disk.
        let _ = fs::remove_file(&beside);
    }
    written
}

fn write_new(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    if sync { file.sync_all() } else { Ok(()) }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.mp");
        write(&path, b"old").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(
            set_aside(&path).unwrap(),
            dir.path().join("record.mp.damaged")
        );
        assert!(!path.exists());
    }

    #[test]
    fn what_cannot_be_replaced_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.mp");
        fs::create_dir_all(path.join("in the way")).unwrap();
        assert!(write(&path, b"new").is_err());
        assert!(path.join("in the way").is_dir());
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing is left beside"
        );
    }
}
