//! Images that the builder made: opened again, and through a real engine and back.

use std::path::Path;

use serde_json::json;

use super::super::*;

#[cfg(feature = "engine")]
fn busybox() -> Option<std::path::PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .map(std::path::PathBuf::from)
        .find(|path| path.exists())
}

#[test]
fn what_the_builder_writes_opens_and_is_always_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let builder = ImageBuilder::new()
        .name("demo:1")
        .unwrap()
        .file("/srv/www/index.html", 0o644, "hello")
        .symlink("bin/sh", "busybox")
        .dir("tmp", 0o1777)
        .cmd(["sh", "-c", "true"])
        .env("A", "1")
        .config("User", json!("www"));
    let (one, two) = (dir.path().join("one.tar"), dir.path().join("two.tar"));
    let id = builder.build(&one).unwrap();
    assert_eq!(builder.build(&two).unwrap(), id);
    assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
    let source = open(&one, &ImageChoice::default(), &no_progress()).unwrap();
    assert_eq!(
        (source.id, &*source.names),
        (id, &["demo:1".to_owned()][..])
    );
    assert_eq!(
        (&*source.parsed.user, &*source.parsed.env),
        ("www", &["A=1".to_owned()][..])
    );

    let mut paths = Vec::new();
    let mut tar = tar::Archive::new(source.layers[0].open());
    for entry in tar.entries().unwrap() {
        paths.push(entry.unwrap().path().unwrap().display().to_string());
    }
    assert_eq!(
        paths,
        [
            "bin/",
            "bin/sh",
            "srv/",
            "srv/www/",
            "srv/www/index.html",
            "tmp/"
        ]
    );

    for bad in ["", "a/../b", "a//b"] {
        let error = ImageBuilder::new()
            .file(bad, 0o644, "")
            .build(&two)
            .unwrap_err();
        assert!(matches!(error, ImageError::Build { .. }), "{bad}");
    }
    assert!(matches!(
        ImageBuilder::busybox(Path::new("/proc/self/exe")),
        Err(ImageError::Build { .. })
    ));
}

/// Runs a real engine if there is one: an image goes in by `docker load` and comes out the same.
#[cfg(feature = "engine")]
#[tokio::test(flavor = "multi_thread")]
async fn an_image_travels_through_a_real_engine() {
    let Ok(engine) = Engine::connect().await else {
        eprintln!("skipped: no Docker or Podman engine answers on this machine");
        return;
    };
    let Some(busybox) = busybox() else {
        eprintln!("skipped: no busybox on this machine (install busybox-static)");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image.tar");
    let name = format!("teu-test-{}:v1", std::process::id());
    let builder = ImageBuilder::busybox(&busybox)
        .unwrap()
        .name(&name)
        .unwrap();
    let id = builder.build(&file).unwrap();
    let load = std::process::Command::new("docker")
        .arg("load")
        .arg("-i")
        .arg(&file)
        .output();
    if !load.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: `docker load` does not work on this machine");
        return;
    }

    let found = engine.find(&name).await.unwrap();
    assert_eq!(found.names, std::slice::from_ref(&name));
    let short = engine.find(&found.id).await.unwrap();
    assert_eq!(short, found);
    let newest = engine.newest().await.unwrap();
    assert!(!newest.id.is_empty());
    let steps = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&steps);
    let progress: ProgressFn = Arc::new(move |step| seen.lock().unwrap().push(step));
    let source = engine
        .export(&found, &Platform::this(), &progress)
        .await
        .unwrap();
    let missing = engine.find("teu-no-such-image").await;
    let removed = std::process::Command::new("docker")
        .args(["rmi", &name])
        .output()
        .unwrap();
    assert!(removed.status.success());

    let original = open(&file, &ImageChoice::default(), &no_progress()).unwrap();
    assert_eq!(source.names, [name]);
    assert_eq!(source.layers[0].diff_id, original.layers[0].diff_id);
    assert_eq!(source.parsed, original.parsed);
    if let Some(config) = found.config {
        assert_eq!(
            (config, source.id),
            (id, id),
            "Docker keeps the config byte for byte"
        );
        assert_eq!(found.diff_ids, source.parsed.diff_ids);
    }
    assert!(matches!(missing, Err(ImageError::NotInEngine { .. })));
    let steps = steps.lock().unwrap();
    assert!(matches!(steps[0], ImageProgress::Exporting { .. }));
    let total = source.size();
    assert!(steps.contains(&ImageProgress::Verifying { done: total, total }));
}
