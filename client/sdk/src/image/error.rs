//! What can be wrong with an image, told as: what happened, why, what to do.
//!
//! Owner: this module. Invariant: text that comes out of an archive is shortened before it gets
//! into a message.

use std::{io, path::PathBuf};

use teu_protocol::{ids::Digest, image_config::ImageConfigError, tar_stream::TarError};

use super::{name::BadImageName, platform::Platform};

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file or directory.
    #[error("cannot open the image `{path}`; check the path and that you may read it")]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something else.
    #[error(
        "this is not an image: it holds neither manifest.json (`docker save`) nor index.json \
         (OCI layout). Export one with `docker save NAME -o FILE`"
    )]
    NotAnImage,
    /// The tar around everything.
    #[error("the image archive cannot be read; export it again")]
    Archive(#[source] TarError),
    /// gzip or zstd around everything, or around a layer.
    #[error("{what} cannot be decompressed; export the image again")]
    Decompress {
        /// Which part.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// bzip2, xz and the like.
    #[error("{what} is compressed with {format}, which is not supported; use gzip or zstd")]
    Compression {
        /// Which part.
        what: String,
        /// With what.
        format: &'static str,
    },
    /// Reading went wrong midway.
    #[error("reading {what} failed")]
    Read {
        /// Which part.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The temporary file.
    #[error("the image cannot be kept in a temporary file; is there room in TMPDIR or /tmp?")]
    Spool(#[source] io::Error),
    /// `..`, or a link that leads out.
    #[error("refused: the archive's member `{path}` points outside the archive")]
    UnsafePath {
        /// Which.
        path: String,
    },
    /// A file that another one names.
    #[error("the image is incomplete: `{path}` is missing; export it again")]
    Missing {
        /// Which.
        path: String,
    },
    /// JSON of the wrong shape.
    #[error("`{path}` in the image cannot be understood; export it again")]
    Json {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// One of the bounds.
    #[error("{what} is larger than {limit} bytes, the most that is accepted")]
    TooLarge {
        /// Which part.
        what: String,
        /// The bound.
        limit: u64,
    },
    /// Nested or listed without end.
    #[error("the image's index lists more than {limit} entries, or nests too deeply")]
    IndexTooLarge {
        /// The bound.
        limit: usize,
    },
    /// The config.
    #[error(transparent)]
    Config(#[from] ImageConfigError),
    /// Several, none chosen.
    #[error("there are several images: {}. Say which one", .names.join(", "))]
    Ambiguous {
        /// What there is.
        names: Vec<String>,
    },
    /// The chosen one is not there.
    #[error("there is no image `{wanted}` here; there is: {}", list(.names))]
    UnknownName {
        /// What was asked for.
        wanted: String,
        /// What there is.
        names: Vec<String>,
    },
    /// Not for this processor.
    #[error(
        "the image has no version for {wanted}; it has: {}. Pull or build it for {wanted}",
        list(.available)
    )]
    WrongPlatform {
        /// What was asked for.
        wanted: Platform,
        /// What there is.
        available: Vec<String>,
    },
    /// Manifest and config disagree.
    #[error(
        "the image contradicts itself: its manifest lists {listed} layers, its config {promised}; \
         export it again"
    )]
    LayerCount {
        /// In the manifest.
        listed: usize,
        /// In the config.
        promised: usize,
    },
    /// Bytes that are not what their digest says.
    #[error("{what} is corrupt: it should be {expected}, but is {actual}; export the image again")]
    Corrupt {
        /// Which part.
        what: String,
        /// Promised.
        expected: Digest,
        /// Computed.
        actual: Digest,
    },
    /// A blob of another length than the manifest says.
    #[error("{what} is corrupt: it should have {expected} bytes, but has {actual}; export again")]
    WrongSize {
        /// Which part.
        what: String,
        /// Promised.
        expected: u64,
        /// Found.
        actual: u64,
    },
    /// Encrypted, foreign, artifacts.
    #[error("the image has a part of the unsupported type `{media_type}`")]
    MediaType {
        /// Which.
        media_type: String,
    },
    /// Not a name.
    #[error(transparent)]
    Name(#[from] BadImageName),
    /// Neither Docker nor Podman.
    #[error(
        "no Docker or Podman engine answers here (tried {}). Start one, set DOCKER_HOST, or import \
         an archive with `teu image import FILE`",
        .tried.join(", ")
    )]
    NoEngine {
        /// Sockets.
        tried: Vec<String>,
    },
    /// DOCKER_HOST=tcp://, ssh://
    #[error("DOCKER_HOST is `{host}`, but only unix:// is supported; use `docker save` instead")]
    RemoteEngine {
        /// Its value.
        host: String,
    },
    /// It answers with an error.
    #[cfg(feature = "engine")]
    #[error("the engine at {socket} failed to {action}")]
    Engine {
        /// Where.
        socket: String,
        /// At what.
        action: &'static str,
        /// What it said.
        #[source]
        source: Box<bollard::errors::Error>,
    },
    /// It lacks the image.
    #[error("the local engine at {socket} has no image `{name}`; try `docker pull {name}`")]
    NotInEngine {
        /// Where.
        socket: String,
        /// Which.
        name: String,
    },
    /// It has none at all.
    #[error("the local engine at {socket} has no images yet; build or pull one")]
    EngineEmpty {
        /// Where.
        socket: String,
    },
    /// The builder was given something it cannot put in an image.
    #[error("cannot build the image: {why}")]
    Build {
        /// Why.
        why: String,
    },
    /// The builder's file.
    #[error("cannot write the image to `{path}`")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A thread of ours ended badly.
    #[error("a worker thread ended unexpectedly while reading the image")]
    Worker,
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "nothing with a name".to_owned()
    } else {
        names.join(", ")
    }
}

/// Text from an archive, fit for a message: no control characters, at most 120.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .take(120)
        .collect()
}
