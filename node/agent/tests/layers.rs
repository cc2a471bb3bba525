//! The layer store with its real, confined child: what goes in, what is refused, what survives.
//!
//! Needs root (namespaces, owners, overlay mounts); says so when skipped.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use rustix::mount::{MountFlags, UnmountFlags};
use teu_node::layers::{LayerError, LayerStore, UnpackError, UnpackLimits};
use teu_protocol::{
    ids::Digest,
    message::{Compression, LayerRef},
};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: the layer store's child needs root for its namespaces");
    }
    root
}

fn open_store(dir: &Path) -> LayerStore {
    let program = Path::new(env!("CARGO_BIN_EXE_teu-node"));
    LayerStore::open(dir, program, UnpackLimits::default()).unwrap()
}

/// Path to content; a trailing slash makes a directory.
fn tar(files: &[(&str, &str)]) -> Vec<u8> {
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

fn pack(tar: &[u8], compression: Compression) -> (LayerRef, Vec<u8>) {
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
fn settled(dir: &Path) -> Vec<String> {
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

/// A blob that must not be asked for.
struct Untouchable;

impl AsyncRead for Untouchable {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        panic!("the layer is there already");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_of_every_compression_are_stored_once_and_found_again() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let big = "x".repeat(3 * 1024 * 1024);
    let tar = tar(&[("bin/", ""), ("bin/tool", &big), ("etc/conf", "a=b")]);
    let mut layers = Vec::new();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let (layer, blob) = pack(&tar, compression);
        assert!(!store.contains(&layer.digest));
        assert_eq!(store.missing(&[layer.clone(), layer.clone()]).len(), 1);
        store.ingest(&layer, &blob[..]).await.unwrap();
        assert!(store.contains(&layer.digest));
        store.ingest(&layer, Untouchable).await.unwrap();
        layers.push(layer);
    }
    assert_eq!(settled(dir.path()).len(), 3);
    let digests: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
    let repeated = [digests.clone(), digests.clone()].concat();
    let directories = store.lower_dirs(&repeated).unwrap();
    assert_eq!(directories.len(), 3, "each once");
    assert!(
        directories[0].ends_with(format!("{}/fs", digests[2].hex())),
        "uppermost first"
    );
    for directory in &directories {
        assert_eq!(fs::read_to_string(directory.join("bin/tool")).unwrap(), big);
        let mode = fs::metadata(directory.join("bin/tool"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o4755);
    }
    let mode = fs::metadata(dir.path().join("layers"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700, "setuid programs are out of reach");

    let usage = store.usage();
    assert_eq!(usage.layers, 3);
    assert!(usage.bytes >= 3 * 3 * 1024 * 1024);
    drop(store);
    assert_eq!(open_store(dir.path()).usage(), usage);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_as_promised_leaves_nothing() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let noise: String = (0..200_000_u32)
        .map(|n| char::from(b'a' + (n.wrapping_mul(n) % 23) as u8))
        .collect();
    let (good, blob) = pack(&tar(&[("a", &noise)]), Compression::Gzip);

    let mut flipped = blob.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let error = store.ingest(&good, &flipped[..]).await.unwrap_err();
    assert!(matches!(error, LayerError::Corrupt { .. }), "{error:?}");
    assert!(!error.is_layers_fault());

    let error = store
        .ingest(&good, &blob[..blob.len() - 1])
        .await
        .unwrap_err();
    assert!(matches!(error, LayerError::WrongSize { .. }), "{error:?}");
    let longer = [&blob[..], b"x"].concat();
    let error = store.ingest(&good, &longer[..]).await.unwrap_err();
    assert!(matches!(error, LayerError::WrongSize { .. }), "{error:?}");

    let other = LayerRef {
        diff_id: Digest::of(b"other"),
        ..good.clone()
    };
    let error = store.ingest(&other, &blob[..]).await.unwrap_err();
    assert!(matches!(error, LayerError::WrongDiffId { .. }), "{error:?}");
    assert!(error.is_layers_fault());

    let (not_tar, bytes) = pack(&[b'x'; 5000], Compression::Zstd);
    let error = store.ingest(&not_tar, &bytes[..]).await.unwrap_err();
    assert!(
        matches!(
            &error,
            LayerError::Refused {
                source: UnpackError::Archive { .. },
                ..
            }
        ),
        "{error:?}"
    );
    let lying = LayerRef {
        compression: Compression::Gzip,
        ..not_tar
    };
    let error = store.ingest(&lying, &bytes[..]).await.unwrap_err();
    assert!(
        matches!(
            &error,
            LayerError::Refused {
                source: UnpackError::Decompress { .. },
                ..
            }
        ),
        "{error:?}"
    );

    // A refusal in the first block of a long blob: the rest is still read, the answer is the same.
    let mut hostile = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..4].copy_from_slice(b"../x");
    header.set_size(0);
    header.set_cksum();
    hostile.append(&header, &b""[..]).unwrap();
    let mut hostile = hostile.into_inner().unwrap();
    hostile.resize(20 * 1024 * 1024, 0);
    let (hostile, bytes) = pack(&hostile, Compression::None);
    let error = store.ingest(&hostile, &bytes[..]).await.unwrap_err();
    assert!(
        matches!(
            &error,
            LayerError::Refused {
                source: UnpackError::Path { .. },
                ..
            }
        ),
        "{error:?}"
    );

    let broken = || async { Err::<&[u8], _>(std::io::Error::other("the master is gone")) };
    let error = store.ensure(&good, broken).await.unwrap_err();
    assert!(matches!(error, LayerError::Source { .. }));

    assert!(settled(dir.path()).is_empty());
    assert_eq!(store.usage().layers, 0);
    store.ingest(&good, &blob[..]).await.unwrap();
    let error = store.ingest(&other, Untouchable).await.unwrap_err();
    assert!(
        matches!(error, LayerError::WrongDiffId { .. }),
        "also of a stored layer"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_is_removed_at_opening() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let (layer, blob) = pack(&tar(&[("a", "1")]), Compression::None);
    store.ingest(&layer, &blob[..]).await.unwrap();
    drop(store);
    let layers = dir.path().join("layers");
    fs::create_dir_all(layers.join("tmp.0123.4567/fs/deep/er")).unwrap();
    fs::write(layers.join("tmp.0123.4567/fs/deep/file"), "half").unwrap();
    // A layer's directory without a record, with a broken one, with another's.
    for (n, record) in [None, Some("{"), Some("copy")].into_iter().enumerate() {
        let path = layers.join(format!("{n}").repeat(64));
        fs::create_dir_all(path.join("fs")).unwrap();
        match record {
            None => {}
            Some("copy") => {
                let good = layers.join(layer.digest.hex()).join("record.json");
                assert!(fs::copy(good, path.join("record.json")).unwrap() > 0);
            }
            Some(text) => fs::write(path.join("record.json"), text).unwrap(),
        }
    }
    let store = open_store(dir.path());
    assert_eq!(store.usage().layers, 1);
    assert!(store.contains(&layer.digest));
    assert_eq!(settled(dir.path()), [layer.digest.hex()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_want_a_layer_one_fetches() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let (layer, blob) = pack(&tar(&[("a", "1")]), Compression::Zstd);
    let fetched = AtomicUsize::new(0);
    let wanted = (0..8).map(|_| {
        store.ensure(&layer, || async {
            // The first one fails: the next in line takes over.
            if fetched.fetch_add(1, Ordering::SeqCst) == 0 {
                return Err(std::io::Error::other("lost"));
            }
            Ok(&blob[..])
        })
    });
    let results = futures::future::join_all(wanted).await;
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1);
    assert_eq!(fetched.load(Ordering::SeqCst), 2);
    assert!(store.contains(&layer.digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn pinned_layers_stay_and_others_go() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let (layer, blob) = pack(&tar(&[("a", "1")]), Compression::None);
    assert!(matches!(
        store.pin(&[layer.digest]),
        Err(LayerError::Missing { .. })
    ));
    store.ingest(&layer, &blob[..]).await.unwrap();
    let pins = (
        store.pin(&[layer.digest]).unwrap(),
        store.pin(&[layer.digest]).unwrap(),
    );
    assert!(matches!(
        store.remove(&layer.digest).await,
        Err(LayerError::InUse { .. })
    ));
    drop(pins.0);
    assert!(matches!(
        store.remove(&layer.digest).await,
        Err(LayerError::InUse { .. })
    ));
    assert!(store.list()[0].1, "pinned");
    drop(pins.1);
    store.remove(&layer.digest).await.unwrap();
    store.remove(&layer.digest).await.unwrap();
    assert_eq!(store.usage().layers, 0);
    assert!(settled(dir.path()).is_empty());
    store.ingest(&layer, &blob[..]).await.unwrap();
}

/// Pids of this process's children that run the unpacker for `dir`.
fn unpackers(dir: &Path) -> Vec<PathBuf> {
    let marker = dir.display().to_string();
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let line = fs::read(path.join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            line.contains("\0unpack\0") && line.contains(&marker)
        })
        .collect()
}

fn status(process: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(process.join("status")).unwrap_or_default();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect()
}

async fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !ready() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_child_is_confined_and_dies_with_whoever_wanted_the_layer() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let (layer, blob) = pack(&tar(&[("a", &"x".repeat(500_000))]), Compression::None);
    let (mut sender, receiver) = tokio::io::duplex(1024 * 1024);
    let (task_store, wanted) = (store.clone(), layer.clone());
    let task = tokio::spawn(async move { task_store.ingest(&wanted, receiver).await });
    sender.write_all(&blob[..100_000]).await.unwrap();

    let mut found = None;
    until("the child filters its system calls", || {
        found = unpackers(dir.path()).pop();
        found
            .as_ref()
            .is_some_and(|child| status(child).get("Seccomp").is_some_and(|s| s == "2"))
    })
    .await;
    let child = found.unwrap();
    let status = status(&child);
    assert_eq!(status["NoNewPrivs"], "1");
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID (bits 0, 1, 3, 4) and SETFCAP (31): no more.
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(status[set], "000000008000001b", "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    for namespace in ["mnt", "net", "ipc", "uts", "cgroup"] {
        let of = |process: &Path| fs::read_link(process.join("ns").join(namespace)).unwrap();
        assert_ne!(of(&child), of(Path::new("/proc/self")), "{namespace}");
    }
    let seen: Vec<_> = fs::read_dir(child.join("root")).unwrap().collect();
    assert!(seen.len() <= 1, "nothing but the layer's own files");
    let mounts = fs::read_to_string(child.join("mountinfo")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(mounts.contains("nosuid,nodev,noexec"), "{mounts}");
    let open = fs::read_dir(child.join("fd")).unwrap().count();
    assert!(open <= 6, "{open} descriptors");

    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    until("the child is gone", || unpackers(dir.path()).is_empty()).await;
    assert!(settled(dir.path()).is_empty());
    store.ingest(&layer, &blob[..]).await.unwrap();
}

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
