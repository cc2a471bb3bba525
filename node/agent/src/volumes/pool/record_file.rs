//! A small file that is replaced as a whole: after a kill it is the old one or the new one.
//!
//! Owner: the btrfs pool. Invariant: content is on disk before its name is.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// What an unfinished one is called; whoever recovers removes it.
pub(super) const UNFINISHED: &str = "new";

/// Writes `name` in `dir`, by way of an unfinished file beside it. `between` runs before the rename.
pub(super) fn replace(
    dir: &Path,
    name: &str,
    content: &[u8],
    between: impl FnOnce(),
) -> io::Result<()> {
    let unfinished = dir.join(UNFINISHED);
    let mut file = File::create(&unfinished)?;
    file.write_all(content)?;
    file.sync_all()?;
    between();
    fs::rename(&unfinished, dir.join(name))?;
    File::open(dir)?.sync_all()
}

/// Removes it, durably. `Ok` if there is none.
pub(super) fn remove(dir: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(dir.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => File::open(dir)?.sync_all(),
    }
}
