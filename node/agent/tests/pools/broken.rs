//! What somebody breaks: the pool says so, does not panic, and what is whole stays usable.
//!
//! Owner: the pools' tests. Next: `kill.rs`.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::MetadataExt,
    process::{Command, Stdio},
};

use teu_node::volumes::pool::{BtrfsPool, Pool, PoolError};

use super::{
    cases::{Case, fill, id, noise, read, tag, write},
    lab::{Kind, Lab, MIB, attempt, limits, run},
};

pub const ALL: &[Case] = &[
    ("a_full_pool", full),
    ("a_volume_destroyed_by_hand", by_hand),
];
pub const LOOP: &[Case] = &[
    ("a_loop_file_grows", grows),
    ("a_loop_file_is_attached_again", attached_again),
    ("a_loop_file_cut_short", cut_short),
    ("a_full_host_is_not_met", full_host),
    ("a_pool_that_met_a_full_host_comes_back", comes_back),
];
pub const ZFS: &[Case] = &[
    ("an_exported_pool", exported),
    ("nothing_else_in_the_pool_is_touched", neighbours),
    ("a_copied_mount_namespace_keeps_nothing", copied_namespace),
];
pub const OPENZFS: &[Case] = &[(
    "a_volume_mounted_in_another_namespace_goes_when_that_lets_go",
    mounted_elsewhere,
)];

fn full(lab: &Lab) {
    let pool = lab.open();
    pool.create(id(1), b"", None).unwrap();
    pool.create(id(2), b"", None).unwrap();
    write(&*pool, id(2), "f", b"safe");
    pool.snapshot(id(2), &tag("s")).unwrap();
    if lab.kind == Kind::Loop {
        // As far as it may.
        let length = || fs::metadata(lab.path("image")).unwrap().len();
        for n in 0..4 {
            write(&*pool, id(1), &format!("step-{n}"), &noise(64 * MIB));
            pool.maintain().unwrap();
        }
        assert_eq!(length(), 640 * MIB);
    }
    let (_, error) = fill(&pool.tree(id(1)).unwrap());
    assert_eq!(
        error.raw_os_error(),
        Some(rustix::io::Errno::NOSPC.raw_os_error()),
        "{error}"
    );
    assert_eq!(read(&*pool, id(2), "f").unwrap(), "safe");
    // Whatever these say, they do not panic, nor half do it.
    for n in 3..6 {
        match pool.create(id(n), b"r", None) {
            Ok(()) | Err(PoolError::Full) => {}
            Err(error) => panic!("{error}"),
        }
    }
    pool.recover().unwrap();
    assert!(!pool.warnings().is_empty());
    assert!(pool.space().unwrap().free < 64 * MIB);
    pool.destroy(id(1)).unwrap();
    pool.recover().unwrap();
    // btrfs gives the room back in the background (its cleaner thread), on a busy machine a moment later.
    let again = pool.tree(id(2)).unwrap().join("f");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while let Err(error) = fs::write(&again, b"goes on") {
        assert!(std::time::Instant::now() < end, "{error}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    write(&*pool, id(2), "f", b"goes on");
    pool.create(id(7), b"r", None).unwrap();
}

fn by_hand(lab: &Lab) {
    let pool = lab.open();
    pool.create(id(1), b"", None).unwrap();
    pool.create(id(2), b"", None).unwrap();
    write(&*pool, id(2), "f", b"safe");
    let tree = pool.tree(id(1)).unwrap();
    if lab.kind.is_zfs() {
        run("zfs", &["unmount", tree.to_str().unwrap()]);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        // zfs-fuse lets go a moment later.
        let dataset = format!("{}/{}", lab.dataset(), id(1));
        let gone = || {
            std::process::Command::new("zfs")
                .args(["destroy", "-r", &dataset])
                .output()
                .unwrap()
                .status
                .success()
        };
        while !gone() {
            assert!(std::time::Instant::now() < end);
        }
    } else {
        run("btrfs", &["subvolume", "delete", tree.to_str().unwrap()]);
    }
    assert!(matches!(pool.tree(id(1)), Err(PoolError::NoVolume(_))));
    assert!(matches!(
        pool.snapshot(id(1), &tag("s")),
        Err(PoolError::NoVolume(_))
    ));
    let left = pool.volumes().unwrap();
    let mut left: Vec<_> = left.iter().map(|volume| volume.id).collect();
    left.sort();
    // On btrfs its record and snapshots are still there, to be destroyed with it.
    let there: &[_] = match lab.kind.is_zfs() {
        true => &[id(2)],
        false => &[id(1), id(2)],
    };
    assert_eq!(left, there);
    pool.maintain().unwrap();
    pool.recover().unwrap();
    assert_eq!(read(&*pool, id(2), "f").unwrap(), "safe");
    pool.destroy(id(1)).unwrap();
    pool.create(id(1), b"anew", None).unwrap();
    assert_eq!(pool.volumes().unwrap().len(), 2);
}

fn grows(lab: &Lab) {
    let pool = lab.open();
    let length = || fs::metadata(lab.path("image")).unwrap().len();
    let first = length();
    assert!(first > 256 * MIB, "the headroom is made at once");
    let total = pool.space().unwrap().total;
    pool.create(id(1), b"", None).unwrap();
    write(&*pool, id(1), "f", &noise(150 * MIB));
    pool.maintain().unwrap();
    assert!(length() > first);
    assert!(length() <= 640 * MIB);
    assert!(
        pool.space().unwrap().total.abs_diff(total) < 64 * MIB,
        "what it may grow to was told before"
    );
    assert_eq!(pool.warnings(), Vec::<String>::new());
}

fn attached_again(lab: &Lab) {
    let pool = lab.open();
    pool.create(id(1), b"kept", None).unwrap();
    write(&*pool, id(1), "f", b"kept");
    run("umount", &[&lab.path("mnt")]);
    let shown = run("losetup", &["-n", "-O", "NAME", "-j", &lab.path("image")]);
    for device in shown.lines() {
        run("losetup", &["-d", device.trim()]);
    }
    assert!(matches!(pool.space(), Err(PoolError::Faulted(_))));
    assert!(matches!(
        pool.create(id(2), b"", None),
        Err(PoolError::Faulted(_))
    ));
    assert!(!pool.warnings().is_empty());
    pool.maintain().unwrap();
    assert_eq!(read(&*pool, id(1), "f").unwrap(), "kept");
    assert_eq!(pool.warnings(), Vec::<String>::new());
}

fn cut_short(lab: &Lab) {
    let pool = lab.open();
    pool.create(id(1), b"kept", None).unwrap();
    let image = File::options().write(true).open(lab.path("image")).unwrap();
    let whole = image.metadata().unwrap().len();
    image.set_len(whole / 2).unwrap();
    assert!(
        pool.warnings()
            .iter()
            .any(|warning| warning.contains("cut it short")),
        "{:?}",
        pool.warnings()
    );
    run("umount", &[&lab.path("mnt")]);
    for device in run("losetup", &["-n", "-O", "NAME", "-j", &lab.path("image")]).lines() {
        run("losetup", &["-d", device.trim()]);
    }
    drop(pool);
    let pool = lab.open();
    let Err(PoolError::Faulted(why)) = pool.space() else {
        panic!("it cannot be used: {:?}", pool.space());
    };
    assert!(why.contains("not mounted"), "{why}");
    assert!(matches!(pool.maintain(), Err(PoolError::Faulted(_))));
    assert!(pool.volumes().is_err() && !pool.warnings().is_empty());
    assert_eq!(
        image.metadata().unwrap().len(),
        whole / 2,
        "nobody touched it"
    );
}

fn exported(lab: &Lab) {
    let pool = lab.open();
    pool.create(id(1), b"kept", None).unwrap();
    write(&*pool, id(1), "f", b"kept");
    run("zpool", &["export", lab.zpool()]);
    assert!(
        matches!(pool.space(), Err(PoolError::Faulted(_))),
        "{:?}",
        pool.space()
    );
    assert!(matches!(
        pool.create(id(2), b"", None),
        Err(PoolError::Faulted(_))
    ));
    assert!(matches!(pool.volumes(), Err(PoolError::Faulted(_))));
    assert!(!pool.warnings().is_empty());
    assert!(pool.maintain().is_err() && pool.recover().is_err());
    run(
        "zpool",
        &[
            "import",
            "-d",
            lab.dir.path().to_str().unwrap(),
            lab.zpool(),
        ],
    );
    pool.maintain().unwrap();
    assert_eq!(read(&*pool, id(1), "f").unwrap(), "kept");
}

/// Every container that starts is such a namespace for a moment, and some services are for as long as they run.
fn copied_namespace(lab: &Lab) {
    let pool = lab.open();
    pool.maintain().unwrap();
    let empty = lab.everything();
    pool.create(id(1), b"", None).unwrap();
    write(&*pool, id(1), "f", b"first");
    pool.snapshot(id(1), &tag("s")).unwrap();
    pool.clone_from((id(1), &tag("s")), id(2), b"", None)
        .unwrap();
    let mut copy = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg("echo; read go")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(copy.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    write(&*pool, id(1), "f", b"second");
    pool.roll_back(id(1), &tag("s")).unwrap();
    assert_eq!(read(&*pool, id(1), "f").unwrap(), "first");
    pool.destroy_snapshot(id(1), &tag("s")).unwrap();
    assert_eq!(read(&*pool, id(2), "f").unwrap(), "first");
    pool.recover().unwrap();
    for n in 1..=2 {
        pool.destroy(id(n)).unwrap();
    }
    assert_eq!(lab.everything(), empty);
    drop(copy.stdin.take());
    copy.wait().unwrap();
}

/// A bind mount in another namespace, as a container has one, keeps a dataset busy, and nothing here ends it.
fn mounted_elsewhere(lab: &Lab) {
    let pool = lab.open();
    pool.maintain().unwrap();
    let empty = lab.everything();
    pool.create(id(1), b"", None).unwrap();
    write(&*pool, id(1), "f", b"seen");
    let there = lab.path("there");
    fs::create_dir(&there).unwrap();
    let mut elsewhere = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-ec"])
        .args(["mount --bind \"$0\" \"$1\"; echo; read go; cat \"$1/f\""])
        .args([pool.tree(id(1)).unwrap().to_str().unwrap(), &there])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(elsewhere.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    pool.destroy(id(1)).unwrap();
    assert!(pool.volumes().unwrap().is_empty());
    assert_eq!(lab.everything().len(), empty.len() + 1, "hidden, not gone");
    pool.create(id(1), b"anew", None).unwrap();
    assert_eq!(read(&*pool, id(1), "f"), None, "the id is free again");
    pool.recover().unwrap();
    elsewhere.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    assert_eq!(text, "seen", "it was not taken from under its user");
    elsewhere.wait().unwrap();
    pool.maintain().unwrap();
    pool.destroy(id(1)).unwrap();
    assert_eq!(lab.everything(), empty);
}

fn neighbours(lab: &Lab) {
    let mine = format!("{}/mine", lab.zpool());
    let mount = format!("mountpoint={}", lab.path("mine"));
    // It is mounted, and zfs-fuse must not mount two things at once (see the pool's own commands).
    let lock = ["--no-fork", "/var/lock/zfs/zfs_lock", "zfs"];
    let (program, lock) = match lab.kind {
        Kind::Fuse => ("flock", &lock[..]),
        _ => ("zfs", &[][..]),
    };
    run(program, &[lock, &["create", "-o", &mount, &mine]].concat());
    fs::write(format!("{}/f", lab.path("mine")), "mine").unwrap();
    run("zfs", &["snapshot", &format!("{mine}@s")]);
    let pool = lab.open();
    run(
        "zfs",
        &[
            "create",
            "-o",
            "mountpoint=none",
            &format!("{}/mine", lab.dataset()),
        ],
    );
    let listing = || {
        run(
            "zfs",
            &[
                "list",
                "-H",
                "-r",
                "-t",
                "all",
                "-o",
                "name,mountpoint,canmount",
                lab.zpool(),
            ],
        )
    };
    let before = listing();
    pool.create(id(1), b"", None).unwrap();
    pool.snapshot(id(1), &tag("s")).unwrap();
    pool.roll_back(id(1), &tag("s")).unwrap();
    pool.recover().unwrap();
    pool.maintain().unwrap();
    pool.destroy(id(1)).unwrap();
    assert!(pool.volumes().unwrap().is_empty());
    assert_eq!(listing(), before);
    let mut text = String::new();
    File::open(format!("{}/f", lab.path("mine")))
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "mine");
}

/// A small file system for a host, and what takes it down.
struct SmallHost {
    dir: String,
}

impl SmallHost {
    fn new(lab: &Lab, size: &str) -> Self {
        let dir = lab.path("host");
        fs::create_dir(&dir).unwrap();
        let options = format!("size={size}");
        run("mount", &["-t", "tmpfs", "-o", &options, "host", &dir]);
        Self { dir }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.dir)
    }

    /// Takes all the room there is but `left` bytes.
    fn fill_but(&self, left: u64) {
        let found = rustix::fs::statvfs(&self.dir).unwrap();
        let free = found.f_bavail * found.f_frsize;
        let ballast = File::create(self.path("ballast")).unwrap();
        let flags = rustix::fs::FallocateFlags::empty();
        rustix::fs::fallocate(&ballast, flags, 0, free - left).unwrap();
    }

    fn pool(&self, lab: &Lab) -> BtrfsPool {
        let mount = lab.path("mnt");
        BtrfsPool::open_loop(self.path("image").as_ref(), mount.as_ref(), limits()).unwrap()
    }
}

impl Drop for SmallHost {
    fn drop(&mut self) {
        attempt("umount", &[self.dir.replace("/host", "/mnt").as_str()]);
        let image = self.path("image");
        for device in run("losetup", &["-n", "-O", "NAME", "-j", &image]).lines() {
            attempt("losetup", &["-d", device.trim()]);
        }
        attempt("umount", &["-l", &self.dir]);
    }
}

/// What is written, and whether the pool still takes writes.
fn write_much(pool: &dyn Pool, mib: u64) -> bool {
    let tree = pool.tree(id(1)).unwrap();
    for n in 0..mib / 16 {
        let Ok(mut file) = File::create(tree.join(format!("much-{n}"))) else {
            break;
        };
        if file.write_all(&noise(16 * MIB)).is_err() || file.sync_all().is_err() {
            break;
        }
    }
    let dir = File::open(&tree).unwrap();
    fs::write(tree.join("after"), b"x").is_ok() && rustix::fs::syncfs(&dir).is_ok() && {
        let found = rustix::fs::statvfs(&tree).unwrap();
        !found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY)
    }
}

fn full_host(lab: &Lab) {
    let host = SmallHost::new(lab, "700m");
    let pool = host.pool(lab);
    pool.create(id(1), b"", None).unwrap();
    pool.maintain().unwrap();
    host.fill_but(0);
    let found = fs::metadata(host.path("image")).unwrap();
    assert!(found.blocks() * 512 >= found.len(), "all of it is reserved");
    assert!(write_much(&pool, 128));
    let file = pool.tree(id(1)).unwrap().join("much-0");
    fs::remove_file(file).unwrap();
    pool.maintain().unwrap();
    write(&pool, id(1), "f", b"goes on");
    assert_eq!(read(&pool, id(1), "f").unwrap(), "goes on");
}

/// The file of an earlier version has holes, and nothing may be left to fill them with.
fn comes_back(lab: &Lab) {
    let host = SmallHost::new(lab, "700m");
    let image = host.path("image");
    File::create(&image).unwrap().set_len(400 * MIB).unwrap();
    run("mkfs.btrfs", &["-q", &image]);
    host.fill_but(64 * MIB);
    let pool = host.pool(lab);
    pool.create(id(1), b"", None).unwrap();
    write(&pool, id(1), "f", b"kept");
    pool.snapshot(id(1), &tag("s")).unwrap();
    assert!(pool.warnings().iter().any(|one| one.contains("no room")));
    assert!(!write_much(&pool, 320), "the pool has met the full host");
    assert!(matches!(pool.maintain(), Err(PoolError::Faulted(_))));
    fs::remove_file(host.path("ballast")).unwrap();
    // Another program's copy of the mount keeps the failed file system alive: it is named, not harmed.
    let mut other = Command::new("unshare")
        .args(["-m", "sh", "-c", "echo; exec sleep 60"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(other.stdout.take().unwrap());
    said.read_line(&mut line).unwrap();
    let Err(PoolError::Faulted(why)) = pool.maintain() else {
        panic!("it is held");
    };
    assert!(why.contains("(pid "), "{why}");
    other.kill().unwrap();
    other.wait().unwrap();
    pool.maintain().unwrap();
    assert_eq!(read(&pool, id(1), "f").unwrap(), "kept");
    write(&pool, id(1), "g", b"goes on");
    pool.roll_back(id(1), &tag("s")).unwrap();
    assert_eq!(read(&pool, id(1), "f").unwrap(), "kept");
    pool.maintain().unwrap();
    let found = fs::metadata(&image).unwrap();
    assert!(found.blocks() * 512 >= found.len(), "it is reserved now");
}
