//! The confined child: a tar stream on stdin, files in one directory, a report on stdout.
//!
//! Owner: a process of its own, `teu-node unpack <request>`, started for each layer by `ingest`.
//! [`main`] must run before any thread exists. Invariant: once [`confine`] has returned, the process
//! sees nothing but the target directory, has no network, and only the rights that extracting
//! takes; so a bug in a decompressor costs one layer. It trusts nothing in the stream.
//!
//! Next: [`extract`] for the rules, [`path`] for names and whiteouts.

mod confine;
mod extract;
mod meta;
mod path;
#[cfg(test)]
mod tests;

use std::{
    io::{self, Read, Write},
    path::PathBuf,
    process::ExitCode,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use teu_protocol::{ids::Digest, message::Compression, tar_stream::TarLimits};

/// What one layer may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnpackLimits {
    /// Bytes of the uncompressed stream. The largest published layers have some 20 GB.
    pub stream_bytes: u64,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Members; a large distribution has some 500,000 files.
    pub members: u64,
    /// Bytes of one path or link target (`PATH_MAX`).
    pub path_bytes: usize,
    /// Bytes of all directories' paths together, which are remembered until the end.
    pub remembered_bytes: usize,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self {
            stream_bytes: 64 * 1024 * 1024 * 1024,
            file_bytes: 32 * 1024 * 1024 * 1024,
            members: 2_000_000,
            path_bytes: 4_096,
            remembered_bytes: 64 * 1024 * 1024,
        }
    }
}

/// Of the disk that layers lie on: they never take the last of it (the node's reserve, and as much for what is
/// written meanwhile).
const SPARE_BYTES: u64 = 512 << 20;

impl UnpackLimits {
    /// The same for a layer that is unpacked in `dir`, which has only so much room.
    pub(super) fn within(&self, dir: &std::path::Path) -> Self {
        let room = super::room::room_at(dir).map(|free| free.saturating_sub(SPARE_BYTES));
        Self {
            stream_bytes: room.map_or(self.stream_bytes, |room| room.min(self.stream_bytes)),
            ..*self
        }
    }

    const fn tar(&self) -> TarLimits {
        TarLimits {
            members: self.members,
            path_bytes: self.path_bytes,
            extension_bytes: 1024 * 1024,
        }
    }
}

/// The child's only argument, as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct UnpackRequest {
    pub(super) target: PathBuf,
    pub(super) compression: Compression,
    pub(super) limits: UnpackLimits,
}

/// The child's only answer, as MessagePack.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    Done(Extracted),
    Refused(UnpackError),
}

/// What was extracted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Extracted {
    pub(super) diff_id: Digest,
    pub(super) members: u64,
    pub(super) bytes: u64,
    pub(super) skipped: u64,
    /// Paths of directories that hide what lies below them; the empty path is the root.
    pub(super) opaque: Vec<Vec<u8>>,
}

/// Why a layer was not extracted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum UnpackError {
    /// No tar, a damaged one, or one of its limits.
    #[error("{why}")]
    Archive {
        /// What the reader said.
        why: String,
    },
    /// gzip or zstd found damage.
    #[error("it cannot be decompressed: {why}")]
    Decompress {
        /// What the decompressor said.
        why: String,
    },
    /// A name that is not one inside the layer.
    #[error("its member `{path}` has a bad name: {why}")]
    Path {
        /// Which.
        path: String,
        /// Why.
        why: String,
    },
    /// A hard link that leads nowhere, or to what may not be linked.
    #[error("its hard link `{path}` to `{target}` is refused: {why}")]
    HardLink {
        /// Which.
        path: String,
        /// Where to.
        target: String,
        /// Why.
        why: String,
    },
    /// A file where there is a directory with content, or the other way round.
    #[error("it contradicts itself at `{path}`: a directory and something else have that name")]
    Contradiction {
        /// Where.
        path: String,
    },
    /// One of [`UnpackLimits`].
    #[error("it exceeds a limit: {what} (at most {limit})")]
    Limit {
        /// Which.
        what: String,
        /// How much is accepted.
        limit: u64,
    },
    /// No room.
    #[error("this node's disk is full; remove images, or make room for the layer store")]
    DiskFull,
    /// The file system said no.
    #[error("cannot {action} `{path}`: {}", io::Error::from_raw_os_error(*.errno))]
    Io {
        /// What was attempted.
        action: String,
        /// On what.
        path: String,
        /// Linux's reason.
        errno: i32,
    },
    /// The child could not lock itself in, so it did nothing.
    #[error("the unpacker cannot confine itself ({step}): {why}")]
    Confine {
        /// At which step.
        step: String,
        /// Why.
        why: String,
    },
}

impl UnpackError {
    /// Whether the same bytes are refused by any node at any time.
    #[must_use]
    pub const fn is_layers_fault(&self) -> bool {
        match self {
            Self::Archive { .. }
            | Self::Decompress { .. }
            | Self::Path { .. }
            | Self::HardLink { .. }
            | Self::Contradiction { .. }
            | Self::Limit { .. } => true,
            Self::DiskFull | Self::Io { .. } | Self::Confine { .. } => false,
        }
    }
}

/// Runs as `teu-node unpack <request>`. Must be called while the process has one thread.
#[must_use]
pub fn main(request: &str) -> ExitCode {
    let Ok(request) = serde_json::from_str::<UnpackRequest>(request) else {
        return ExitCode::from(2);
    };
    let report = match unpack_stdin(&request) {
        Ok(extracted) => Report::Done(extracted),
        Err(error) => Report::Refused(error),
    };
    // The parent may still be writing: closing the pipe tells it to stop.
    confine::close_stdin();
    let Ok(report) = rmp_serde::to_vec_named(&report) else {
        return ExitCode::from(3);
    };
    match io::stdout()
        .write_all(&report)
        .and_then(|()| io::stdout().flush())
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(4),
    }
}

fn unpack_stdin(request: &UnpackRequest) -> Result<Extracted, UnpackError> {
    let root = confine::confine(&request.target, &request.limits)?;
    unpack(
        root,
        io::stdin().lock(),
        request.compression,
        &request.limits,
    )
}

/// Decompresses, hashes and extracts a blob below `root`.
fn unpack(
    root: std::os::fd::OwnedFd,
    blob: impl Read,
    compression: Compression,
    limits: &UnpackLimits,
) -> Result<Extracted, UnpackError> {
    let blob = io::BufReader::with_capacity(128 * 1024, blob);
    match compression {
        Compression::None => unpack_plain(root, blob, limits),
        Compression::Gzip => unpack_plain(root, flate2::bufread::MultiGzDecoder::new(blob), limits),
        Compression::Zstd => {
            let decoder =
                zstd::Decoder::with_buffer(blob).map_err(|error| UnpackError::Decompress {
                    why: error.to_string(),
                })?;
            unpack_plain(root, decoder, limits)
        }
    }
}

fn unpack_plain(
    root: std::os::fd::OwnedFd,
    reader: impl Read,
    limits: &UnpackLimits,
) -> Result<Extracted, UnpackError> {
    let hashing = Hashing {
        inner: reader,
        hash: Sha256::new(),
        left: limits.stream_bytes,
        exceeded: false,
    };
    let (outcome, mut rest) = extract::extract(root, hashing, limits);
    if rest.exceeded {
        // Whatever it led to further up.
        return Err(stream_limit(limits));
    }
    let outcome = outcome?;
    // Zeros after the archive's end belong to the stream, hence to its digest.
    match io::copy(&mut rest, &mut io::sink()) {
        Ok(_) => Ok(Extracted {
            diff_id: rest.hash.into(),
            ..outcome
        }),
        Err(_) if rest.exceeded => Err(stream_limit(limits)),
        Err(error) => Err(UnpackError::Decompress {
            why: error.to_string(),
        }),
    }
}

fn stream_limit(limits: &UnpackLimits) -> UnpackError {
    let what = "size when uncompressed".to_owned();
    UnpackError::Limit {
        what,
        limit: limits.stream_bytes,
    }
}

/// Hashes what passes, and ends it at the limit.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
    left: u64,
    exceeded: bool,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.hash.update(&into[..count]);
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => {
                self.exceeded = true;
                return Err(io::ErrorKind::FileTooLarge.into());
            }
        }
        Ok(count)
    }
}
