//! Hostile and odd archives, extracted without the cage: the rules alone must hold.
//!
//! These need root (owners are set); they say so when skipped.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::Path,
};

use proptest::prelude::*;
use tar::EntryType;

use super::*;

/// A layer in the making.
struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    /// Paths go in as they are, unlike the `tar` crate's own checks would let them.
    fn add(mut self, kind: EntryType, path: &str, link: &str, data: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory {
            0o755
        } else {
            0o644
        });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000);
        header.set_size(data.len() as u64);
        let raw = header.as_mut_bytes();
        raw[..path.len()].copy_from_slice(path.as_bytes());
        raw[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn file(self, path: &str, data: &str) -> Self {
        self.add(EntryType::Regular, path, "", data.as_bytes())
    }

    fn dir(self, path: &str) -> Self {
        self.add(EntryType::Directory, path, "", b"")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.add(EntryType::Symlink, path, target, b"")
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.add(EntryType::Link, path, target, b"")
    }

    fn attributes(mut self, pairs: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(pairs.iter().copied()).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: extracting sets owners, which needs root");
    }
    root
}

fn limits() -> UnpackLimits {
    UnpackLimits {
        stream_bytes: 1024 * 1024,
        file_bytes: 64 * 1024,
        members: 200,
        path_bytes: 4_096,
        remembered_bytes: 8 * 1024,
    }
}

fn extract_into(dir: &Path, bytes: &[u8]) -> Result<Extracted, UnpackError> {
    let root = fs::File::open(dir).unwrap();
    unpack(root.into(), bytes, Compression::None, &limits())
}

/// A directory with a canary beside the root that is extracted into.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/canary"), "alive").unwrap();
        Self(dir)
    }

    fn root(&self) -> std::path::PathBuf {
        self.0.path().join("root")
    }

    fn assert_nothing_outside_changed(&self, name: &str) {
        let outside = self.0.path().join("outside");
        let all: Vec<_> = fs::read_dir(&outside).unwrap().collect();
        assert_eq!(all.len(), 1, "{name}");
        assert_eq!(
            fs::read_to_string(outside.join("canary")).unwrap(),
            "alive",
            "{name}"
        );
        let canary = fs::metadata(outside.join("canary")).unwrap();
        assert_eq!(canary.nlink(), 1, "{name}: no hard link leads to it");
        assert_eq!(fs::read_dir(self.0.path()).unwrap().count(), 2, "{name}");
    }
}

#[test]
fn hostile_archives_are_refused_and_touch_nothing() {
    if !is_root() {
        return;
    }
    type Verdict = fn(&UnpackError) -> bool;
    let path: Verdict = |error| matches!(error, UnpackError::Path { .. });
    let link: Verdict = |error| matches!(error, UnpackError::HardLink { .. });
    let contradiction: Verdict = |error| matches!(error, UnpackError::Contradiction { .. });
    let limit: Verdict = |error| matches!(error, UnpackError::Limit { .. });
    let archive: Verdict = |error| matches!(error, UnpackError::Archive { .. });
    let many = (0..201).fold(Layer::new(), |layer, n| layer.file(&format!("f{n}"), ""));
    let deep = (0..120).fold(Layer::new(), |layer, n| layer.dir(&format!("{n:0>60}")));
    let mut huge_path = Layer::new();
    let long = "d/".repeat(3_000) + "f";
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    huge_path
        .0
        .append_data(&mut header, &long, &b""[..])
        .unwrap();
    let table: Vec<(&str, Layer, Verdict)> = vec![
        ("parent", Layer::new().file("../outside/canary", "x"), path),
        (
            "parent inside",
            Layer::new().file("a/../../outside/canary", "x"),
            path,
        ),
        ("parent at the end", Layer::new().dir("a/.."), path),
        ("a parent's whiteout", Layer::new().file(".wh...", ""), path),
        (
            "a whiteout beyond",
            Layer::new().file("../.wh.outside", ""),
            path,
        ),
        (
            "a file in a whiteout",
            Layer::new().file(".wh.a/b", ""),
            path,
        ),
        (
            "link up",
            Layer::new().hard_link("a", "../outside/canary"),
            link,
        ),
        ("link to nothing", Layer::new().hard_link("a", "b"), link),
        (
            "link to a directory",
            Layer::new().dir("d").hard_link("a", "d"),
            link,
        ),
        (
            "link to itself",
            Layer::new().file("a", "x").hard_link("a", "./a"),
            link,
        ),
        (
            "link to a whiteout",
            Layer::new().file(".wh.b", "").hard_link("a", "b"),
            link,
        ),
        (
            "link through a link",
            Layer::new()
                .symlink("s", "../outside")
                .hard_link("a", "s/canary"),
            link,
        ),
        (
            "a file as directory",
            Layer::new().file("a", "x").file("a/b", "y"),
            contradiction,
        ),
        (
            "directory to file",
            Layer::new().dir("a").file("a/b", "").file("a", ""),
            contradiction,
        ),
        (
            "a link loop",
            Layer::new().symlink("a", "a").file("a/b", ""),
            contradiction,
        ),
        (
            "the root as file",
            Layer::new().file("./", ""),
            contradiction,
        ),
        ("too many members", many, limit_or_archive),
        (
            "too large a file",
            Layer::new().file("a", &"x".repeat(65 * 1024)),
            limit,
        ),
        ("too long a path", huge_path, limit_or_archive),
        ("too much to remember", deep, limit),
        (
            "no tar",
            Layer(tar::Builder::new(vec![b'x'; 2048])),
            archive,
        ),
    ];
    fn limit_or_archive(error: &UnpackError) -> bool {
        // The tar reader's own limits speak for themselves.
        matches!(error, UnpackError::Archive { why } if why.contains("limit"))
    }
    for (name, layer, verdict) in table {
        let place = Place::new();
        let error = extract_into(&place.root(), &layer.bytes()).expect_err(name);
        assert!(verdict(&error), "{name}: {error:?}");
        assert!(error.is_layers_fault(), "{name}");
        place.assert_nothing_outside_changed(name);
    }
}

#[test]
fn odd_archives_stay_inside() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let target = place.0.path().join("outside").display().to_string();
    let layer = Layer::new()
        // Links are resolved with the layer's root as root; there, the path is made of links.
        .symlink("up", "../../../../../..")
        .file("up/escaped", "in the root")
        .symlink("abs", "/dir")
        .dir("dir")
        .file("abs/file", "in /dir")
        .symlink("canary", &format!("{target}/canary"))
        .file("canary", "replaces the link, not its target")
        .file("/absolute", "in the root")
        .hard_link("second", "/absolute");
    extract_into(&place.root(), &layer.bytes()).unwrap();
    let read = |path: &str| fs::read_to_string(place.root().join(path)).unwrap();
    assert_eq!(read("escaped"), "in the root");
    assert_eq!(read("dir/file"), "in /dir");
    assert_eq!(read("second"), "in the root");
    assert!(
        fs::symlink_metadata(place.root().join("canary"))
            .unwrap()
            .is_file()
    );
    place.assert_nothing_outside_changed("odd");
}

#[test]
fn metadata_is_as_written() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o4751);
    header.set_uid(33);
    header.set_gid(44);
    header.set_mtime(1_234_567);
    header.set_size(2);
    let capability = [&[1, 0, 0, 2][..], &[0, 4, 0, 0], &[0; 12]].concat();
    let mut layer = Layer::new().dir("d").attributes(&[
        ("SCHILY.xattr.user.note", b"hello"),
        ("SCHILY.xattr.security.capability", &capability),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
    ]);
    layer
        .0
        .append_data(&mut header, "d/su", &b"ok"[..])
        .unwrap();
    let layer = layer
        .add(EntryType::Char, "d/null", "", b"")
        .add(EntryType::Block, "d/disk", "", b"")
        .add(EntryType::Fifo, "d/pipe", "", b"");
    let extracted = extract_into(&place.root(), &layer.bytes()).unwrap();
    assert_eq!((extracted.skipped, extracted.members), (2, 5));

    let dir = place.root().join("d");
    let file = fs::metadata(dir.join("su")).unwrap();
    assert_eq!((file.uid(), file.gid(), file.mtime()), (33, 44, 1_234_567));
    assert_eq!(file.permissions().mode() & 0o7777, 0o4751);
    assert_eq!(
        fs::metadata(&dir).unwrap().mtime(),
        1_000,
        "after its files were made"
    );
    assert!(
        fs::metadata(dir.join("pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    assert!(!dir.join("null").exists() && !dir.join("disk").exists());
    let attribute = |name: &str| {
        let mut value = [0; 64];
        let got = rustix::fs::getxattr(dir.join("su"), name, &mut value);
        got.map(|length| value[..length].to_vec()).ok()
    };
    assert_eq!(attribute("user.note").as_deref(), Some(&b"hello"[..]));
    assert_eq!(attribute("security.capability"), Some(capability));
    assert_eq!(attribute("trusted.overlay.opaque"), None);
}

#[test]
fn a_later_entry_replaces_and_directories_merge() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let layer = Layer::new()
        .dir("d")
        .file("d/a", "1")
        .dir("d")
        .file("d/a", "2")
        .symlink("d/b", "a")
        .file("d/b", "3")
        .dir("e")
        .symlink("e", "d")
        .file("e/c", "through the link");
    extract_into(&place.root(), &layer.bytes()).unwrap();
    let read = |path: &str| fs::read_to_string(place.root().join(path)).unwrap();
    assert_eq!(
        (&*read("d/a"), &*read("d/b"), &*read("d/c")),
        ("2", "3", "through the link")
    );
}

#[test]
fn whiteouts_yield_to_the_layers_own_entries() {
    if !is_root() {
        return;
    }
    let is_whiteout = |path: &Path| {
        let found = fs::symlink_metadata(path).unwrap();
        found.file_type().is_char_device() && found.rdev() == 0
    };
    let place = Place::new();
    let layer = Layer::new()
        .file("gone/.wh.file", "")
        .file("a/.wh..wh..opq", "")
        .file(".wh.before", "")
        .dir("before")
        .dir("after")
        .file(".wh.after", "")
        .file(".wh.plain", "")
        .file("plain", "new")
        .file(".wh.tree", "")
        .file("tree/leaf", "")
        .file(".wh..wh.aufs", "");
    let extracted = extract_into(&place.root(), &layer.bytes()).unwrap();
    let opaque: Vec<&str> = extracted
        .opaque
        .iter()
        .map(|path| std::str::from_utf8(path).unwrap())
        .collect();
    assert_eq!(opaque, ["a", "after", "before", "tree"]);
    assert!(is_whiteout(&place.root().join("gone/file")));
    assert_eq!(
        fs::read_to_string(place.root().join("plain")).unwrap(),
        "new"
    );
    assert!(place.root().join("tree/leaf").is_file());
    assert_eq!(extracted.skipped, 1);
}

#[test]
fn bombs_stop_at_the_limit() {
    if !is_root() {
        return;
    }
    let zeros = vec![0; 4 * 1024 * 1024];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut gzip, &zeros).unwrap();
    let packed = [
        (Compression::Gzip, gzip.finish().unwrap()),
        (Compression::Zstd, zstd::encode_all(&zeros[..], 3).unwrap()),
        (Compression::None, zeros),
    ];
    for (compression, blob) in packed {
        let place = Place::new();
        let root = fs::File::open(place.root()).unwrap();
        let error = unpack(root.into(), &blob[..], compression, &limits()).unwrap_err();
        assert!(
            matches!(error, UnpackError::Limit { .. }),
            "{compression:?} {error:?}"
        );
    }
    // Damage within a compressed stream is told as such.
    let layer = zstd::encode_all(&Layer::new().file("a", &"text ".repeat(900)).bytes()[..], 3);
    let layer = layer.unwrap();
    let place = Place::new();
    let root = fs::File::open(place.root()).unwrap();
    let cut = &layer[..layer.len() - 5];
    let error = unpack(root.into(), cut, Compression::Zstd, &limits()).unwrap_err();
    assert!(
        matches!(
            error,
            UnpackError::Decompress { .. } | UnpackError::Archive { .. }
        ),
        "{error:?}"
    );
}

fn step() -> impl Strategy<Value = (EntryType, String, String)> {
    let kind = prop::sample::select(vec![
        EntryType::Regular,
        EntryType::Directory,
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Fifo,
    ]);
    let part = prop::sample::select(vec!["a", "b", "c", "..", ".", "", ".wh.a", ".wh..wh..opq"]);
    let path = proptest::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"));
    let target = prop::sample::select(vec!["a", "../outside", "/b", "a/b", "../../..", "/"]);
    (kind, path, target.prop_map(str::to_owned))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_sequence_of_members_gets_out(steps in proptest::collection::vec(step(), 1..12)) {
        if !is_root() {
            return Ok(());
        }
        let place = Place::new();
        let layer = steps.iter().fold(Layer::new(), |layer, (kind, path, target)| {
            let data: &[u8] = if *kind == EntryType::Regular { b"data" } else { b"" };
            layer.add(*kind, path, target, data)
        });
        let _ = extract_into(&place.root(), &layer.bytes());
        place.assert_nothing_outside_changed("a random sequence");
    }
}
