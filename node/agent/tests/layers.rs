//! The layer store with its real, confined child: what goes in, what is refused, what survives.
//!
//! Needs root (namespaces, owners, overlay mounts); says so when skipped.
#![allow(clippy::unwrap_used, clippy::panic)]

mod layer_lab;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use layer_lab::{is_root, open_store, pack, settled, tar};
use teu_node::layers::{LayerError, UnpackError};
use teu_protocol::{
    ids::Digest,
    message::{Compression, LayerRef},
};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

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

#[tokio::test(flavor = "multi_thread")]
async fn discarded_layers_go_when_nothing_uses_them_and_stay_if_they_are_wanted_again() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let (used, used_blob) = pack(&tar(&[("a", "1")]), Compression::None);
    let (idle, idle_blob) = pack(&tar(&[("b", "2")]), Compression::None);
    for (layer, blob) in [(&used, &used_blob), (&idle, &idle_blob)] {
        store.ingest(layer, &blob[..]).await.unwrap();
    }
    let pins = store.pin(&[used.digest]).unwrap();
    store.discard(&[used.digest, idle.digest]);
    until("the idle layer is removed", || {
        !store.contains(&idle.digest)
    })
    .await;
    assert!(store.contains(&used.digest), "a container uses it");
    drop(pins);
    until("the other one too", || settled(dir.path()).is_empty()).await;
    // A container of an earlier agent, whose layers are not known, keeps all.
    store.ingest(&used, &used_blob[..]).await.unwrap();
    let found = store.pin_found(None);
    store.discard(&[used.digest]);
    assert!(matches!(
        store.remove(&used.digest).await,
        Err(LayerError::InUse { .. })
    ));
    drop(found);
    until("it goes with its container", || {
        settled(dir.path()).is_empty()
    })
    .await;
    // Wanted again between the order and the end of its last container.
    store.ingest(&used, &used_blob[..]).await.unwrap();
    let pins = store.pin(&[used.digest]).unwrap();
    store.discard(&[used.digest]);
    store.ingest(&used, &used_blob[..]).await.unwrap();
    drop(pins);
    store.make_room(0).await;
    assert!(store.contains(&used.digest));
    store.make_room(1).await;
    assert!(!store.contains(&used.digest), "room was wanted");
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
