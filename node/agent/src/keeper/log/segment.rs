//! The files of a log: their names, and which there are.
//!
//! Owner: the parent module. Invariant: the name alone tells a segment's place and form.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use teu_protocol::ids::ProcessId;

/// How a segment's records look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    /// Written by a keeper of version 0.
    Old,
    Present,
}

/// A segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment {
    pub(super) start: u64,
    pub(super) form: Form,
}

impl Segment {
    /// Its file.
    pub(super) fn path(self, dir: &Path, process: &ProcessId) -> PathBuf {
        let ending = match self.form {
            Form::Old => "log",
            Form::Present => "out",
        };
        dir.join(format!("{process}.{:020}.{ending}", self.start))
    }
}

/// The segments that exist, ascending.
pub(super) fn list(dir: &Path, process: &ProcessId) -> io::Result<Vec<Segment>> {
    let prefix = format!("{process}.");
    let mut all = Vec::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(all),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let name = entry?.file_name();
        let segment = name.to_str().and_then(|name| {
            let (start, ending) = name.strip_prefix(&prefix)?.split_once('.')?;
            let form = match ending {
                "log" => Form::Old,
                "out" => Form::Present,
                _ => return None,
            };
            let start = start.parse().ok()?;
            Some(Segment { start, form })
        });
        all.extend::<Option<Segment>>(segment);
    }
    all.sort_unstable();
    Ok(all)
}
