//! `teu dev`: it stops and removes what is the location's, and nothing else.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use teu_integration::world::{World, eventually, free_port, kill, loop_devices, program};

use crate::Own;

pub(crate) const TRIALS: &[Own] = &[
    ("dev::stop_finds_what_a_killed_supervisor_has_left", orphans),
    ("dev::a_second_location_does_not_touch_the_first", second),
    ("dev::a_failed_start_leaves_nothing", failed_starts),
];

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `teu dev` beside the world's own location.
fn dev(teu: &Path, home: &Path, arguments: &[&str]) -> Output {
    Command::new(teu)
        .env("TEU_HOME", home)
        .env("NO_COLOR", "1")
        .arg("dev")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("teu is built")
}

fn orphans() {
    let world = World::start();
    world.import_busybox();
    world.ok(["run", "-d", "--name", "left", "busybox", "sleep", "1000"]);
    assert!(!world.log().contains('\x1b'), "no colours in files");
    let data = world.data().display().to_string();
    let home = world.home();
    let teu = program("teu");
    let daemons = ["teu-master", "teu-node"].map(|name| world.daemon(name).expect("it runs"));
    let is_there = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&data)
    };

    // Nothing is done without a yes, nor for another location.
    let unasked = dev(&teu, &home, &["--purge", "--data", &data]);
    assert_eq!(unasked.status.code(), Some(125));
    assert!(said(&unasked).contains("confirmation needed, but there is no terminal (use --yes)"));
    let other = dev(
        &teu,
        &home,
        &["--purge", "--yes", "--name", "typo", "--data", &data],
    );
    assert_eq!(other.status.code(), Some(125));
    assert!(
        said(&other).contains("--name dev, not --name typo"),
        "{}",
        said(&other)
    );
    assert!(
        said(&other).contains(&format!("`teu dev --purge --data {data}`")),
        "{}",
        said(&other)
    );
    world.ok(["exec", "left", "true"]);

    world.kill_supervisor();
    assert!(
        daemons.iter().all(is_there),
        "daemons outlive their supervisor"
    );
    let stopped = dev(&teu, &home, &["--stop", "--yes", "--data", &data]);
    assert!(stopped.status.success(), "{}", said(&stopped));
    for name in ["teu-master (process", "teu-node (process", "1 container"] {
        assert!(said(&stopped).contains(name), "{}", said(&stopped));
    }
    assert!(!daemons.iter().any(is_there), "they are ended");
    assert_eq!(world.census().keepers, 0, "so are containers");

    fs::write(world.data().join("precious"), "mine").expect("written");
    let purged = dev(&teu, &home, &["--purge", "--yes", "--data", &data]);
    assert!(purged.status.success(), "{}", said(&purged));
    assert!(said(&purged).contains("precious"), "{}", said(&purged));
    let left: Vec<_> = fs::read_dir(world.data())
        .expect("it stays")
        .flatten()
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let pool = world.data().join("node/pool.btrfs");
    eventually("no loop device is left", || loop_devices(&pool).is_empty());
    let again = dev(&teu, &home, &["--purge", "--yes", "--data", &data]);
    assert_eq!(again.status.code(), Some(125));
    assert!(world.data().join("precious").exists());
}

fn second() {
    let world = World::start();
    world.import_busybox();
    world.ok(["run", "-d", "--name", "first", "busybox", "sleep", "1000"]);
    let home = world.scratch().join("second-home");
    let data = world.scratch().join("second").display().to_string();
    let teu = program("teu");
    let port = world.port().to_string();
    let range = world.range();
    for clash in [
        ["--instance", world.instance()],
        ["--range", &range],
        ["--port", &port],
    ] {
        let arguments = [
            &["--detach", "--data", &data, "--pool", "none"][..],
            &clash[..],
        ]
        .concat();
        let refused = dev(&teu, &home, &arguments);
        assert_eq!(refused.status.code(), Some(125), "{clash:?}");
        assert!(
            said(&refused).contains("location `dev`"),
            "{}",
            said(&refused)
        );
        assert!(!Path::new(&data).exists(), "{clash:?}");
    }
    let started = dev(
        &teu,
        &home,
        &["--detach", "--data", &data, "--pool", "none"],
    );
    assert!(started.status.success(), "{}", said(&started));
    world.ok(["exec", "first", "true"]);
    let running = dev(&teu, &home, &["--detach", "--data", &data]);
    assert_eq!(running.status.code(), Some(125));
    assert!(
        said(&running).contains(&format!("`teu dev --stop --data {data}`")),
        "{}",
        said(&running)
    );
    let purged = dev(&teu, &home, &["--purge", "--yes", "--data", &data]);
    assert!(purged.status.success(), "{}", said(&purged));
    assert!(!Path::new(&data).exists());
    world.ok(["exec", "first", "true"]);
}

fn failed_starts() {
    let place = tempfile::Builder::new()
        .prefix("teu-e2e-")
        .tempdir_in("/var/tmp")
        .expect("a directory");
    let home = place.path().join("home");
    let data = place.path().join("data");
    let text = data.display().to_string();
    let instance = format!("f{:x}", std::process::id() % 65_536);
    let port = free_port().to_string();
    let own = [
        "--data",
        &text,
        "--instance",
        &instance,
        "--port",
        &port,
        "--range",
        "10.99.0.0/16",
    ];
    let nowhere = place.path().join("no/such/file");
    let nowhere = format!("loop:{}", nowhere.display());
    for (bad, code) in [
        (["--range", "10.99.0.0/33"], 125),
        (["--name", "a b"], 125),
        (["--pool", &nowhere], 1),
        (["--pool", "/nosuch"], 1),
        (["--pool", "/proc"], 1),
    ] {
        let given: &[&str] = if bad[0] == "--range" { &own[..6] } else { &own };
        let arguments = [&["--detach"][..], given, &bad[..]].concat();
        let refused = dev(&program("teu"), &home, &arguments);
        assert_eq!(
            refused.status.code(),
            Some(code),
            "{bad:?}: {}",
            said(&refused)
        );
        assert!(!data.exists(), "{bad:?}");
    }
    assert!(!place.path().join("no").exists());

    // A node that cannot start.
    let programs = place.path().join("programs");
    fs::create_dir(&programs).expect("a directory");
    for name in ["teu", "teu-master"] {
        fs::hard_link(program(name), programs.join(name))
            .or_else(|_| fs::copy(program(name), programs.join(name)).map(drop))
            .expect("a program");
    }
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = run ] || exec {} \"$@\"\necho the node is out of order >&2; exit 3\n",
        program("teu-node").display()
    );
    let node = programs.join("teu-node");
    fs::write(&node, script).expect("written");
    fs::set_permissions(&node, fs::Permissions::from_mode(0o755)).expect("executable");
    let arguments = [&["--detach", "--pool", "none"][..], &own[..]].concat();
    let looped = dev(&programs.join("teu"), &home, &arguments);
    assert_eq!(looped.status.code(), Some(1), "{}", said(&looped));
    for part in ["the node is out of order", "teu-node ended 3 times"] {
        assert!(said(&looped).contains(part), "{}", said(&looped));
    }
    assert!(!said(&looped).contains("is ready"), "{}", said(&looped));
    assert!(!data.exists());
    kill_none_left(&text);
}

/// No daemon of the location runs.
fn kill_none_left(data: &str) {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let left: Vec<u32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(data)
        })
        .collect();
    for pid in &left {
        kill(*pid, rustix::process::Signal::KILL);
    }
    assert!(left.is_empty(), "{left:?}");
}
