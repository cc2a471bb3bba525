//! The files of a log: their names, and which there are.
//!
//! Owner: the parent module. Invariant: the name alone tells a segment's place.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use teu_protocol::ids::ProcessId;

/// The file that begins at `start`.
pub(super) fn path(dir: &Path, process: &ProcessId, start: u64) -> PathBuf {
    dir.join(format!("{process}.{start:020}.log"))
}

/// Start cursors of the segments that exist, ascending.
pub(super) fn list(dir: &Path, process: &ProcessId) -> io::Result<Vec<u64>> {
    let prefix = format!("{process}.");
    let mut starts = Vec::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(starts),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let name = entry?.file_name();
        let start = name.to_str().and_then(|name| {
            name.strip_prefix(&prefix)?
                .strip_suffix(".log")?
                .parse()
                .ok()
        });
        starts.extend::<Option<u64>>(start);
    }
    starts.sort_unstable();
    Ok(starts)
}
