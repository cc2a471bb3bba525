//! Why a layer is not on the node.
//!
//! Owner: [`super::LayerStore`]. Invariant: whose fault it is can be told from the variant:
//! the layer's ([`LayerError::is_layers_fault`]), the way it came, or this node's.

use std::{io, path::PathBuf, process::ExitStatus};

use teu_protocol::ids::Digest;

use super::unpack::UnpackError;

/// Why a layer cannot be stored, used or removed.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Bytes that are not what the digest says.
    #[error("layer {expected} arrived corrupt: its digest is {actual}; send it again")]
    Corrupt {
        /// Asked for.
        expected: Digest,
        /// Computed here.
        actual: Digest,
    },
    /// Too short or too long.
    #[error("layer {digest} has {actual} bytes or more, but {expected} were announced")]
    WrongSize {
        /// Which.
        digest: Digest,
        /// Announced.
        expected: u64,
        /// Received, at least.
        actual: u64,
    },
    /// The blob is right, the image's config is not about it.
    #[error("layer {digest} unpacks to {actual}, but the image promises {expected}")]
    WrongDiffId {
        /// Which.
        digest: Digest,
        /// By the image's config.
        expected: Digest,
        /// Computed here.
        actual: Digest,
    },
    /// Its archive is hostile, broken or too large.
    #[error("layer {digest} is refused")]
    Refused {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// It stopped coming.
    #[error("layer {digest} could not be received")]
    Source {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The child could not be started or spoken to.
    #[error("the unpacker of layer {digest} could not be run")]
    Unpacker {
        /// Which.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The child died: out of memory, or a crash in a decompressor.
    #[error("the unpacker of layer {digest} ended without a result ({status})")]
    UnpackerDied {
        /// Which.
        digest: Digest,
        /// How.
        status: ExitStatus,
    },
    /// The store's own files.
    #[error("cannot {action} `{path}` in the layer store")]
    Store {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not stored here.
    #[error("layer {digest} is not on this node")]
    Missing {
        /// Which.
        digest: Digest,
    },
    /// Held by a container.
    #[error("layer {digest} is in use")]
    InUse {
        /// Which.
        digest: Digest,
    },
    /// A blocking task of ours ended badly.
    #[error("a worker ended unexpectedly while handling layer {digest}")]
    Worker {
        /// Which.
        digest: Digest,
    },
}

impl LayerError {
    /// Whether the same blob will be refused again: then there is no use in fetching it anew.
    #[must_use]
    pub const fn is_layers_fault(&self) -> bool {
        match self {
            Self::WrongDiffId { .. } => true,
            Self::Refused { source, .. } => source.is_layers_fault(),
            Self::Corrupt { .. }
            | Self::WrongSize { .. }
            | Self::Source { .. }
            | Self::Unpacker { .. }
            | Self::UnpackerDied { .. }
            | Self::Store { .. }
            | Self::Missing { .. }
            | Self::InUse { .. }
            | Self::Worker { .. } => false,
        }
    }
}
