//! What goes wrong under a pool: a clear word in `doctor` and `volume ls`, no panic, other volumes and
//! containers unharmed.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use teu_integration::{
    pool::ZfsFuse,
    world::{World, eventually, patience},
};

use super::{
    kills::MIB,
    machine::{containers_run, in_volume, json},
    picture,
};
use crate::Own;

pub(crate) const TRIALS: &[Own] = &[
    ("volumes::faults::a_full_pool", full),
    ("volumes::faults::a_loop_file_that_was_cut_short", cut_short),
    (
        "volumes::faults::a_tree_that_was_destroyed_by_hand",
        tree_gone,
    ),
    (
        "volumes::faults::a_pool_exported_and_a_dataset_destroyed",
        exported,
    ),
];

/// Why a test of this file cannot run here, if so.
pub(crate) fn cannot_run(name: &str) -> Option<String> {
    name.ends_with("a_pool_exported_and_a_dataset_destroyed")
        .then(ZfsFuse::cannot_start)
        .flatten()
}

/// The agent looks every ten seconds, and gives up what hangs in a broken pool after a minute.
const NOTICED_WITHIN: Duration = Duration::from_secs(90);

/// What `teu doctor` says. Whatever it finds, it can be asked.
fn doctor(world: &World) -> String {
    let said = world.teu(["doctor"]);
    assert!(matches!(said.status.code(), Some(0 | 1)), "{said:?}");
    String::from_utf8_lossy(&said.stdout).into_owned()
}

/// Waits until `doctor` says all of this in one line.
fn doctor_says(world: &World, words: &[&str]) {
    let deadline = Instant::now() + patience(NOTICED_WITHIN);
    loop {
        let said = doctor(world);
        let has_all = |line: &str| words.iter().all(|word| line.contains(word));
        if said.lines().any(has_all) {
            return;
        }
        assert!(Instant::now() < deadline, "no line with {words:?}:\n{said}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// Waits until `volume ls` shows the state.
fn is_listed(world: &World, name: &str, state: &str) {
    let deadline = Instant::now() + patience(NOTICED_WITHIN);
    loop {
        let rows = world.ok(["volume", "ls"]);
        let is_it =
            |row: &str| row.starts_with(&format!("{name} ")) && row.contains(&format!(" {state} "));
        if rows.lines().any(is_it) {
            return;
        }
        assert!(Instant::now() < deadline, "{name} is not {state}:\n{rows}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// The command is refused in these words; nobody panics.
fn refused(world: &World, arguments: &[&str], words: &str) {
    let said = world.teu(arguments);
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(!said.status.success(), "{arguments:?}");
    assert!(text.contains(words), "{arguments:?}: {text}");
}

fn no_panics(world: &World, agent: Option<u32>) {
    assert!(!world.log().contains("panicked at"), "{}", world.log());
    assert_eq!(world.daemon("teu-node"), agent, "the agent lives");
}

/// A btrfs of this size, mounted for as long as this lives.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn make(bytes: u64) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("teu-small-")
            .tempdir_in("/var/tmp")
            .expect("a directory");
        let disk = Self(directory);
        let file = fs::File::create(disk.0.path().join("disk")).expect("a file");
        file.set_len(bytes).expect("its length");
        fs::create_dir(disk.point()).expect("a directory");
        let (file, point) = (disk.0.path().join("disk"), disk.point());
        run("mkfs.btrfs", &["--quiet".as_ref(), file.as_os_str()]);
        let option: &std::ffi::OsStr = "--options=loop".as_ref();
        run("mount", &[option, file.as_os_str(), point.as_os_str()]);
        disk
    }

    fn point(&self) -> std::path::PathBuf {
        self.0.path().join("mounted")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.point()).output();
    }
}

fn run(program: &str, arguments: &[&std::ffi::OsStr]) {
    let done = Command::new(program).args(arguments).output();
    let done = done.expect("it is installed");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {arguments:?}: {said}");
}

fn full() {
    let disk = SmallDisk::make(512 * MIB);
    let world = World::start_with_pool(&disk.point().display().to_string());
    world.import_busybox();
    let agent = world.daemon("teu-node");
    world.ok(["volume", "create", "greedy"]);
    world.ok(["volume", "create", "modest"]);
    in_volume(&world, "modest", "echo kept > /v/file && sync");
    in_volume(
        &world,
        "greedy",
        "dd if=/dev/zero of=/v/file bs=1M 2>/tmp/said; sync; grep -i 'no space' /tmp/said",
    );
    doctor_says(&world, &["warning", "volumes", "MiB free"]);
    is_listed(&world, "greedy", "ready");
    is_listed(&world, "modest", "ready");
    assert_eq!(in_volume(&world, "modest", "cat /v/file"), "kept");
    // Whoever has used it up can make room again, and then all is well.
    world.ok(["volume", "rm", "--yes", "greedy"]);
    doctor_says(&world, &["all is well"]);
    in_volume(
        &world,
        "modest",
        "dd if=/dev/zero of=/v/more bs=1M count=64 2>/dev/null",
    );
    no_panics(&world, agent);
    drop(world);
    drop(disk);
}

fn cut_short() {
    let world = World::start();
    world.import_busybox();
    world.ok(["volume", "create", "unlucky"]);
    in_volume(&world, "unlucky", "echo 1 > /v/file && sync");
    let agent = world.daemon("teu-node");
    let path = world.data().join("node/pool.btrfs");
    let file = fs::File::options()
        .write(true)
        .open(&path)
        .expect("the file");
    let length = file.metadata().expect("the file").len();
    file.set_len(length / 4).expect("cut short");
    doctor_says(&world, &["volumes", "cut it short"]);
    assert!(world.ok(["volume", "ls"]).contains("unlucky"));
    containers_run(&world);
    no_panics(&world, agent);
    // Nor does the next agent fall over it.
    world.kill_daemon("teu-node");
    world.wait_up();
    doctor_says(&world, &["volumes", "pool.btrfs"]);
    assert!(world.ok(["volume", "ls"]).contains("unlucky"));
    containers_run(&world);
    no_panics(&world, world.daemon("teu-node"));
}

fn tree_gone() {
    let world = World::start();
    world.import_busybox();
    let agent = world.daemon("teu-node");
    for name in ["treeless", "gone", "well"] {
        world.ok(["volume", "create", name]);
        in_volume(&world, name, "echo here > /v/file");
    }
    let directory = |name: &str| {
        let inspected = json(&world.ok(["volume", "inspect", name]));
        let id = inspected[0]["id"].as_str().expect("an id").to_owned();
        picture::pool(&world).join("volumes").join(id)
    };
    let delete = |tree: &Path| {
        let words: [&std::ffi::OsStr; 3] =
            ["subvolume".as_ref(), "delete".as_ref(), tree.as_os_str()];
        run("btrfs", &words);
    };
    let gone = directory("gone");
    delete(&directory("treeless").join("tree"));
    delete(&gone.join("tree"));
    fs::remove_dir_all(&gone).expect("removed by hand");
    for name in ["treeless", "gone"] {
        // Whoever asks is told, and the look that follows finds it.
        refused(&world, &["volume", "usage", name], "volume");
    }
    is_listed(&world, "gone", "missing");
    doctor_says(&world, &["BAD", "volume gone", "removed it by hand"]);
    is_listed(&world, "treeless", "faulted");
    doctor_says(&world, &["BAD", "volume treeless"]);
    is_listed(&world, "well", "ready");
    assert_eq!(in_volume(&world, "well", "cat /v/file"), "here");
    for name in ["treeless", "gone"] {
        refused(
            &world,
            &[
                "run",
                "--rm",
                "-v",
                &format!("{name}:/v"),
                "busybox",
                "true",
            ],
            "",
        );
        world.ok(["volume", "rm", "--yes", name]);
    }
    doctor_says(&world, &["all is well"]);
    no_panics(&world, agent);
}

fn exported() {
    let zfs = ZfsFuse::start();
    let world = World::start_with_pool(&format!("zfs:{}/teu", zfs.pool()));
    world.import_busybox();
    let agent = world.daemon("teu-node");
    for name in ["one", "two"] {
        world.ok(["volume", "create", name]);
        in_volume(&world, name, "echo here > /v/file && sync");
    }
    // One dataset goes by hand.
    let inspected = json(&world.ok(["volume", "inspect", "two"]));
    let id = inspected[0]["id"].as_str().expect("an id").to_owned();
    let dataset = format!("{}/teu/{id}", zfs.pool());
    // Keepers that are being made may have it in their namespaces for a moment.
    eventually("the dataset is destroyed", || {
        let _ = Command::new("zfs")
            .args(["unmount", "-f", &dataset])
            .output();
        let done = Command::new("zfs")
            .args(["destroy", "-r", &dataset])
            .output();
        done.is_ok_and(|done| done.status.success())
    });
    is_listed(&world, "two", "missing");
    doctor_says(&world, &["BAD", "volume two", "removed it by hand"]);
    is_listed(&world, "one", "ready");
    assert_eq!(in_volume(&world, "one", "cat /v/file"), "here");
    world.ok(["volume", "rm", "--yes", "two"]);
    // The pool goes, and comes back.
    let directory = directory_of(zfs.pool());
    run(
        "zpool",
        &["export".as_ref(), "-f".as_ref(), zfs.pool().as_ref()],
    );
    doctor_says(&world, &["BAD", "volumes", "cannot be used"]);
    is_listed(&world, "one", "faulted");
    refused(&world, &["volume", "snapshot", "one", "s"], "");
    containers_run(&world);
    no_panics(&world, agent);
    run(
        "zpool",
        &[
            "import".as_ref(),
            "-d".as_ref(),
            directory.as_ref(),
            zfs.pool().as_ref(),
        ],
    );
    is_listed(&world, "one", "ready");
    assert_eq!(in_volume(&world, "one", "cat /v/file"), "here");
    doctor_says(&world, &["all is well"]);
    no_panics(&world, agent);
    drop(world);
    drop(zfs);
}

/// Where the pool's one disk, a file, lies.
fn directory_of(pool: &str) -> String {
    let status = Command::new("zpool").args(["status", pool]).output();
    let status = String::from_utf8_lossy(&status.expect("zpool").stdout).into_owned();
    let disk = status
        .split_whitespace()
        .find(|word| word.ends_with("/disk"));
    let disk = disk.unwrap_or_else(|| panic!("the pool's file is named: {status}"));
    disk.trim_end_matches("/disk").to_owned()
}
