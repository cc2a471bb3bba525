//! Whiteouts and opaque directories as the kernel's overlayfs sees them.
//!
//! Needs root; says so when skipped.
#![allow(clippy::unwrap_used)]

mod layer_lab;

use std::{fs, path::PathBuf};

use layer_lab::{is_root, open_store, pack, tar};
use rustix::mount::{MountFlags, UnmountFlags};
use teu_protocol::message::Compression;

/// An overlay mount that goes when dropped.
struct Overlay(tempfile::TempDir);

impl Overlay {
    fn mount(lower: &[PathBuf]) -> rustix::io::Result<Self> {
        let dir = tempfile::tempdir().unwrap();
        let lower: Vec<String> = lower
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let options = std::ffi::CString::new(format!("lowerdir={}", lower.join(":"))).unwrap();
        rustix::mount::mount(
            "overlay",
            dir.path(),
            "overlay",
            MountFlags::RDONLY,
            options.as_c_str(),
        )?;
        Ok(Self(dir))
    }

    fn names(&self, path: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.0.path().join(path))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn overlayfs_understands_whiteouts_and_opaque_directories() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let lower = tar(&[
        ("keep", "lower"),
        ("gone", "lower"),
        ("dir/", ""),
        ("dir/a", "lower"),
        ("dir/b", "lower"),
        ("opaque/", ""),
        ("opaque/old", "lower"),
        ("again/", ""),
        ("again/old", "lower"),
    ]);
    let upper = tar(&[
        (".wh.gone", ""),
        ("dir/.wh.a", ""),
        ("dir/c", "upper"),
        ("opaque/", ""),
        ("opaque/.wh..wh..opq", ""),
        ("opaque/new", "upper"),
        (".wh.again", ""),
        ("again/", ""),
        ("again/new", "upper"),
    ]);
    let mut digests = Vec::new();
    for tar in [lower, upper] {
        let (layer, blob) = pack(&tar, Compression::Gzip);
        store.ingest(&layer, &blob[..]).await.unwrap();
        digests.push(layer.digest);
    }
    let overlay = match Overlay::mount(&store.lower_dirs(&digests).unwrap()) {
        Ok(overlay) => overlay,
        Err(error) => {
            eprintln!("skipped: overlayfs cannot be mounted here: {error}");
            return;
        }
    };
    assert_eq!(overlay.names(""), ["again", "dir", "keep", "opaque"]);
    assert_eq!(overlay.names("dir"), ["b", "c"]);
    assert_eq!(overlay.names("opaque"), ["new"]);
    assert_eq!(overlay.names("again"), ["new"]);
}
