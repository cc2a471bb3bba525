//! OCI image layouts: `index.json` and `blobs/sha256/…`, one or many images, one or many platforms.
//!
//! Owner: [`super::open`]. Invariant: every JSON blob is checked against the digest and size that
//! led to it; nesting and number of entries are bounded. Source: OCI image specification 1.1,
//! "Image Layout", "Image Index", "Image Manifest".

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use teu_protocol::{
    ids::Digest,
    image_config::{ImageConfig, MAX_CONFIG_BYTES, MAX_LAYERS},
};

use super::{
    ImageChoice, Platform,
    docker_archive::{check_digest, names_by_id, platform_of, same_name, short_name},
    error::{ImageError, shown},
    store::{MAX_METADATA_BYTES, Store, parse_json},
    verify::{Draft, DraftLayer},
};

/// Entries of all indexes together.
const MAX_ENTRIES: usize = 10_000;

/// Indexes within indexes; tools write one or two.
const MAX_DEPTH: usize = 4;

#[derive(Debug, Deserialize)]
pub(super) struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Clone, Deserialize)]
struct Descriptor {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// An index or a manifest: media types are often left out.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Node {
    Manifest(Manifest),
    Index { manifests: Vec<Descriptor> },
}

/// One image for one platform.
struct Leaf {
    names: Vec<String>,
    platform: Option<Platform>,
    manifest: Manifest,
}

/// The top index; `None` if this is no layout.
pub(super) fn index(store: &Store) -> Result<Option<Index>, ImageError> {
    store.json("index.json")
}

/// The image that was asked for.
pub(super) fn choose(
    store: &Store,
    index: Index,
    choice: &ImageChoice,
) -> Result<Draft, ImageError> {
    let mut tops = named_tops(index)?;
    if let Some(wanted) = &choice.name {
        let names = tops.iter().flat_map(|(_, names)| names.clone()).collect();
        tops.retain(|(_, names)| names.iter().any(|name| same_name(wanted, name)));
        if tops.is_empty() {
            return Err(ImageError::UnknownName {
                wanted: shown(wanted),
                names,
            });
        }
    }
    let mut leaves = Vec::new();
    for (top, names) in &tops {
        collect(store, top, names, 0, &mut leaves)?;
    }
    let docker_names = names_by_id(store);
    for leaf in &mut leaves {
        leaf.complete(store, &docker_names)?;
    }
    let leaf = best(leaves, choice)?;
    draft(store, leaf)
}

/// Each top descriptor once, with all names it is given.
fn named_tops(index: Index) -> Result<Vec<(Descriptor, Vec<String>)>, ImageError> {
    if index.manifests.len() > MAX_ENTRIES {
        return Err(ImageError::IndexTooLarge { limit: MAX_ENTRIES });
    }
    let mut tops: Vec<(Descriptor, Vec<String>)> = Vec::new();
    for descriptor in index
        .manifests
        .into_iter()
        .filter(|entry| !entry.is_attestation())
    {
        let names = descriptor.names();
        match tops
            .iter_mut()
            .find(|(known, _)| known.digest == descriptor.digest)
        {
            Some((_, known)) => known.extend(names),
            None => tops.push((descriptor, names)),
        }
    }
    Ok(tops)
}

fn collect(
    store: &Store,
    descriptor: &Descriptor,
    names: &[String],
    depth: usize,
    leaves: &mut Vec<Leaf>,
) -> Result<(), ImageError> {
    if depth > MAX_DEPTH || leaves.len() > MAX_ENTRIES {
        return Err(ImageError::IndexTooLarge { limit: MAX_ENTRIES });
    }
    // An index may list platforms whose blobs were left out: only what is there is on offer.
    let Some(content) = descriptor.read(store, MAX_METADATA_BYTES)? else {
        let platform = descriptor.platform.as_ref();
        if depth > 0 && platform.is_some() {
            return Ok(());
        }
        return Err(ImageError::Missing {
            path: descriptor.path()?,
        });
    };
    match parse_json(&descriptor.path()?, &content)? {
        Node::Manifest(manifest) => {
            let platform = descriptor.platform.clone();
            leaves.push(Leaf {
                names: names.to_vec(),
                platform,
                manifest,
            });
        }
        Node::Index { manifests } => {
            if manifests.len() > MAX_ENTRIES {
                return Err(ImageError::IndexTooLarge { limit: MAX_ENTRIES });
            }
            for inner in manifests.iter().filter(|entry| !entry.is_attestation()) {
                collect(store, inner, names, depth + 1, leaves)?;
            }
        }
    }
    Ok(())
}

impl Leaf {
    /// Fills in what the descriptors left out: platform from the config, names from Docker's own
    /// manifest.json beside the index.
    fn complete(
        &mut self,
        store: &Store,
        docker_names: &[(Digest, Vec<String>)],
    ) -> Result<(), ImageError> {
        if self.platform.is_none() {
            let config = read_config(store, &self.manifest.config)?;
            self.platform = Some(platform_of(&ImageConfig::parse(&config)?));
        }
        let id = self.manifest.config.checked_digest()?;
        for (_, names) in docker_names.iter().filter(|(known, _)| *known == id) {
            for name in names {
                if !self.names.contains(name) {
                    self.names.push(name.clone());
                }
            }
        }
        Ok(())
    }
}

fn best(mut leaves: Vec<Leaf>, choice: &ImageChoice) -> Result<Leaf, ImageError> {
    let identities: BTreeSet<&[String]> = leaves.iter().map(|leaf| &*leaf.names).collect();
    if identities.len() > 1 {
        let names = identities.into_iter().flatten().cloned().collect();
        return Err(ImageError::Ambiguous { names });
    }
    let suits = |leaf: &Leaf| {
        leaf.platform
            .as_ref()
            .and_then(|has| choice.platform.suits(has))
    };
    let chosen = leaves
        .iter()
        .enumerate()
        .filter_map(|(position, leaf)| Some((suits(leaf)?, std::cmp::Reverse(position))))
        .max();
    if let Some((_, std::cmp::Reverse(position))) = chosen {
        return Ok(leaves.swap_remove(position));
    }
    let available = leaves
        .iter()
        .filter_map(|leaf| leaf.platform.as_ref().map(Platform::to_string))
        .collect();
    Err(ImageError::WrongPlatform {
        wanted: choice.platform.clone(),
        available,
    })
}

fn draft(store: &Store, leaf: Leaf) -> Result<Draft, ImageError> {
    let config = read_config(store, &leaf.manifest.config)?;
    let parsed = ImageConfig::parse(&config)?;
    let (listed, promised) = (leaf.manifest.layers.len(), parsed.diff_ids.len());
    if listed != promised || listed > MAX_LAYERS {
        return Err(ImageError::LayerCount { listed, promised });
    }
    let layers = leaf
        .manifest
        .layers
        .iter()
        .map(|descriptor| {
            descriptor.check_is_layer()?;
            let blob = store.blob(&descriptor.path()?)?;
            descriptor.check_size(blob.size())?;
            Ok(DraftLayer {
                blob,
                expected: Some(descriptor.checked_digest()?),
            })
        })
        .collect::<Result<Vec<DraftLayer>, ImageError>>()?;
    Ok(Draft {
        names: leaf.names,
        config: config.into(),
        parsed,
        layers,
    })
}

fn read_config(store: &Store, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
    descriptor
        .read(store, MAX_CONFIG_BYTES as u64)?
        .ok_or(ImageError::Missing {
            path: descriptor.path()?,
        })
}

impl Descriptor {
    fn checked_digest(&self) -> Result<Digest, ImageError> {
        self.digest.parse().map_err(|_| ImageError::MediaType {
            media_type: shown(&self.digest),
        })
    }

    fn path(&self) -> Result<String, ImageError> {
        Ok(format!("blobs/sha256/{}", self.checked_digest()?.hex()))
    }

    fn read(&self, store: &Store, limit: u64) -> Result<Option<Vec<u8>>, ImageError> {
        let path = self.path()?;
        let Some(content) = store.read(&path, limit)? else {
            return Ok(None);
        };
        self.check_size(content.len() as u64)?;
        check_digest(&path, self.checked_digest()?, &content)?;
        Ok(Some(content))
    }

    fn check_size(&self, actual: u64) -> Result<(), ImageError> {
        if actual == self.size {
            Ok(())
        } else {
            Err(ImageError::WrongSize {
                what: self.path()?,
                expected: self.size,
                actual,
            })
        }
    }

    /// Whether it is compressed, and how, the bytes themselves say; encryption they do not.
    fn check_is_layer(&self) -> Result<(), ImageError> {
        let known = self.media_type.is_empty()
            || self
                .media_type
                .starts_with("application/vnd.oci.image.layer.")
            || self
                .media_type
                .starts_with("application/vnd.docker.image.rootfs.");
        if known && !self.media_type.contains("encrypted") {
            Ok(())
        } else {
            Err(ImageError::MediaType {
                media_type: shown(&self.media_type),
            })
        }
    }

    fn is_attestation(&self) -> bool {
        self.annotation("vnd.docker.reference.type").is_some()
            || self.platform.as_ref().is_some_and(Platform::is_unknown)
    }

    /// containerd's and Docker's full name; else the reference name if it is more than a tag.
    fn names(&self) -> Vec<String> {
        let full = self.annotation("io.containerd.image.name");
        let reference = self.annotation("org.opencontainers.image.ref.name");
        let reference = reference.filter(|text| text.contains(['/', ':']));
        full.or(reference).map(short_name).into_iter().collect()
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }
}
