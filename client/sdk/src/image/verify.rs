//! Hashes every layer, each blob once, several at a time.
//!
//! Owner: scoped threads that end before [`verify`] returns. Invariant: what comes out has digests
//! that were computed here, equal to what manifest and config promise. One pass computes both the
//! blob's digest and, through the decompressor, the diff id.

use std::{
    collections::BTreeMap,
    io::{self, BufReader, Read},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use teu_protocol::{ids::Digest, image_config::ImageConfig, message::Compression};

use super::{
    ImageProgress, ImageSource, ProgressFn,
    error::ImageError,
    layer::{Blob, BlobReader, SourceLayer},
    open::{Format, format_of},
};

/// The largest layer, uncompressed: what a node accepts, too.
const MAX_LAYER_BYTES: u64 = 64 * 1024 * 1024 * 1024;

/// More threads do not help one disk.
const MAX_THREADS: usize = 8;

const CHUNK: usize = 128 * 1024;

/// An image as its manifest describes it, not yet believed.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) names: Vec<String>,
    pub(super) config: Bytes,
    pub(super) parsed: ImageConfig,
    /// As many as the config has diff ids.
    pub(super) layers: Vec<DraftLayer>,
}

#[derive(Debug)]
pub(super) struct DraftLayer {
    pub(super) blob: Blob,
    /// What the manifest calls it, if it does.
    pub(super) expected: Option<Digest>,
}

#[derive(Debug, Clone, Copy)]
struct Measured {
    digest: Digest,
    diff_id: Digest,
    compression: Compression,
}

/// Computes and compares all digests.
pub(super) fn verify(draft: Draft, progress: &ProgressFn) -> Result<ImageSource, ImageError> {
    let blobs: BTreeMap<_, &Blob> = draft
        .layers
        .iter()
        .map(|layer| (layer.blob.key(), &layer.blob))
        .collect();
    let measured = measure_all(&blobs.values().copied().collect::<Vec<_>>(), progress)?;
    let measured: BTreeMap<_, Measured> = blobs.keys().copied().zip(measured).collect();

    let layers = draft
        .layers
        .into_iter()
        .zip(&draft.parsed.diff_ids)
        .enumerate()
        .map(|(index, (layer, diff_id))| {
            let is = measured.get(&layer.blob.key()).ok_or(ImageError::Worker)?;
            let what = || format!("layer {}", index + 1);
            check(&what, layer.expected.unwrap_or(is.digest), is.digest)?;
            check(&what, *diff_id, is.diff_id)?;
            Ok(SourceLayer {
                digest: is.digest,
                diff_id: is.diff_id,
                size: layer.blob.size(),
                compression: is.compression,
                blob: layer.blob,
            })
        })
        .collect::<Result<Vec<SourceLayer>, ImageError>>()?;
    Ok(ImageSource {
        names: draft.names,
        id: Digest::of(&draft.config),
        config: draft.config,
        layers,
        parsed: draft.parsed,
    })
}

fn check(what: &dyn Fn() -> String, expected: Digest, actual: Digest) -> Result<(), ImageError> {
    if expected == actual {
        Ok(())
    } else {
        Err(ImageError::Corrupt {
            what: what(),
            expected,
            actual,
        })
    }
}

/// In the order of `blobs`.
fn measure_all(blobs: &[&Blob], progress: &ProgressFn) -> Result<Vec<Measured>, ImageError> {
    let total = blobs.iter().map(|blob| blob.size()).sum();
    let done = AtomicU64::new(0);
    let next = AtomicUsize::new(0);
    let report = |count: u64| {
        let done = done.fetch_add(count, Ordering::Relaxed) + count;
        progress(ImageProgress::Verifying { done, total });
    };
    let work = || {
        let mut results = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(blob) = blobs.get(index) else {
                return results;
            };
            let result = measure(blob, &report);
            if result.is_err() {
                // The others need not start anything more.
                next.store(blobs.len(), Ordering::Relaxed);
            }
            results.push((index, result));
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(MAX_THREADS).min(blobs.len());
    let mut results = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut results = Vec::new();
        for worker in workers {
            results.extend(worker.join().map_err(|_| ImageError::Worker)?);
        }
        Ok::<_, ImageError>(results)
    })?;
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

fn measure(blob: &Blob, report: &dyn Fn(u64)) -> Result<Measured, ImageError> {
    let failed = |source| ImageError::Decompress {
        what: "a layer".to_owned(),
        source,
    };
    let mut reader = blob.reader();
    let format = format_of(&mut reader).map_err(failed)?;
    let mut hashing = Hashing {
        inner: reader,
        hash: Sha256::new(),
        report,
    };
    let (compression, diff_id) = match format {
        Format::Plain => (Compression::None, None),
        Format::Gzip => {
            let buffered = BufReader::with_capacity(CHUNK, &mut hashing);
            let decoder = flate2::bufread::MultiGzDecoder::new(buffered);
            (Compression::Gzip, Some(hash_all(decoder)?))
        }
        Format::Zstd => {
            let decoder = zstd::Decoder::new(&mut hashing).map_err(failed)?;
            (Compression::Zstd, Some(hash_all(decoder)?))
        }
        Format::Other(format) => {
            return Err(ImageError::Compression {
                what: "a layer".to_owned(),
                format,
            });
        }
    };
    // All of a plain layer; of a compressed one what its decoder left unread.
    let mut buffer = vec![0; CHUNK];
    while hashing.read(&mut buffer).map_err(failed)? > 0 {}
    let digest = Digest::from(hashing.hash);
    Ok(Measured {
        digest,
        diff_id: diff_id.unwrap_or(digest),
        compression,
    })
}

fn hash_all(mut decoder: impl Read) -> Result<Digest, ImageError> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut total = 0;
    loop {
        let count = decoder
            .read(&mut buffer)
            .map_err(|source| ImageError::Decompress {
                what: "a layer".to_owned(),
                source,
            })?;
        if count == 0 {
            return Ok(hash.into());
        }
        total += count as u64;
        if total > MAX_LAYER_BYTES {
            let what = "an unpacked layer".to_owned();
            return Err(ImageError::TooLarge {
                what,
                limit: MAX_LAYER_BYTES,
            });
        }
        hash.update(&buffer[..count]);
    }
}

struct Hashing<'a> {
    inner: BlobReader,
    hash: Sha256,
    report: &'a dyn Fn(u64),
}

impl Read for Hashing<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.hash.update(&into[..count]);
        (self.report)(count as u64);
        Ok(count)
    }
}
