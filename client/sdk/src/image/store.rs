//! Where an image's parts lie: a directory, or an archive that has been indexed once.
//!
//! Owner: the opener. Invariant: a path that comes out of an image is looked up by exact text after
//! cleaning; it is never joined to a host path unless it is relative and without `..`, and links
//! inside an archive are followed only inside it, a bounded number of times.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use teu_protocol::tar_stream::{Kind, TarLimits, TarStream};

use super::{
    error::{ImageError, shown},
    layer::Blob,
};

/// index.json, manifests: the OCI specification allows 4 MiB.
pub(super) const MAX_METADATA_BYTES: u64 = 4 * 1024 * 1024;

/// Members of an image archive (not of a layer): a few for each layer, some thousands in a layout
/// that holds many images.
const MAX_MEMBERS: u64 = 65_536;

/// Links to links within an archive; `docker save` makes one step.
const MAX_LINK_STEPS: usize = 8;

#[derive(Debug)]
pub(super) enum Store {
    Directory(PathBuf),
    Archive {
        file: Arc<File>,
        entries: HashMap<String, Entry>,
    },
}

#[derive(Debug)]
pub(super) enum Entry {
    Data { offset: u64, size: u64 },
    Link(String),
}

impl Store {
    /// Indexes an uncompressed tar.
    pub(super) fn index(file: File) -> Result<Self, ImageError> {
        let file = Arc::new(file);
        let read = |source| ImageError::Read {
            what: "the image archive".to_owned(),
            source,
        };
        let length = file.metadata().map_err(read)?.len();
        let limits = TarLimits {
            members: MAX_MEMBERS,
            ..TarLimits::default()
        };
        let mut reader = BufReader::new(&*file);
        reader.seek(SeekFrom::Start(0)).map_err(read)?;
        let mut tar = TarStream::new(reader, limits);
        let mut entries = HashMap::new();
        while let Some(member) = tar.next_member_seeking().map_err(ImageError::Archive)? {
            // No part of an image has a name that is not UTF-8.
            let Ok(path) = std::str::from_utf8(&member.path) else {
                continue;
            };
            let link = String::from_utf8_lossy(&member.link);
            let unsafe_path = || ImageError::UnsafePath { path: shown(path) };
            let path = clean("", path).ok_or_else(unsafe_path)?;
            let entry = match member.kind {
                Kind::File if member.data_offset + member.size > length => {
                    return Err(ImageError::Missing { path: shown(&path) });
                }
                Kind::File => Entry::Data {
                    offset: member.data_offset,
                    size: member.size,
                },
                Kind::HardLink => Entry::Link(clean("", &link).ok_or_else(unsafe_path)?),
                Kind::Symlink => {
                    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
                    Entry::Link(clean(parent, &link).ok_or_else(unsafe_path)?)
                }
                _ => continue,
            };
            entries.insert(path, entry);
        }
        Ok(Self::Archive { file, entries })
    }

    /// The bytes at `path`; `None` if there are none.
    pub(super) fn find(&self, path: &str) -> Result<Option<Blob>, ImageError> {
        let unsafe_path = || ImageError::UnsafePath { path: shown(path) };
        let path = clean("", path).ok_or_else(unsafe_path)?;
        match self {
            Self::Directory(root) => open_in(root, &path),
            Self::Archive { file, entries } => {
                let mut path = &path;
                for _ in 0..=MAX_LINK_STEPS {
                    match entries.get(path) {
                        Some(Entry::Data { offset, size }) => {
                            return Ok(Some(Blob::new(Arc::clone(file), *offset, *size)));
                        }
                        Some(Entry::Link(target)) => path = target,
                        None => return Ok(None),
                    }
                }
                Err(unsafe_path())
            }
        }
    }

    /// As [`Self::find`], but it must be there.
    pub(super) fn blob(&self, path: &str) -> Result<Blob, ImageError> {
        self.find(path)?
            .ok_or_else(|| ImageError::Missing { path: shown(path) })
    }

    /// A small file's content.
    pub(super) fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(blob) = self.find(path)? else {
            return Ok(None);
        };
        if blob.size() > limit {
            return Err(ImageError::TooLarge {
                what: shown(path),
                limit,
            });
        }
        let mut content = Vec::new();
        blob.reader()
            .read_to_end(&mut content)
            .map_err(|source| ImageError::Read {
                what: shown(path),
                source,
            })?;
        Ok(Some(content))
    }

    /// A small JSON file.
    pub(super) fn json<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<Option<T>, ImageError> {
        let Some(content) = self.read(path, MAX_METADATA_BYTES)? else {
            return Ok(None);
        };
        parse_json(path, &content).map(Some)
    }
}

pub(super) fn parse_json<T: serde::de::DeserializeOwned>(
    path: &str,
    content: &[u8],
) -> Result<T, ImageError> {
    serde_json::from_slice(content).map_err(|source| ImageError::Json {
        path: shown(path),
        source,
    })
}

/// Symlinks are followed: build tools make layouts of them, and digests tell what came out.
fn open_in(root: &Path, path: &str) -> Result<Option<Blob>, ImageError> {
    let full = root.join(path);
    let failed = |source| ImageError::Open {
        path: full.clone(),
        source,
    };
    let metadata = match std::fs::metadata(&full) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if !metadata.is_file() {
        // Opening a pipe would wait for ever.
        return Ok(None);
    }
    let file = File::open(&full).map_err(failed)?;
    Ok(Some(Blob::new(Arc::new(file), 0, metadata.len())))
}

/// `path` taken from `parent`, cleaned; `None` if it leads out or is empty.
fn clean(parent: &str, path: &str) -> Option<String> {
    let from_root = path.starts_with('/');
    let mut parts: Vec<&str> = if from_root {
        Vec::new()
    } else {
        parent.split('/').collect()
    };
    for part in path.split('/') {
        match part {
            ".." => drop(parts.pop().filter(|part| !part.is_empty())?),
            part => parts.push(part),
        }
    }
    parts.retain(|part| !part.is_empty() && *part != ".");
    // The root directory itself may be a member.
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        for (parent, path, expected) in [
            ("", "a/b", Some("a/b")),
            ("", "./a//b/", Some("a/b")),
            ("", "/a", Some("a")),
            ("x", "../y/layer.tar", Some("y/layer.tar")),
            ("x/z", "/y", Some("y")),
            ("", "./", Some("")),
            ("", "../a", None),
            ("x", "../../a", None),
            ("", "a/../../b", None),
        ] {
            assert_eq!(clean(parent, path).as_deref(), expected, "{parent} {path}");
        }
    }
}
