//! Images as the client has them: opened, chosen and checked, ready to be shipped layer by layer.
//!
//! Owner: the client; knows nothing of the location. Sources: a `docker save` archive, an OCI
//! layout (directory or tar), both also as gzip or zstd, and the local Docker or Podman engine.
//! Invariant: an [`ImageSource`] has been verified: every layer's digest and diff id were computed
//! from its bytes, each blob read at most once, and agree with what manifest and config promise.
//! Everything read into memory is bounded by the constants in `store`.
//!
//! Next: [`open`] to start from a path, [`engine`] for Docker, [`builder`] to make one from files.

pub mod builder;
mod docker_archive;
#[cfg(feature = "engine")]
pub mod engine;
mod error;
mod layer;
mod name;
mod oci_layout;
mod open;
mod platform;
mod store;
mod verify;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use teu_protocol::{
    ids::Digest,
    image_config::ImageConfig,
    message::{ImageManifest, LayerRef},
};

pub use builder::ImageBuilder;
#[cfg(feature = "engine")]
pub use engine::{Engine, EngineImage};
pub use error::ImageError;
pub use layer::{BlobReader, SourceLayer};
pub use name::{BadImageName, ImageName};
pub use open::{open, open_reader};
pub use platform::Platform;

/// Which image of a source that may hold several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageChoice {
    /// By name; `None`: the only one.
    pub name: Option<String>,
    /// By platform; default: Linux on this machine's processor.
    pub platform: Platform,
}

/// How far opening has come. Bytes, all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageProgress {
    /// The engine writes the image out; how much that will be it does not say, `expected` is its
    /// own idea of the image's size.
    Exporting {
        /// So far.
        done: u64,
        /// About.
        expected: u64,
    },
    /// A compressed archive is unpacked to a temporary file.
    Unpacking {
        /// So far, uncompressed.
        done: u64,
    },
    /// Layers are being hashed.
    Verifying {
        /// So far, as shipped.
        done: u64,
        /// Of all layers.
        total: u64,
    },
}

/// Who wants to know; called from several threads.
pub type ProgressFn = Arc<dyn Fn(ImageProgress) + Send + Sync>;

/// For those who do not.
#[must_use]
pub fn no_progress() -> ProgressFn {
    Arc::new(|_| {})
}

/// A verified image whose layers can be read.
#[derive(Debug, Clone)]
pub struct ImageSource {
    /// Names it has in its source, in short form: `nginx:latest`. May be empty.
    pub names: Vec<String>,
    /// The raw config JSON.
    pub config: Bytes,
    /// SHA-256 of `config`.
    pub id: Digest,
    /// Lowest first; the same layer may occur twice.
    pub layers: Vec<SourceLayer>,
    /// `config`, read.
    pub parsed: ImageConfig,
}

impl ImageSource {
    /// What the location is told before any layer travels.
    #[must_use]
    pub fn manifest(&self) -> ImageManifest {
        ImageManifest {
            id: self.id,
            config: self.config.to_vec(),
            layers: self.layers.iter().map(SourceLayer::reference).collect(),
        }
    }

    /// The layer of that digest.
    #[must_use]
    pub fn layer(&self, digest: &Digest) -> Option<&SourceLayer> {
        self.layers.iter().find(|layer| layer.digest == *digest)
    }

    /// Bytes of all layers as shipped, each counted once.
    #[must_use]
    pub fn size(&self) -> u64 {
        let mut layers: Vec<LayerRef> = self.layers.iter().map(SourceLayer::reference).collect();
        layers.sort_unstable_by_key(|layer| layer.digest);
        layers.dedup_by_key(|layer| layer.digest);
        layers.iter().map(|layer| layer.size).sum()
    }
}
