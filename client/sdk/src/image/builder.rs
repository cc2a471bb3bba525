//! A small image from files: for the quickstart's busybox, and for tests.
//!
//! Owner: the builder until [`ImageBuilder::build`]. Invariant: same input, same bytes (times are
//! zero, owners root), so the same files are the same image everywhere. The archive is an OCI
//! layout and a docker-archive in one, as Docker itself has written since version 25.

mod archive;
mod busybox;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::json;
use teu_protocol::ids::Digest;

use super::{
    Platform,
    error::{ImageError, shown},
    name::ImageName,
};

/// Collects files and settings; see [`ImageBuilder::build`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ImageBuilder {
    name: Option<ImageName>,
    platform: Platform,
    entries: BTreeMap<String, Entry>,
    settings: serde_json::Map<String, serde_json::Value>,
    env: Vec<String>,
}

#[derive(Debug, Clone)]
enum Entry {
    File { mode: u32, content: Content },
    Directory { mode: u32 },
    Symlink { target: String },
}

#[derive(Debug, Clone)]
enum Content {
    Bytes(Vec<u8>),
    Path(PathBuf),
}

impl Default for ImageBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl ImageBuilder {
    /// An empty image for this platform.
    pub fn new() -> Self {
        Self {
            name: None,
            platform: Platform::this(),
            entries: BTreeMap::new(),
            settings: serde_json::Map::new(),
            env: Vec::new(),
        }
    }

    /// Everything that a static busybox can do, with a root user, `/tmp` and a shell as the command.
    pub fn busybox(program: &Path) -> Result<Self, ImageError> {
        busybox::image(program)
    }

    /// A name for the image.
    pub fn name(mut self, name: &str) -> Result<Self, ImageError> {
        self.name = Some(name.parse()?);
        Ok(self)
    }

    /// Another platform than this machine's.
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self
    }

    /// A file with that content. Missing parents are made (mode 755).
    pub fn file(self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        self.entry(
            path,
            Entry::File {
                mode,
                content: Content::Bytes(content.into()),
            },
        )
    }

    /// A file with the content of a file of this machine, read when built.
    pub fn file_from(self, path: &str, mode: u32, source: &Path) -> Self {
        self.entry(
            path,
            Entry::File {
                mode,
                content: Content::Path(source.to_owned()),
            },
        )
    }

    /// A directory.
    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(path, Entry::Directory { mode })
    }

    /// A symbolic link.
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(
            path,
            Entry::Symlink {
                target: target.to_owned(),
            },
        )
    }

    /// `CMD`.
    pub fn cmd<S: Into<String>>(self, words: impl IntoIterator<Item = S>) -> Self {
        self.words("Cmd", words)
    }

    /// `ENTRYPOINT`.
    pub fn entrypoint<S: Into<String>>(self, words: impl IntoIterator<Item = S>) -> Self {
        self.words("Entrypoint", words)
    }

    /// `ENV`.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push(format!("{name}={value}"));
        self
    }

    /// Any other field of the OCI config, such as `User`, `WorkingDir`, `StopSignal`,
    /// `ExposedPorts`, `Labels`.
    pub fn config(mut self, field: &str, value: serde_json::Value) -> Self {
        self.settings.insert(field.to_owned(), value);
        self
    }

    /// Writes the archive; returns the image's id.
    pub fn build(&self, path: &Path) -> Result<Digest, ImageError> {
        if let Some(bad) = self.entries.keys().find(|path| !is_plain(path)) {
            let why = format!("`{}` is not a path inside the image", shown(bad));
            return Err(ImageError::Build { why });
        }
        archive::write(self, path)
    }

    fn entry(mut self, path: &str, entry: Entry) -> Self {
        self.entries
            .insert(path.trim_matches('/').to_owned(), entry);
        self
    }

    fn words<S: Into<String>>(mut self, field: &str, words: impl IntoIterator<Item = S>) -> Self {
        let words: Vec<String> = words.into_iter().map(Into::into).collect();
        self.settings.insert(field.to_owned(), json!(words));
        self
    }

    fn config_json(&self, diff_id: &Digest) -> Vec<u8> {
        let mut settings = self.settings.clone();
        if !self.env.is_empty() {
            settings.insert("Env".to_owned(), json!(self.env));
        }
        let mut config = json!({
            "architecture": self.platform.architecture,
            "os": self.platform.os,
            "config": settings,
            "rootfs": { "type": "layers", "diff_ids": [diff_id.to_string()] },
            "history": [{ "created_by": "teu" }],
        });
        if !self.platform.variant.is_empty() {
            config["variant"] = json!(self.platform.variant);
        }
        config.to_string().into_bytes()
    }
}

fn is_plain(path: &str) -> bool {
    !path.is_empty()
        && path.len() < 4096
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && !path.contains('\0')
}
