//! What `docker save` and its relatives write: `manifest.json`, a config and layers as tars.
//!
//! Owner: [`super::open`]. Invariant: paths in the manifest are only looked up in the [`Store`];
//! a config named by its digest has that digest.

use serde::Deserialize;
use teu_protocol::{
    ids::Digest,
    image_config::{ImageConfig, MAX_CONFIG_BYTES},
};

use super::{
    ImageChoice, Platform,
    error::{ImageError, shown},
    name::ImageName,
    store::Store,
    verify::{Draft, DraftLayer},
};

/// Images in one archive.
const MAX_IMAGES: usize = 10_000;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ManifestEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl ManifestEntry {
    fn names(&self) -> Vec<String> {
        self.repo_tags
            .iter()
            .flatten()
            .map(|text| short_name(text))
            .collect()
    }
}

/// The images; `None` if this is no such archive.
pub(super) fn entries(store: &Store) -> Result<Option<Vec<ManifestEntry>>, ImageError> {
    let entries: Option<Vec<ManifestEntry>> = store.json("manifest.json")?;
    match entries {
        Some(entries) if entries.len() > MAX_IMAGES => {
            Err(ImageError::IndexTooLarge { limit: MAX_IMAGES })
        }
        entries => Ok(entries),
    }
}

/// Names of the images, by the digest in their config's path (for OCI layouts that Docker wrote).
pub(super) fn names_by_id(store: &Store) -> Vec<(Digest, Vec<String>)> {
    let entries = entries(store).ok().flatten().unwrap_or_default();
    entries
        .into_iter()
        .filter_map(|entry| Some((digest_in_path(&entry.config)?, entry.names())))
        .collect()
}

/// The image that was asked for.
pub(super) fn choose(
    store: &Store,
    entries: Vec<ManifestEntry>,
    choice: &ImageChoice,
) -> Result<Draft, ImageError> {
    let all_names: Vec<String> = entries.iter().flat_map(ManifestEntry::names).collect();
    let mut fitting = entries;
    if let Some(wanted) = &choice.name {
        fitting.retain(|entry| entry.names().iter().any(|name| same_name(wanted, name)));
        if fitting.is_empty() {
            return Err(ImageError::UnknownName {
                wanted: shown(wanted),
                names: all_names,
            });
        }
    }
    fitting.dedup_by(|a, b| a.config == b.config && a.layers == b.layers);
    let mut drafts = fitting
        .into_iter()
        .map(|entry| draft(store, entry))
        .collect::<Result<Vec<Draft>, ImageError>>()?;
    if drafts.is_empty() {
        return Err(ImageError::NotAnImage);
    }
    let available = drafts.iter().map(|draft| draft.parsed.platform()).collect();
    drafts.retain(|draft| choice.platform.suits(&platform_of(&draft.parsed)).is_some());
    match drafts.len() {
        0 => Err(ImageError::WrongPlatform {
            wanted: choice.platform.clone(),
            available,
        }),
        1 => Ok(drafts.remove(0)),
        _ => Err(ImageError::Ambiguous { names: all_names }),
    }
}

fn draft(store: &Store, entry: ManifestEntry) -> Result<Draft, ImageError> {
    let names = entry.names();
    let config = store
        .read(&entry.config, MAX_CONFIG_BYTES as u64)?
        .ok_or_else(|| ImageError::Missing {
            path: shown(&entry.config),
        })?;
    if let Some(expected) = digest_in_path(&entry.config) {
        check_digest("the image's config", expected, &config)?;
    }
    let parsed = ImageConfig::parse(&config)?;
    let paths = entry.layers.unwrap_or_default();
    if paths.len() != parsed.diff_ids.len() {
        let promised = parsed.diff_ids.len();
        return Err(ImageError::LayerCount {
            listed: paths.len(),
            promised,
        });
    }
    let layers = paths
        .iter()
        .map(|path| {
            // Only a blob's name is its own digest; the old layout's ids are something else.
            let expected = path
                .starts_with("blobs/")
                .then(|| digest_in_path(path))
                .flatten();
            Ok(DraftLayer {
                blob: store.blob(path)?,
                expected,
            })
        })
        .collect::<Result<Vec<DraftLayer>, ImageError>>()?;
    Ok(Draft {
        names,
        config: config.into(),
        parsed,
        layers,
    })
}

pub(super) fn check_digest(what: &str, expected: Digest, content: &[u8]) -> Result<(), ImageError> {
    let actual = Digest::of(content);
    if actual == expected {
        Ok(())
    } else {
        Err(ImageError::Corrupt {
            what: what.to_owned(),
            expected,
            actual,
        })
    }
}

/// As the config says; fields that it lacks are empty.
pub(super) fn platform_of(config: &ImageConfig) -> Platform {
    Platform {
        os: config.os.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
    }
}

/// `nginx:latest` for `docker.io/library/nginx`; what is no name stays as it is.
pub(super) fn short_name(text: &str) -> String {
    text.parse::<ImageName>()
        .map_or_else(|_| shown(text), |name| name.to_string())
}

pub(super) fn same_name(a: &str, b: &str) -> bool {
    match (a.parse::<ImageName>(), b.parse::<ImageName>()) {
        (Ok(a), Ok(b)) => a.matches(&b),
        _ => a == b,
    }
}

/// `<64 hex>.json`, `blobs/sha256/<64 hex>`.
fn digest_in_path(path: &str) -> Option<Digest> {
    let last = path.rsplit('/').next()?;
    let hex = last.strip_suffix(".json").unwrap_or(last);
    format!("sha256:{hex}").parse().ok()
}
