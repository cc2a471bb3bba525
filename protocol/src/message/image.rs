//! Images and layers, as catalogue entries. Blobs travel on streams.

use serde::{Deserialize, Serialize};

use crate::ids::Digest;

/// How a layer's blob is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Compression {
    /// A plain tar.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRef {
    /// SHA-256 of the blob as it travels: the layer's name in caches.
    pub digest: Digest,
    /// SHA-256 of the uncompressed tar: what the image's config promises.
    pub diff_id: Digest,
    /// Length of the blob in bytes.
    pub size: u64,
    /// How it is packed.
    pub compression: Compression,
}

/// All that is needed to run an image, but for its blobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageManifest {
    /// SHA-256 of `config`: the image's id.
    pub id: Digest,
    /// The image's configuration as the image has it (OCI image-spec, "config.md"), byte for byte.
    #[serde(with = "serde_bytes")]
    pub config: Vec<u8>,
    /// Bottom first.
    pub layers: Vec<LayerRef>,
}

/// An image in the account's catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// SHA-256 of its configuration.
    pub id: Digest,
    /// Names such as `nginx:latest`; a name points at one image.
    pub names: Vec<String>,
    /// Sum of its layers' blobs in bytes.
    pub size: u64,
    /// Number of layers.
    pub layers: u32,
    /// `os/architecture`.
    pub platform: String,
    /// When the location got it: milliseconds since 1970.
    pub added_ms: u64,
}
