//! Images: from files and from a real Docker engine; hostile and wrong ones are refused.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use teu_integration::world::{World, eventually, free_port, get};

use crate::Shared;

pub(crate) const TRIALS: &[Shared] = &[
    ("images::a_compressed_archive_is_imported", compressed),
    ("images::a_corrupt_layer_is_refused", corrupt),
    ("images::another_platform_is_refused", platform),
    (
        "images::an_image_of_the_docker_engine_runs_and_serves",
        engine,
    ),
    ("images::removed_images_are_gone", removed),
    ("images::layers_of_removed_images_go", collected),
];

fn unpacked(world: &World, name: &str) -> PathBuf {
    let directory = world.scratch().join(name);
    fs::create_dir_all(&directory).expect("a directory");
    let archive = world.scratch().join(format!("{name}.tar"));
    teu_integration::world::make_busybox(&archive);
    run("tar", &["-C", &text(&directory), "-xf", &text(&archive)]);
    directory
}

fn pack(directory: &Path, archive: &Path) {
    run("tar", &["-C", &text(directory), "-cf", &text(archive), "."]);
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("the program is installed");
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn compressed(world: &World) {
    let archive = world.scratch().join("compressed.tar");
    teu_integration::world::make_busybox(&archive);
    run("gzip", &["-kf", &text(&archive)]);
    let told = world.ok(["image", "import", &format!("{}.gz", text(&archive))]);
    assert!(told.contains("busybox:latest"), "{told}");
}

fn corrupt(world: &World) {
    let directory = unpacked(world, "corrupt");
    let layer = fs::read_dir(&directory)
        .expect("the image")
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "tar"))
        .expect("a layer");
    let mut bytes = fs::read(&layer).expect("the layer");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&layer, bytes).expect("the layer");
    let archive = world.scratch().join("corrupt-image.tar");
    pack(&directory, &archive);
    let output = world.teu(["image", "import", &text(&archive)]);
    assert_eq!(output.status.code(), Some(125));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("digest") || said.contains("corrupt"),
        "{said}"
    );
}

fn platform(world: &World) {
    let directory = unpacked(world, "platform");
    let config = fs::read_dir(&directory)
        .expect("the image")
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name().is_some_and(|name| {
                name.to_string_lossy().len() > 60 && name.to_string_lossy().ends_with(".json")
            })
        })
        .expect("a config");
    let text_before = fs::read_to_string(&config).expect("the config");
    let foreign = if cfg!(target_arch = "x86_64") {
        "s390x"
    } else {
        "amd64"
    };
    let own = if cfg!(target_arch = "x86_64") {
        "amd64"
    } else {
        "arm64"
    };
    fs::write(&config, text_before.replace(own, foreign)).expect("the config");
    let manifest = directory.join("manifest.json");
    let renamed = fs::read_to_string(&manifest)
        .expect("it")
        .replace("busybox:latest", "foreign:1");
    let digest = run("sha256sum", &[&text(&config)]);
    let digest = digest.split(' ').next().unwrap_or_default();
    let old = config
        .file_stem()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    fs::rename(&config, directory.join(format!("{digest}.json"))).expect("renamed");
    fs::write(&manifest, renamed.replace(&old, digest)).expect("the manifest");
    let archive = world.scratch().join("foreign.tar");
    pack(&directory, &archive);
    let imported = world.teu(["image", "import", &text(&archive)]);
    let refused = if imported.status.success() {
        world.teu(["run", "--rm", "foreign:1", "true"])
    } else {
        imported
    };
    assert_eq!(refused.status.code(), Some(125));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains(foreign) && said.contains(own), "{said}");
}

/// nginx with all that it needs, out of this machine's packages, on no base at all.
fn nginx_context(directory: &Path) {
    let root = directory.join("root");
    let nginx = "/usr/sbin/nginx";
    let libraries = run("ldd", &[nginx]);
    let mut files = vec![nginx.to_owned(), "/etc/nginx/mime.types".to_owned()];
    files.extend(
        libraries
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
            .map(str::to_owned),
    );
    for file in files {
        let to = root.join(file.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
        fs::copy(&file, &to).expect("a copy");
    }
    for made in ["var/log/nginx", "var/lib/nginx", "run", "tmp", "srv", "etc"] {
        fs::create_dir_all(root.join(made)).expect("a directory");
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/srv:/bin/false\n";
    fs::write(root.join("etc/passwd"), passwd).expect("passwd");
    fs::write(root.join("etc/group"), "root:x:0:\nwww-data:x:33:\n").expect("group");
    fs::write(root.join("srv/index.html"), "served by a real nginx\n").expect("a page");
    let config = "user www-data; daemon off; error_log stderr; pid /run/nginx.pid;\n\
                  events {}\nhttp { access_log off; server { listen 80; root /srv; } }\n";
    fs::write(root.join("etc/nginx/nginx.conf"), config).expect("a config");
    let recipe = "FROM scratch\nCOPY root/ /\nEXPOSE 80\nSTOPSIGNAL SIGQUIT\n\
                  CMD [\"/usr/sbin/nginx\", \"-c\", \"/etc/nginx/nginx.conf\"]\n";
    fs::write(directory.join("Dockerfile"), recipe).expect("a Dockerfile");
}

/// A run uses the location's copy of a rebuilt image, until it is pushed.
fn refreshed(world: &World, name: &str) {
    let id = |name: &str| {
        let found = world.ok(["images", "--format", "json"]);
        let images: serde_json::Value = serde_json::from_str(&found).expect("JSON");
        let images = images.as_array().expect("a list").clone();
        let named = images.into_iter().find(|image| {
            let names = image["names"].as_array().expect("names").clone();
            names.iter().any(|one| one == &format!("{name}:latest"))
        });
        named.expect("it is in the catalogue")["id"].clone()
    };
    let before = id(name);
    let context = world.scratch().join("rebuilt");
    fs::create_dir_all(&context).expect("a directory");
    fs::write(
        context.join("Dockerfile"),
        format!("FROM {name}\nENV A=b\n"),
    )
    .expect("a file");
    let built = Command::new("docker")
        .env("DOCKER_BUILDKIT", "0")
        .args(["build", "-q", "-t", name])
        .arg(&context)
        .output();
    assert!(built.expect("docker is installed").status.success());
    let cached = world.ok(["run", "-d", name]);
    world.ok(["rm", "-f", &cached]);
    assert_eq!(id(name), before, "a run does not look at the engine");
    world.ok(["image", "push", name]);
    assert_ne!(id(name), before, "a push does");
}

/// Needs a Docker engine: `deploy/test` starts one.
fn engine(world: &World) {
    let context = world.scratch().join("nginx");
    nginx_context(&context);
    let name = format!("teu-test-nginx-{}", world.instance());
    let built = Command::new("docker")
        .env("DOCKER_BUILDKIT", "0")
        .args(["build", "-q", "-t", &name])
        .arg(&context)
        .output()
        .expect("docker is installed");
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let port = free_port();
    let publish = format!("{port}:80");
    world.ok(["run", "-d", "--name", "nginx-real", "-p", &publish, &name]);
    let page = get(("127.0.0.1", port), "/");
    assert_eq!(String::from_utf8_lossy(&page), "served by a real nginx\n");
    let inspected = world.ok(["inspect", "nginx-real"]);
    assert!(inspected.contains("80/tcp"), "{inspected}");
    world.ok(["stop", "nginx-real"]);
    eventually("SIGQUIT ended it well", || {
        world.ok(["ps", "-a"]).contains("exited (0)")
    });
    world.ok(["rm", "nginx-real"]);
    // The newest image of the engine has a short name.
    let again = world.ok(["run", "-d", "."]);
    world.ok(["rm", "-f", &again]);
    refreshed(world, &name);
    run("docker", &["rmi", "-f", &name]);
    // It is in the location's catalogue now: the engine is not asked again.
    let cached = world.ok(["run", "-d", &name]);
    world.ok(["rm", "-f", &cached]);
}

fn removed(world: &World) {
    let directory = unpacked(world, "removed");
    let manifest = directory.join("manifest.json");
    let renamed = fs::read_to_string(&manifest)
        .expect("it")
        .replace("busybox:latest", "temp:1");
    fs::write(&manifest, renamed).expect("the manifest");
    let archive = world.scratch().join("temp.tar");
    pack(&directory, &archive);
    world.ok(["image", "import", &text(&archive)]);
    assert!(world.ok(["images"]).contains("temp:1"));
    world.ok(["image", "rm", "temp:1"]);
    assert!(!world.ok(["images"]).contains("temp:1"));
}

/// What an image took on the node comes back when the image is removed and its last container has ended.
fn collected(world: &World) {
    let directory = unpacked(world, "collected");
    let layer = directory.join("collected.tar");
    fs::write(world.scratch().join("only-here"), vec![7; 100_000]).expect("a file");
    let scratch = text(world.scratch());
    run("tar", &["-C", &scratch, "-cf", &text(&layer), "only-here"]);
    let diff_id = run("sha256sum", &[&text(&layer)]);
    let diff_id = diff_id.split_whitespace().next().expect("a digest");
    let manifest = directory.join("manifest.json");
    let told: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&manifest).expect("it")).expect("JSON");
    let config = directory.join(told[0]["Config"].as_str().expect("a config"));
    let mut image: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&config).expect("it")).expect("JSON");
    let mut told = told.clone();
    let push = |list: &mut serde_json::Value, text: String| {
        list.as_array_mut().expect("a list").push(text.into());
    };
    push(
        &mut image["rootfs"]["diff_ids"],
        format!("sha256:{diff_id}"),
    );
    push(&mut told[0]["Layers"], "collected.tar".to_owned());
    told[0]["RepoTags"] = serde_json::json!(["collected:1"]);
    fs::write(directory.join("config.json"), image.to_string()).expect("the config");
    told[0]["Config"] = "config.json".into();
    fs::write(&manifest, told.to_string()).expect("the manifest");
    let archive = world.scratch().join("collected-image.tar");
    pack(&directory, &archive);
    world.ok(["image", "import", &text(&archive)]);
    let kept = world.data().join("node/layers").join(diff_id);
    world.ok([
        "run",
        "-d",
        "--name",
        "collected",
        "collected:1",
        "sleep",
        "1000",
    ]);
    assert!(kept.is_dir(), "the layer is unpacked");
    world.ok(["image", "rm", "collected:1"]);
    world.ok(["exec", "collected", "ls", "/only-here"]);
    assert!(kept.is_dir(), "a container uses it");
    world.ok(["rm", "-f", "collected"]);
    eventually("the layer is removed", || !kept.exists());
}
