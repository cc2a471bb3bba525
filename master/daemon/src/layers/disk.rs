//! Blocking file work of the layer cache, called on blocking threads only.
//!
//! Owner: one transfer at a time owns its file. Invariant: [`Partial::finish`] makes a blob visible
//! only after its bytes were verified and are on disk.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use teu_protocol::ids::Digest;

use crate::bounds::{FREE_FLOOR_BYTES, UPLOAD_BATCH_BYTES};

/// A blob that is being received: its bytes so far, and their hash.
#[derive(Debug)]
pub(super) struct Partial {
    file: File,
    path: PathBuf,
    hash: Sha256,
    length: u64,
}

impl Partial {
    /// Opens what there is, reading it again for its hash. At most `size` - 1 bytes are taken up, so
    /// that there is always something left to send: a client that resumes never has to guess.
    pub(super) fn open(path: PathBuf, size: u64) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        let usable = size.saturating_sub(1);
        if file.metadata()?.len() > usable {
            file.set_len(usable)?;
        }
        let mut hash = Sha256::new();
        let mut buffer = vec![0; UPLOAD_BATCH_BYTES];
        let mut length = 0;
        loop {
            let read = file.read(&mut buffer)?;
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            hash.update(bytes);
            length += read as u64;
        }
        Ok(Self {
            file,
            path,
            hash,
            length,
        })
    }

    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// Appends.
    pub(super) fn append(&mut self, pieces: &[Bytes]) -> io::Result<()> {
        for piece in pieces {
            self.hash.update(piece);
            self.file.write_all(piece)?;
            self.length += piece.len() as u64;
        }
        Ok(())
    }

    /// Makes the blob visible under `target`, if it is what was promised: `Ok(false)` if not, and
    /// then it is removed.
    pub(super) fn finish(self, promised: Digest, target: &Path) -> io::Result<bool> {
        let digest: [u8; 32] = self.hash.finalize().into();
        if digest != *promised.as_bytes() {
            std::fs::remove_file(&self.path)?;
            return Ok(false);
        }
        self.file.sync_all()?;
        std::fs::rename(&self.path, target)?;
        if let Some(directory) = target.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(true)
    }
}

/// Whether `wanted` further bytes leave the floor free.
pub(super) fn has_room(directory: &Path, wanted: u64) -> io::Result<bool> {
    let stat = rustix::fs::statvfs(directory)?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    Ok(free >= wanted.saturating_add(FREE_FLOOR_BYTES))
}

/// Reads up to `most` bytes; fewer only at the file's end.
pub(super) fn read_some(file: &mut File, most: usize) -> io::Result<Bytes> {
    let mut buffer = BytesMut::zeroed(most);
    let mut filled = 0;
    while let Some(space) = buffer.get_mut(filled..).filter(|space| !space.is_empty()) {
        match file.read(space) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_goes_on_where_it_stopped_and_is_visible_only_when_right() {
        let directory = tempfile::tempdir().unwrap();
        let (path, target) = (directory.path().join("part"), directory.path().join("blob"));
        let digest = Digest::of(b"hello world");
        let mut partial = Partial::open(path.clone(), 11).unwrap();
        partial.append(&[Bytes::from_static(b"hello")]).unwrap();
        drop(partial);
        let mut partial = Partial::open(path.clone(), 11).unwrap();
        assert_eq!(partial.length(), 5);
        partial
            .append(&[Bytes::from_static(b" "), Bytes::from_static(b"world")])
            .unwrap();
        assert!(partial.finish(digest, &target).unwrap());
        assert_eq!(std::fs::read(&target).unwrap(), b"hello world");
        assert!(!path.exists());
    }

    #[test]
    fn a_wrong_blob_is_never_visible() {
        let directory = tempfile::tempdir().unwrap();
        let (path, target) = (directory.path().join("part"), directory.path().join("blob"));
        let mut partial = Partial::open(path.clone(), 5).unwrap();
        partial.append(&[Bytes::from_static(b"jello")]).unwrap();
        assert!(!partial.finish(Digest::of(b"hello"), &target).unwrap());
        assert!(!target.exists());
        assert!(!path.exists(), "what is wrong is not resumed");
    }
}
