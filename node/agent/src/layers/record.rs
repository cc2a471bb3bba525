//! What is known about a stored layer, kept beside it as `record.json`.
//!
//! Owner: the store; written before the layer becomes visible, never changed. Invariant: a layer
//! without a readable record does not count.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};
use teu_protocol::ids::Digest;

/// The file's name.
pub(super) const FILE: &str = "record.json";

/// Real ones have some 300 bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// One stored layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// SHA-256 of the blob as it came.
    pub digest: Digest,
    /// SHA-256 of the uncompressed tar.
    pub diff_id: Digest,
    /// Bytes of its files, each rounded up to whole pages: about what it takes on disk.
    pub bytes: u64,
    /// Members extracted.
    pub members: u64,
    /// Device nodes and the like that were left out.
    pub skipped: u64,
}

impl LayerRecord {
    pub(super) fn read(dir: &Path) -> io::Result<Self> {
        let mut text = Vec::new();
        File::open(dir.join(FILE))?
            .take(MAX_BYTES)
            .read_to_end(&mut text)?;
        serde_json::from_slice(&text).map_err(Into::into)
    }

    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let mut file = File::create_new(dir.join(FILE))?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()
    }
}
