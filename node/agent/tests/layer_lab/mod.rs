//! Layers made for the tests of the layer store.
#![allow(clippy::unwrap_used, dead_code)]

use std::{
    fs,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use teu_node::layers::{LayerStore, UnpackLimits};
use teu_protocol::{
    ids::Digest,
    message::{Compression, LayerRef},
};

pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: the layer store's child needs root for its namespaces");
    }
    root
}

pub(crate) fn open_store(dir: &Path) -> LayerStore {
    let program = Path::new(env!("CARGO_BIN_EXE_teu-node"));
    LayerStore::open(dir, program, UnpackLimits::default()).unwrap()
}

/// Path to content; a trailing slash makes a directory.
pub(crate) fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        let directory = path.ends_with('/');
        header.set_entry_type(if directory {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        header.set_mode(if directory { 0o755 } else { 0o4755 });
        header.set_uid(7);
        header.set_gid(8);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content.as_bytes())
            .unwrap();
    }
    tar.into_inner().unwrap()
}

pub(crate) fn pack(tar: &[u8], compression: Compression) -> (LayerRef, Vec<u8>) {
    let blob = match compression {
        Compression::None => tar.to_vec(),
        Compression::Zstd => zstd::encode_all(tar, 3).unwrap(),
        Compression::Gzip => {
            let level = flate2::Compression::default();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(tar).unwrap();
            encoder.finish().unwrap()
        }
    };
    let layer = LayerRef {
        digest: Digest::of(&blob),
        diff_id: Digest::of(tar),
        size: blob.len() as u64,
        compression,
    };
    (layer, blob)
}

/// Names in `layers/`; waits for the background removal of temporary directories.
pub(crate) fn settled(dir: &Path) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let names: Vec<String> = fs::read_dir(dir.join("layers"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let temporary = names.iter().any(|name| name.starts_with("tmp."));
        if !temporary || Instant::now() > deadline {
            return names;
        }
        std::thread::yield_now();
    }
}
