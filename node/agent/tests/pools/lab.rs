//! A fresh pool of each kind, on files of its own, and what takes it down again.
//!
//! Owner: the pools' tests. Invariant: nothing of a lab is left when it is dropped. Only one zfs-fuse can
//! run on a machine: whoever starts one holds [`FUSE_LOCK`].

use std::{
    fs::{self, File},
    io::{Read, Seek},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use teu_node::volumes::pool::{BtrfsPool, LoopLimits, Pool, PoolError, ZfsPool};

pub const MIB: u64 = 1 << 20;
/// Shared with the end-to-end tests.
const FUSE_LOCK: &str = "/var/tmp/teu-test-zfs-fuse.lock";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Loop,
    Dir,
    Fuse,
    OpenZfs,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Loop, Self::Dir, Self::Fuse, Self::OpenZfs];

    pub fn name(self) -> &'static str {
        match self {
            Self::Loop => "btrfs-loop",
            Self::Dir => "btrfs-dir",
            Self::Fuse => "zfs-fuse",
            Self::OpenZfs => "openzfs",
        }
    }

    pub fn is_zfs(self) -> bool {
        matches!(self, Self::Fuse | Self::OpenZfs)
    }

    /// Why it cannot be tested here.
    pub fn missing(self) -> Option<String> {
        let has = |program: &str| {
            let dirs = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"];
            dirs.iter().any(|dir| Path::new(dir).join(program).exists())
        };
        let lacks = |programs: &[&str]| {
            programs
                .iter()
                .find(|program| !has(program))
                .map(|program| format!("`{program}` is not installed"))
        };
        if !rustix::process::geteuid().is_root() {
            return Some("needs root".to_owned());
        }
        match self {
            Self::Loop | Self::Dir => lacks(&["btrfs", "mkfs.btrfs", "losetup"]),
            Self::Fuse if Path::new("/dev/zfs").exists() => {
                Some("the kernel has OpenZFS, which is tested instead".to_owned())
            }
            Self::Fuse => lacks(&["zfs-fuse", "zfs", "zpool"]),
            Self::OpenZfs if !Path::new("/dev/zfs").exists() => {
                Some("the kernel has no OpenZFS (no /dev/zfs)".to_owned())
            }
            Self::OpenZfs => lacks(&["zfs", "zpool"]),
        }
    }
}

/// Runs a program that must succeed; gives what it printed.
pub fn run(program: &str, args: &[&str]) -> String {
    let done = Command::new(program).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {args:?}: {said}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Whether it succeeded.
pub fn attempt(program: &str, args: &[&str]) -> bool {
    let done = Command::new(program).args(args).output();
    done.is_ok_and(|done| done.status.success())
}

/// A ZFS pool on a file. It is in nobody's list of pools to open at the next start, so one that a
/// killed run leaves behind is gone with its daemon, or with the machine.
pub fn create_zpool(name: &str, file: &str) {
    let args = ["create", "-m", "none", "-o", "cachefile=none", name, file];
    run("zpool", &args);
}

/// The one zfs-fuse of this machine, for all labs of this run.
pub struct FuseDaemon {
    child: Child,
    said: File,
}

static DAEMON: Mutex<Option<FuseDaemon>> = Mutex::new(None);

impl FuseDaemon {
    /// Starts it, or looks whether it still runs: a daemon that died is a failure, and not started again.
    fn ensure() {
        let mut daemon = DAEMON.lock().unwrap_or_else(PoisonError::into_inner);
        daemon.get_or_insert_with(Self::start).check();
    }

    fn start() -> Self {
        let mut lock = File::options();
        let lock = lock.create(true).truncate(false).write(true);
        let lock = lock.open(FUSE_LOCK).unwrap();
        if lock.try_lock().is_err() {
            eprintln!("waiting for the end of another zfs-fuse, which holds {FUSE_LOCK}");
            lock.lock().unwrap();
        }
        let said = tempfile::tempfile().unwrap();
        let child = Command::new("zfs-fuse")
            .args(["--no-daemon", "--no-kstat-mount", "--pidfile", "/dev/null"])
            // It holds the lock for as long as it runs, also if it outlives this process.
            .stdin(lock)
            .stdout(Stdio::null())
            .stderr(said.try_clone().unwrap())
            .spawn()
            .unwrap();
        let mut daemon = Self { child, said };
        let end = Instant::now() + Duration::from_secs(60);
        while !attempt("zpool", &["list"]) {
            daemon.check();
            if Instant::now() > end {
                daemon.child.kill().unwrap();
                daemon.child.wait().unwrap();
                panic!("zfs-fuse does not answer: {}", daemon.said());
            }
            thread::sleep(Duration::from_millis(20));
        }
        // If it was another one that answered, ours has ended by itself.
        daemon.check();
        daemon
    }

    fn check(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!(
                "zfs-fuse ended with {status} (does another one run?): {}",
                self.said()
            );
        }
    }

    fn said(&mut self) -> String {
        let mut text = String::new();
        self.said.rewind().unwrap();
        self.said.read_to_string(&mut text).unwrap();
        let told = |line: &&str| !line.starts_with("detected: ");
        text.lines().filter(told).collect::<Vec<_>>().join("; ")
    }

    /// Stops it, at the end of the run.
    pub fn stop() {
        let mut daemon = DAEMON.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut daemon) = daemon.take() {
            let _ = daemon.child.kill();
            daemon.child.wait().unwrap();
        }
    }
}

/// Trials behind zfs-fuse take turns. It closes the descriptor of an unmounted file system twice (destroy_fs in its
/// src/zfs-fuse/fuse_listener.c), a moment after the unmount; in between another may have got that number by
/// being mounted, and then is busy for ever. One agent does not unmount and mount at once; two trials do.
pub fn turn(kind: Kind) -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    (kind == Kind::Fuse).then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

/// One pool's place, and everything below it.
pub struct Lab {
    pub kind: Kind,
    pub dir: tempfile::TempDir,
    zpool: Option<String>,
}

static LABS: AtomicU32 = AtomicU32::new(0);

impl Lab {
    /// With a pool of 512 MiB.
    pub fn new(kind: Kind) -> Self {
        Self::sized(kind, 512 * MIB)
    }

    pub fn sized(kind: Kind, size: u64) -> Self {
        if kind == Kind::Fuse {
            FuseDaemon::ensure();
        }
        let mut lab = Self {
            kind,
            zpool: None,
            dir: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(lab.dir.path().join("mnt")).unwrap();
        let image = lab.path("image");
        match kind {
            Kind::Loop => {}
            Kind::Dir => {
                File::create(&image).unwrap().set_len(size).unwrap();
                run("mkfs.btrfs", &["-q", &image]);
                run("mount", &["-o", "loop", &image, &lab.path("mnt")]);
                fs::create_dir(lab.dir.path().join("mnt/pool")).unwrap();
            }
            Kind::Fuse | Kind::OpenZfs => {
                File::create(&image).unwrap().set_len(size).unwrap();
                let number = LABS.fetch_add(1, Ordering::Relaxed);
                let name = format!("teut{}x{number}", std::process::id());
                create_zpool(&name, &image);
                lab.zpool = Some(name);
            }
        }
        lab
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// What names this pool to another process.
    pub fn spec(&self) -> String {
        match self.kind {
            Kind::Loop => format!("loop {} {}", self.path("image"), self.path("mnt")),
            Kind::Dir => format!("dir {}", self.path("mnt/pool")),
            _ => format!("zfs {} {}", self.dataset(), self.path("mnt")),
        }
    }

    pub fn open(&self) -> Box<dyn Pool> {
        open(&self.spec()).unwrap()
    }

    pub fn zpool(&self) -> &str {
        self.zpool.as_deref().unwrap()
    }

    pub fn dataset(&self) -> String {
        format!("{}/base/teu", self.zpool())
    }

    /// All that there is in the pool's place, whatever it is called: what is not expected is leaked.
    pub fn everything(&self) -> Vec<String> {
        let mut found: Vec<String> = match self.kind {
            Kind::Loop | Kind::Dir => {
                let root = match self.kind {
                    Kind::Dir => PathBuf::from(self.path("mnt/pool")),
                    _ => PathBuf::from(self.path("mnt")),
                };
                let mut found = Vec::new();
                for dir in ["making", "gone", "volumes"] {
                    walk(&root.join(dir), 3, &root, &mut found);
                }
                let shown = run("btrfs", &["subvolume", "list", root.to_str().unwrap()]);
                found.push(format!("{} subvolumes", shown.lines().count()));
                found
            }
            _ => {
                let shown = run(
                    "zfs",
                    &[
                        "list",
                        "-H",
                        "-r",
                        "-t",
                        "all",
                        "-o",
                        "name",
                        &self.dataset(),
                    ],
                );
                let strip = |line: &str| line.replace(self.zpool(), "");
                // A hidden name has a time in it.
                shown
                    .lines()
                    .map(strip)
                    .map(|line| without_marks(&line))
                    .collect()
            }
        };
        found.sort();
        found
    }
}

fn without_marks(line: &str) -> String {
    let Some(start) = line.find("gone:") else {
        return line.to_owned();
    };
    let (head, tail) = line.split_at(start);
    let tail: String = tail
        .split(['.', ':', '@'])
        .filter(|part| part.len() < 15 || !part.bytes().all(|b| b.is_ascii_digit()))
        .collect::<Vec<_>>()
        .join(":");
    format!("{head}{tail}")
}

fn walk(dir: &Path, depth: u32, root: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        found.push(path.strip_prefix(root).unwrap().display().to_string());
        if depth > 1 && path.is_dir() && path.file_name().unwrap() != "tree" {
            walk(&path, depth - 1, root, found);
        }
    }
}

/// Opens what [`Lab::spec`] names.
pub fn open(spec: &str) -> Result<Box<dyn Pool>, PoolError> {
    let parts: Vec<&str> = spec.split(' ').collect();
    Ok(match parts.as_slice() {
        ["loop", file, mount] => Box::new(BtrfsPool::open_loop(
            file.as_ref(),
            mount.as_ref(),
            limits(),
        )?),
        ["dir", dir] => Box::new(BtrfsPool::open_dir(dir.as_ref())?),
        ["zfs", dataset, mount] => Box::new(ZfsPool::open(dataset, mount.as_ref())?),
        _ => unreachable!("{spec}"),
    })
}

/// Small, so that growing happens.
pub fn limits() -> LoopLimits {
    LoopLimits {
        initial: 256 * MIB,
        headroom: 300 * MIB,
        max: 640 * MIB,
        host_reserve: 64 * MIB,
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let mnt = self.path("mnt");
        if let Some(zpool) = &self.zpool {
            attempt("zpool", &["destroy", "-f", zpool]);
        } else {
            attempt("umount", &[&mnt]);
            let shown = Command::new("losetup")
                .args(["-n", "-O", "NAME", "-j", &self.path("image")])
                .output()
                .unwrap();
            for device in String::from_utf8_lossy(&shown.stdout).lines() {
                attempt("losetup", &["-d", device.trim()]);
            }
        }
    }
}
