//! A layer that can be read, any number of times, from any offset.
//!
//! Owner: each reader has its own position; the file is shared and only read by `pread`.
//! Invariant: a reader never leaves its blob's extent.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    sync::Arc,
};

use teu_protocol::{
    ids::Digest,
    message::{Compression, LayerRef},
};

/// Bytes within a file: a member of an archive, or a whole file.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    file: Arc<File>,
    offset: u64,
    size: u64,
}

impl Blob {
    pub(super) const fn new(file: Arc<File>, offset: u64, size: u64) -> Self {
        Self { file, offset, size }
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Equal for two mentions of the same bytes.
    pub(super) fn key(&self) -> (usize, u64, u64) {
        (Arc::as_ptr(&self.file) as usize, self.offset, self.size)
    }

    pub(super) fn reader(&self) -> BlobReader {
        BlobReader {
            blob: self.clone(),
            position: 0,
        }
    }
}

/// One layer of a verified image.
#[derive(Debug, Clone)]
pub struct SourceLayer {
    /// SHA-256 of the bytes that are shipped.
    pub digest: Digest,
    /// SHA-256 of the uncompressed tar.
    pub diff_id: Digest,
    /// Bytes to be shipped.
    pub size: u64,
    /// How they are compressed.
    pub compression: Compression,
    pub(super) blob: Blob,
}

impl SourceLayer {
    /// A reader of the blob, at its start; seek to resume.
    #[must_use]
    pub fn open(&self) -> BlobReader {
        self.blob.reader()
    }

    /// As it stands in an image's manifest.
    #[must_use]
    pub const fn reference(&self) -> LayerRef {
        LayerRef {
            digest: self.digest,
            diff_id: self.diff_id,
            size: self.size,
            compression: self.compression,
        }
    }
}

/// Reads a blob; independent of other readers of the same blob.
#[derive(Debug)]
pub struct BlobReader {
    blob: Blob,
    position: u64,
}

impl BlobReader {
    /// Bytes from the start of the blob.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }
}

impl Read for BlobReader {
    /// An early end of the file below is `UnexpectedEof`: it shrank.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.blob.size.saturating_sub(self.position);
        let wanted = into.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let at = self.blob.offset + self.position;
        let count = self.blob.file.read_at(&mut into[..wanted], at)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for BlobReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(delta) => self.position.checked_add_signed(delta),
            SeekFrom::End(delta) => self.blob.size.checked_add_signed(delta),
        };
        self.position = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
