//! What an image says about itself: the parsed view of its config JSON.
//!
//! Owner: the client reads it to refuse a wrong image early, the node to compose the first process;
//! the raw bytes (whose digest is the image's id) are what travels. Invariant: whatever Docker,
//! Podman, BuildKit or Kaniko have written is read, nulls and missing fields included, and what is
//! returned is within [`bounds`].
//! Next: [`mod@compose`] for Docker's rules on top of it, [`user`] for `USER`, [`signal`] for
//! `STOPSIGNAL`. Source: OCI image specification 1.1, "Image Configuration".

pub mod bounds;
pub mod compose;
mod environment;
pub mod signal;
pub mod user;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::IgnoredAny};

use crate::ids::Digest;

pub use compose::{ComposeError, Overrides, ProcessTemplate, compose};

/// The largest config: real ones are below 64 KiB even with long histories; it travels in one
/// message.
pub const MAX_CONFIG_BYTES: usize = 1024 * 1024;

/// The most layers of one image: overlayfs takes 500 lower directories, Docker itself stops at 127.
pub const MAX_LAYERS: usize = 256;

/// The parts of an image's config that decide how it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// GOARCH, such as `amd64`.
    pub architecture: String,
    /// GOOS, such as `linux`.
    pub os: String,
    /// CPU variant, such as `v7`; empty if none.
    pub variant: String,
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    /// `None`: not set. `Some([])` is how some builders write the same.
    pub entrypoint: Option<Vec<String>>,
    /// Default arguments (or the whole command, without an entrypoint).
    pub cmd: Option<Vec<String>>,
    /// Empty: `/`.
    pub working_dir: String,
    /// `user`, `uid`, `user:group`, `uid:gid`; empty: root.
    pub user: String,
    /// Such as `80/tcp`, sorted.
    pub exposed_ports: Vec<String>,
    /// Paths that the image declares as volumes, sorted.
    pub volumes: Vec<String>,
    /// A name or number; empty: SIGTERM.
    pub stop_signal: String,
    /// Key to value.
    pub labels: BTreeMap<String, String>,
    /// Digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
}

/// Why bytes are not an image config.
#[derive(Debug, thiserror::Error)]
pub enum ImageConfigError {
    /// More than [`MAX_CONFIG_BYTES`].
    #[error("the image's config has {bytes} bytes; at most {MAX_CONFIG_BYTES} are accepted")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not JSON of the expected shape.
    #[error("the image's config cannot be read; rebuild or export the image again")]
    Malformed(#[source] serde_json::Error),
    /// More than [`MAX_LAYERS`].
    #[error("the image has {layers} layers; at most {MAX_LAYERS} can be stacked. Squash it")]
    TooManyLayers {
        /// How many it has.
        layers: usize,
    },
    /// More than [`bounds`] allow.
    #[error("the image has {has} {what}; at most {most} are accepted. Rebuild it with fewer")]
    TooMany {
        /// Which list.
        what: &'static str,
        /// Its length.
        has: usize,
        /// Its bound.
        most: usize,
    },
    /// Longer than [`bounds`] allow.
    #[error("{what} of the image has {bytes} bytes; at most {most} are accepted")]
    TooLong {
        /// Which text.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// Its bound.
        most: usize,
    },
}

impl ImageConfig {
    /// Reads a config as any builder wrote it.
    pub fn parse(json: &[u8]) -> Result<Self, ImageConfigError> {
        if json.len() > MAX_CONFIG_BYTES {
            return Err(ImageConfigError::TooLarge { bytes: json.len() });
        }
        // Serde would take an array for a struct.
        if !json.trim_ascii_start().starts_with(b"{") {
            let not_an_object = serde::de::Error::custom("a JSON object is expected");
            return Err(ImageConfigError::Malformed(not_an_object));
        }
        let raw: RawImage = serde_json::from_slice(json).map_err(ImageConfigError::Malformed)?;
        let layers = raw.rootfs.diff_ids.len();
        if layers > MAX_LAYERS {
            return Err(ImageConfigError::TooManyLayers { layers });
        }
        let config = Self {
            architecture: raw.architecture,
            os: raw.os,
            variant: raw.variant,
            env: raw.config.env,
            entrypoint: raw.config.entrypoint.map(Words::into_vec),
            cmd: raw.config.cmd.map(Words::into_vec),
            working_dir: raw.config.working_dir,
            user: raw.config.user,
            exposed_ports: raw.config.exposed_ports.into_keys().collect(),
            volumes: raw.config.volumes.into_keys().collect(),
            stop_signal: raw.config.stop_signal,
            labels: raw
                .config
                .labels
                .into_iter()
                .map(|(key, value)| (key, value.unwrap_or_default()))
                .collect(),
            diff_ids: raw.rootfs.diff_ids,
        };
        bounds::check(&config)?;
        Ok(config)
    }

    /// TCP ports that the image exposes, sorted.
    #[must_use]
    pub fn exposed_tcp_ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self
            .exposed_ports
            .iter()
            .filter_map(|text| match text.split_once('/') {
                Some((port, "tcp")) => port.parse().ok(),
                Some(_) => None,
                None => text.parse().ok(),
            })
            .collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// `linux/amd64`, `linux/arm/v7`; `linux` for an image that does not say its architecture, which
    /// runs wherever it can.
    #[must_use]
    pub fn platform(&self) -> String {
        let Self {
            os,
            architecture,
            variant,
            ..
        } = self;
        let os = if os.is_empty() { "linux" } else { os };
        if architecture.is_empty() {
            os.to_owned()
        } else if variant.is_empty() {
            format!("{os}/{architecture}")
        } else {
            format!("{os}/{architecture}/{variant}")
        }
    }
}

#[derive(Deserialize)]
struct RawImage {
    #[serde(default, deserialize_with = "null_as_default")]
    architecture: String,
    #[serde(default, deserialize_with = "null_as_default")]
    os: String,
    #[serde(default, deserialize_with = "null_as_default")]
    variant: String,
    #[serde(default, deserialize_with = "null_as_default")]
    config: RawConfig,
    #[serde(default, deserialize_with = "null_as_default")]
    rootfs: RawRootfs,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct RawConfig {
    #[serde(default, deserialize_with = "null_as_default")]
    env: Vec<String>,
    #[serde(default)]
    entrypoint: Option<Words>,
    #[serde(default)]
    cmd: Option<Words>,
    #[serde(default, deserialize_with = "null_as_default")]
    working_dir: String,
    #[serde(default, deserialize_with = "null_as_default")]
    user: String,
    #[serde(default, deserialize_with = "null_as_default")]
    exposed_ports: BTreeMap<String, IgnoredAny>,
    #[serde(default, deserialize_with = "null_as_default")]
    volumes: BTreeMap<String, IgnoredAny>,
    #[serde(default, deserialize_with = "null_as_default")]
    stop_signal: String,
    #[serde(default, deserialize_with = "null_as_default")]
    labels: BTreeMap<String, Option<String>>,
}

#[derive(Deserialize, Default)]
struct RawRootfs {
    #[serde(default, deserialize_with = "null_as_default")]
    diff_ids: Vec<Digest>,
}

/// Docker's `strslice`: early images have a plain string where an array is meant.
#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    Many(Vec<String>),
    One(String),
}

impl Words {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::Many(words) => words,
            Self::One(word) => vec![word],
        }
    }
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_as_docker_20_writes_it_is_read() {
        let digest = Digest::of(b"layer");
        let json = format!(
            r#"{{"architecture":"amd64","os":"linux","container":"c7d3","created":"2026-11-21",
            "config":{{"Hostname":"","Env":["PATH=/bin","FOO=bar"],"Cmd":["sh","-c"],
            "ExposedPorts":{{"80/tcp":{{}},"53/udp":{{}},"443":{{}}}},"Entrypoint":null,
            "WorkingDir":"/srv","User":"www","Volumes":null,"OnBuild":null,"Labels":{{"a":"b"}},
            "StopSignal":"SIGQUIT"}},
            "history":[{{}}],"rootfs":{{"type":"layers","diff_ids":["{digest}"]}}}}"#
        );
        let config = ImageConfig::parse(json.as_bytes()).unwrap();
        assert_eq!(config.env, ["PATH=/bin", "FOO=bar"]);
        assert_eq!(
            config.cmd.as_deref(),
            Some(&["sh".to_owned(), "-c".to_owned()][..])
        );
        assert_eq!(config.entrypoint, None);
        assert_eq!(config.exposed_tcp_ports(), [80, 443]);
        assert_eq!(config.diff_ids, [digest]);
        assert_eq!(config.platform(), "linux/amd64");
        assert_eq!((&*config.working_dir, &*config.user), ("/srv", "www"));
    }

    #[test]
    fn nulls_strings_and_missing_fields_are_tolerated() {
        for json in [
            "{}",
            r#"{"config":null,"rootfs":null,"os":null}"#,
            r#"{"config":{"Env":null,"Cmd":null,"Entrypoint":null,"Labels":null,
                "ExposedPorts":null,"WorkingDir":null,"User":null,"StopSignal":null}}"#,
        ] {
            assert_eq!(
                ImageConfig::parse(json.as_bytes()).unwrap(),
                ImageConfig::default()
            );
        }
        assert_eq!(ImageConfig::default().platform(), "linux");
        let label = ImageConfig::parse(br#"{"config":{"Labels":{"a":null}}}"#).unwrap();
        assert_eq!(label.labels["a"], "");
        let words = ImageConfig::parse(br#"{"config":{"Cmd":"sh"}}"#).unwrap();
        assert_eq!(words.cmd, Some(vec!["sh".to_owned()]));
    }

    #[test]
    fn what_is_not_a_config_is_refused() {
        let malformed = |json: &str| {
            matches!(
                ImageConfig::parse(json.as_bytes()),
                Err(ImageConfigError::Malformed(_))
            )
        };
        assert!(malformed(""));
        assert!(malformed("[]"));
        assert!(malformed(r#"{"rootfs":{"diff_ids":["md5:00"]}}"#));
        let deep = "[".repeat(100_000);
        assert!(malformed(&format!(r#"{{"x":{deep}"#)));
        let long = vec![b' '; MAX_CONFIG_BYTES + 1];
        assert!(matches!(
            ImageConfig::parse(&long),
            Err(ImageConfigError::TooLarge { .. })
        ));
        let digests = vec![format!("\"{}\"", Digest::of(b"")); MAX_LAYERS + 1].join(",");
        let many = format!(r#"{{"rootfs":{{"diff_ids":[{digests}]}}}}"#);
        assert!(matches!(
            ImageConfig::parse(many.as_bytes()),
            Err(ImageConfigError::TooManyLayers { .. })
        ));
    }
}
