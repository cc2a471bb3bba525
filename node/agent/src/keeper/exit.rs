//! How a container ended, kept on disk for an agent that was not there to hear it.
//!
//! Owner: the keeper writes it once, before it tells anybody; the agent reads it. Invariant: the
//! file is whole or absent.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use teu_protocol::ids::ContainerId;

use super::wire::ProcessExit;

/// In the container's directory.
pub const EXIT_FILE: &str = "exit.json";

/// What is known after the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    pub container: ContainerId,
    pub exit: ProcessExit,
    /// End cursor of the first process's log.
    pub log_end: u64,
    /// Unix time in milliseconds.
    pub finished_ms: u64,
}

/// Why an exit record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ExitFileError {
    #[error("cannot access {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is damaged")]
    Damaged {
        path: PathBuf,
        source: serde_json::Error,
    },
}

impl ExitRecord {
    /// Reads the record of the container whose directory is `dir`; `None` if it has not ended.
    ///
    /// # Errors
    /// An unreadable or damaged file.
    pub fn read(dir: &Path) -> Result<Option<Self>, ExitFileError> {
        let path = dir.join(EXIT_FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ExitFileError::Io { path, source }),
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| ExitFileError::Damaged { path, source })
    }

    /// Writes the record beside its final name and moves it there.
    pub(super) fn write(&self, dir: &Path) -> Result<(), ExitFileError> {
        let path = dir.join(EXIT_FILE);
        let beside = dir.join(".exit.json.new");
        let text = serde_json::to_vec(self).map_err(|source| ExitFileError::Damaged {
            path: path.clone(),
            source,
        })?;
        fs::write(&beside, text)
            .and_then(|()| fs::rename(&beside, &path))
            .map_err(|source| ExitFileError::Io { path, source })
    }
}
