//! Writes what the builder collected: one layer, config, manifest, indexes.
//!
//! Owner: [`super::ImageBuilder::build`]. Invariant: deterministic, and the target file appears
//! whole or not at all (written beside it, then renamed).

use std::{
    fs::File,
    io::{self, BufWriter, Read, Seek, SeekFrom, Write},
    path::Path,
};

use serde_json::json;
use sha2::{Digest as _, Sha256};
use teu_protocol::ids::Digest;

use super::{Content, Entry, ImageBuilder, ImageError};

pub(super) fn write(builder: &ImageBuilder, path: &Path) -> Result<Digest, ImageError> {
    let mut layer = tempfile::tempfile().map_err(ImageError::Spool)?;
    let diff_id = write_layer(builder, &layer)?;
    layer.seek(SeekFrom::Start(0)).map_err(ImageError::Spool)?;

    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let failed = |source| ImageError::Write {
        path: path.to_owned(),
        source,
    };
    let target =
        tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new("."))).map_err(failed)?;
    let id = write_archive(builder, target.as_file(), &layer, diff_id).map_err(failed)?;
    target.persist(path).map_err(|error| failed(error.error))?;
    Ok(id)
}

fn write_layer(builder: &ImageBuilder, file: &File) -> Result<Digest, ImageError> {
    let hashing = Hashing {
        inner: BufWriter::new(file),
        hash: Sha256::new(),
    };
    let mut tar = tar::Builder::new(hashing);
    let mut made = std::collections::BTreeSet::new();
    for (path, entry) in &builder.entries {
        for (index, _) in path.match_indices('/') {
            let parent = &path[..index];
            if !builder.entries.contains_key(parent) && made.insert(parent) {
                append_empty(
                    &mut tar,
                    tar::EntryType::Directory,
                    &format!("{parent}/"),
                    0o755,
                    "",
                )
                .map_err(ImageError::Spool)?;
            }
        }
        append(&mut tar, path, entry)?;
    }
    let mut hashing = tar.into_inner().map_err(ImageError::Spool)?;
    hashing.flush().map_err(ImageError::Spool)?;
    Ok(hashing.hash.into())
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    path: &str,
    entry: &Entry,
) -> Result<(), ImageError> {
    match entry {
        Entry::Directory { mode } => append_empty(
            tar,
            tar::EntryType::Directory,
            &format!("{path}/"),
            *mode,
            "",
        )
        .map_err(ImageError::Spool),
        Entry::Symlink { target } => {
            append_empty(tar, tar::EntryType::Symlink, path, 0o777, target)
                .map_err(ImageError::Spool)
        }
        Entry::File {
            mode,
            content: Content::Bytes(bytes),
        } => {
            append_file(tar, path, *mode, bytes.len() as u64, &bytes[..]).map_err(ImageError::Spool)
        }
        Entry::File {
            mode,
            content: Content::Path(source),
        } => {
            let open = |error| ImageError::Open {
                path: source.clone(),
                source: error,
            };
            let file = File::open(source).map_err(open)?;
            let size = file.metadata().map_err(open)?.len();
            append_file(tar, path, *mode, size, file.take(size)).map_err(ImageError::Spool)
        }
    }
}

fn append_file<W: Write>(
    tar: &mut tar::Builder<W>,
    path: &str,
    mode: u32,
    size: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = header(tar::EntryType::Regular, mode, size);
    tar.append_data(&mut header, path, content)
}

fn append_empty<W: Write>(
    tar: &mut tar::Builder<W>,
    kind: tar::EntryType,
    path: &str,
    mode: u32,
    target: &str,
) -> io::Result<()> {
    let mut header = header(kind, mode, 0);
    if kind == tar::EntryType::Symlink {
        tar.append_link(&mut header, path, target)
    } else {
        tar.append_data(&mut header, path, io::empty())
    }
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn write_archive(
    builder: &ImageBuilder,
    file: &File,
    mut layer: &File,
    diff_id: Digest,
) -> io::Result<Digest> {
    let layer_size = layer.metadata()?.len();
    let config = builder.config_json(&diff_id);
    let id = Digest::of(&config);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": id.to_string(),
            "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": diff_id.to_string(),
            "size": layer_size,
        }],
    })
    .to_string();
    let manifest_digest = Digest::of(manifest.as_bytes());
    let mut descriptor = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": manifest_digest.to_string(),
        "size": manifest.len(),
    });
    if let Some(name) = &builder.name {
        descriptor["annotations"] = json!({ "io.containerd.image.name": name.full() });
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [descriptor],
    });
    let docker = json!([{
        "Config": blob_path(&id),
        "RepoTags": builder.name.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "Layers": [blob_path(&diff_id)],
    }]);

    let mut tar = tar::Builder::new(BufWriter::new(file));
    append_file(
        &mut tar,
        &blob_path(&diff_id),
        0o644,
        layer_size,
        &mut layer,
    )?;
    for (path, content) in [
        (blob_path(&id), config),
        (blob_path(&manifest_digest), manifest.into_bytes()),
        ("index.json".to_owned(), index.to_string().into_bytes()),
        ("manifest.json".to_owned(), docker.to_string().into_bytes()),
        (
            "oci-layout".to_owned(),
            br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
        ),
    ] {
        append_file(&mut tar, &path, 0o644, content.len() as u64, &content[..])?;
    }
    tar.into_inner()?.flush()?;
    Ok(id)
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
