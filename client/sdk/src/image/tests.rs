//! Archives as tools write them and as attackers would: opened, or refused for the right reason.

mod made;

use std::{
    collections::BTreeMap,
    io::{Read, Seek, SeekFrom, Write},
};

use proptest::prelude::*;
use serde_json::{Value, json};
use teu_protocol::message::Compression;

use super::*;

/// An archive in the making: path to content.
#[derive(Default, Clone)]
struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    fn put(&mut self, path: &str, content: impl Into<Vec<u8>>) -> &mut Self {
        self.0.insert(path.to_owned(), content.into());
        self
    }

    fn blob(&mut self, content: impl Into<Vec<u8>>) -> Value {
        let content = content.into();
        let digest = Digest::of(&content);
        let size = content.len();
        self.put(&format!("blobs/sha256/{}", digest.hex()), content);
        json!({ "digest": digest.to_string(), "size": size })
    }

    fn json_blob(&mut self, media_type: &str, content: &Value) -> Value {
        let mut descriptor = self.blob(content.to_string());
        descriptor["mediaType"] = json!(media_type);
        descriptor
    }

    fn tar(&self) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in &self.0 {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, &content[..]).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn directory(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in &self.0 {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        dir
    }

    fn open(&self) -> Result<ImageSource, ImageError> {
        open_bytes(&self.tar(), &ImageChoice::default())
    }
}

fn open_bytes(bytes: &[u8], choice: &ImageChoice) -> Result<ImageSource, ImageError> {
    open_reader(bytes, choice, &no_progress())
}

fn layer(text: &str) -> Vec<u8> {
    let mut files = Files::default();
    files.put("file", text);
    files.tar()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn config(architecture: &str, layers: &[&[u8]]) -> Value {
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|layer| Digest::of(layer).to_string())
        .collect();
    json!({
        "architecture": architecture, "os": "linux", "config": { "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
}

fn this() -> String {
    Platform::this().architecture
}

/// As Docker before 25 writes it, two layers, the second one a link to the first's file.
fn old_docker_archive() -> Files {
    let (one, two) = (layer("one"), layer("two"));
    let config = config(&this(), &[&one, &two]).to_string();
    let config_path = format!("{}.json", Digest::of(config.as_bytes()).hex());
    let mut files = Files::default();
    let manifest = json!([{
        "Config": config_path, "RepoTags": ["demo:latest", "docker.io/library/demo:v1"],
        "Layers": ["aaa/layer.tar", "bbb/layer.tar"],
    }]);
    files
        .put("aaa/layer.tar", one)
        .put("bbb/layer.tar", two)
        .put(&config_path, config)
        .put("manifest.json", manifest.to_string());
    files
}

/// An OCI layout with one image for each platform; layers gzip, zstd and plain.
fn oci(platforms: &[&str]) -> Files {
    let mut files = Files::default();
    let manifests: Vec<Value> = platforms
        .iter()
        .map(|architecture| {
            let plain = [layer("a"), layer("b"), layer(architecture)];
            let config = config(architecture, &[&plain[0], &plain[1], &plain[2]]);
            let layers = [
                files.blob(gzip(&plain[0])),
                files.blob(zstd::encode_all(&plain[1][..], 3).unwrap()),
                files.blob(plain[2].clone()),
            ];
            let config = files.json_blob("application/vnd.oci.image.config.v1+json", &config);
            let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
            let mut descriptor =
                files.json_blob("application/vnd.oci.image.manifest.v1+json", &manifest);
            descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
            descriptor
        })
        .collect();
    let attestation = json!({ "digest": Digest::of(b"x").to_string(), "size": 1,
        "platform": { "os": "unknown", "architecture": "unknown" } });
    let mut all = manifests;
    all.push(attestation);
    let inner = json!({ "schemaVersion": 2, "manifests": all });
    let mut top = files.json_blob("application/vnd.oci.image.index.v1+json", &inner);
    top["annotations"] = json!({ "org.opencontainers.image.ref.name": "example.org/demo:2" });
    files.put(
        "index.json",
        json!({ "schemaVersion": 2, "manifests": [top] }).to_string(),
    );
    files.put("oci-layout", "{}");
    files
}

#[test]
fn an_old_docker_archive_opens_plain_gzip_and_zstd() {
    let files = old_docker_archive();
    let tar = files.tar();
    let expected = files.open().unwrap();
    assert_eq!(expected.names, ["demo:latest", "demo:v1"]);
    assert_eq!(expected.layers.len(), 2);
    assert_eq!(expected.id, Digest::of(&expected.config));
    for packed in [gzip(&tar), zstd::encode_all(&tar[..], 1).unwrap()] {
        let source = open_bytes(&packed, &ImageChoice::default()).unwrap();
        assert_eq!(source.manifest(), expected.manifest());
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&tar).unwrap();
    let source = open(file.path(), &ImageChoice::default(), &no_progress()).unwrap();
    assert_eq!(source.manifest(), expected.manifest());
}

#[test]
fn layers_are_read_again_and_from_the_middle() {
    let source = old_docker_archive().open().unwrap();
    let expected = layer("two");
    let last = source.layers.last().unwrap();
    for offset in [0, 1, 700, expected.len()] {
        let mut reader = last.open();
        reader.seek(SeekFrom::Start(offset as u64)).unwrap();
        let mut content = Vec::new();
        reader.read_to_end(&mut content).unwrap();
        assert_eq!(content, expected[offset..]);
    }
    assert_eq!(last.size, expected.len() as u64);
    assert_eq!(last.digest, last.diff_id);
}

#[test]
fn an_oci_layout_opens_as_tar_and_as_directory_for_the_right_platform() {
    let files = oci(&["amd64", "arm64", "s390x"]);
    let dir = files.directory();
    for architecture in ["amd64", "arm64"] {
        let platform = Platform::parse(architecture).unwrap();
        let choice = ImageChoice {
            name: Some("example.org/demo:2".into()),
            platform,
        };
        let source = open_bytes(&files.tar(), &choice).unwrap();
        assert_eq!(source.names, ["example.org/demo:2"]);
        assert_eq!(source.parsed.architecture, architecture);
        let kinds: Vec<Compression> = source
            .layers
            .iter()
            .map(|layer| layer.compression)
            .collect();
        assert_eq!(
            kinds,
            [Compression::Gzip, Compression::Zstd, Compression::None]
        );
        assert_eq!(source.layers[0].diff_id, Digest::of(&layer("a")));
        assert_ne!(source.layers[0].digest, source.layers[0].diff_id);
        let again = open(dir.path(), &choice, &no_progress()).unwrap();
        assert_eq!(again.manifest(), source.manifest());
    }
    let riscv = ImageChoice {
        name: None,
        platform: Platform::parse("riscv64").unwrap(),
    };
    let error = open_bytes(&files.tar(), &riscv).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the image has no version for linux/riscv64; it has: linux/amd64, linux/arm64, \
         linux/s390x. Pull or build it for linux/riscv64"
    );
}

#[test]
fn several_images_need_a_choice() {
    let mut files = old_docker_archive();
    let other = layer("other");
    let config = config(&this(), &[&other]).to_string();
    let mut manifest: Value = serde_json::from_slice(&files.0["manifest.json"]).unwrap();
    manifest
        .as_array_mut()
        .unwrap()
        .push(json!({ "Config": "c.json", "RepoTags": ["other:1"], "Layers": ["ccc/layer.tar"] }));
    files.put("c.json", config).put("ccc/layer.tar", other);
    files.put("manifest.json", manifest.to_string());
    let bytes = files.tar();
    let choose = |name: &str| ImageChoice {
        name: Some(name.into()),
        ..ImageChoice::default()
    };
    assert!(matches!(files.open(), Err(ImageError::Ambiguous { names }) if names.len() == 3));
    assert_eq!(
        open_bytes(&bytes, &choose("other:1")).unwrap().layers.len(),
        1
    );
    assert_eq!(open_bytes(&bytes, &choose("demo")).unwrap().layers.len(), 2);
    assert!(matches!(
        open_bytes(&bytes, &choose("nginx")),
        Err(ImageError::UnknownName { names, .. }) if names.contains(&"other:1".to_owned())
    ));
}

#[test]
fn every_kind_of_damage_has_its_own_refusal() {
    type Damage = fn(&mut Files);
    type Verdict = fn(&ImageError) -> bool;
    let table: [(&str, Damage, Verdict); 9] = [
        (
            "corrupt layer",
            |files| files.0.get_mut("bbb/layer.tar").unwrap()[600] ^= 1,
            |error| matches!(error, ImageError::Corrupt { what, .. } if what == "layer 2"),
        ),
        (
            "missing layer",
            |files| drop(files.0.remove("aaa/layer.tar")),
            |error| matches!(error, ImageError::Missing { path } if path == "aaa/layer.tar"),
        ),
        (
            "corrupt config",
            |files| {
                let config = files
                    .0
                    .iter_mut()
                    .find(|(path, _)| path.len() > 60)
                    .unwrap()
                    .1;
                config.push(b' ');
            },
            |error| matches!(error, ImageError::Corrupt { .. }),
        ),
        (
            "no manifest",
            |files| drop(files.0.remove("manifest.json")),
            |error| matches!(error, ImageError::NotAnImage),
        ),
        (
            "a manifest that is none",
            |files| {
                files.put("manifest.json", "{");
            },
            |error| matches!(error, ImageError::Json { .. }),
        ),
        (
            "a huge manifest",
            |files| {
                files.put("manifest.json", vec![b' '; 5 << 20]);
            },
            |error| matches!(error, ImageError::TooLarge { .. }),
        ),
        (
            "a layer outside",
            |files| {
                let text = String::from_utf8(files.0["manifest.json"].clone()).unwrap();
                files.put("manifest.json", text.replace("aaa/", "../../etc/"));
            },
            |error| matches!(error, ImageError::UnsafePath { .. }),
        ),
        (
            "one layer too few",
            |files| {
                let text = String::from_utf8(files.0["manifest.json"].clone()).unwrap();
                files.put("manifest.json", text.replace("\"aaa/layer.tar\",", ""));
            },
            |error| {
                matches!(
                    error,
                    ImageError::LayerCount {
                        listed: 1,
                        promised: 2
                    }
                )
            },
        ),
        (
            "an xz layer",
            |files| {
                files.put("aaa/layer.tar", b"\xfd7zXZ\0rest".to_vec());
            },
            |error| matches!(error, ImageError::Compression { format: "xz", .. }),
        ),
    ];
    for (name, damage, verdict) in table {
        let mut files = old_docker_archive();
        damage(&mut files);
        let error = files.open().expect_err(name);
        assert!(verdict(&error), "{name}: {error:?}");
        // A directory gives the same answers as an archive.
        let error = open(
            files.directory().path(),
            &ImageChoice::default(),
            &no_progress(),
        );
        assert!(verdict(&error.expect_err(name)), "{name} as a directory");
    }
}

#[test]
fn damaged_oci_layouts_are_refused() {
    let this = this();
    let good = oci(&[&this]);
    good.open().unwrap();
    for path in good.0.keys().filter(|path| path.starts_with("blobs/")) {
        let mut missing = good.clone();
        missing.0.remove(path);
        // Without the only manifest there is no platform on offer.
        let error = missing.open().expect_err(path);
        let expected = matches!(
            error,
            ImageError::Missing { .. } | ImageError::WrongPlatform { .. }
        );
        assert!(expected, "{path} {error:?}");

        let mut corrupt = good.clone();
        let content = corrupt.0.get_mut(path).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 0x40;
        let error = corrupt.open().expect_err(path);
        let expected = matches!(
            error,
            ImageError::Corrupt { .. } | ImageError::Decompress { .. }
        );
        assert!(expected, "{path} {error:?}");

        let mut longer = good.clone();
        longer.0.get_mut(path).unwrap().push(0);
        assert!(
            matches!(longer.open(), Err(ImageError::WrongSize { .. })),
            "{path}"
        );
    }
}

#[test]
fn an_index_that_contains_itself_or_too_much_ends() {
    let mut files = Files::default();
    let mut node = files.json_blob("", &json!({ "manifests": [] }));
    for _ in 0..6 {
        node = files.json_blob("", &json!({ "manifests": [node] }));
    }
    files.put("index.json", json!({ "manifests": [node] }).to_string());
    assert!(matches!(
        files.open(),
        Err(ImageError::IndexTooLarge { .. })
    ));
}

#[test]
fn links_inside_an_archive_are_followed_and_outside_are_not() {
    let with_link = |kind, target: &str| {
        let files = old_docker_archive();
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in files.0.iter().filter(|(path, _)| !path.starts_with("bbb")) {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, &content[..]).unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        tar.append_link(&mut header, "bbb/layer.tar", target)
            .unwrap();
        open_bytes(&tar.into_inner().unwrap(), &ImageChoice::default()).unwrap_err()
    };
    use tar::EntryType::{Link, Symlink};
    // The link leads to the first layer, which is not the second: found, hence "corrupt".
    for (kind, target) in [(Symlink, "../aaa/layer.tar"), (Link, "aaa/layer.tar")] {
        assert!(
            matches!(with_link(kind, target), ImageError::Corrupt { .. }),
            "{target}"
        );
    }
    assert!(matches!(
        with_link(Symlink, "../../etc/passwd"),
        ImageError::UnsafePath { .. }
    ));
    assert!(
        matches!(
            with_link(Symlink, "layer.tar"),
            ImageError::UnsafePath { .. }
        ),
        "a loop"
    );
    assert!(matches!(
        with_link(Symlink, "/etc/passwd"),
        ImageError::Missing { .. }
    ));
}

#[test]
fn truncated_archives_are_refused() {
    let tar = old_docker_archive().tar();
    let packed = gzip(&tar);
    assert!(open_bytes(&packed[..packed.len() / 2], &ImageChoice::default()).is_err());
    for cut in [1, 100, 512, 513, 1500, tar.len() / 2] {
        assert!(
            open_bytes(&tar[..cut], &ImageChoice::default()).is_err(),
            "{cut}"
        );
    }
    assert!(matches!(
        open_bytes(b"", &ImageChoice::default()),
        Err(ImageError::NotAnImage)
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_flipped_byte_is_found_or_harmless(at: prop::sample::Index, value: u8) {
        let files = old_docker_archive();
        let expected = files.open().unwrap().manifest();
        let mut bytes = files.tar();
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(source) = open_bytes(&bytes, &ImageChoice::default()) {
            prop_assert_eq!(source.manifest(), expected);
        }
    }
}
