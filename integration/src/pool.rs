//! A ZFS pool for tests, on a file, behind zfs-fuse: the `zfs` command for real on a machine whose
//! kernel has no ZFS. Ended and removed when dropped.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::world::eventually;

/// One zfs-fuse daemon runs on a machine at a time; whoever holds this file runs it.
const LOCK: &str = "/var/tmp/teu-test-zfs-fuse.lock";

/// A running zfs-fuse with one pool.
#[derive(Debug)]
pub struct ZfsFuse {
    pool: String,
    daemon: Child,
    directory: tempfile::TempDir,
}

impl ZfsFuse {
    /// Why it cannot run here, if so.
    #[must_use]
    pub fn cannot_start() -> Option<String> {
        if Path::new("/dev/zfs").exists() {
            return Some("this machine has OpenZFS: name a dataset in TEU_TEST_POOL".to_owned());
        }
        let found = Command::new("sh")
            .args(["-c", "command -v zfs-fuse"])
            .output();
        let there = found.is_ok_and(|found| found.status.success());
        (!there).then(|| "zfs-fuse is not installed".to_owned())
    }

    /// Starts the daemon (waiting for another test's to end) and makes a pool of 1 GiB.
    #[must_use]
    pub fn start() -> Self {
        let lock = fs::File::create(LOCK).expect("a lock file");
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("the lock");
        let directory = tempfile::Builder::new()
            .prefix("teu-zfs-")
            .tempdir_in("/var/tmp")
            .expect("a directory");
        let mut daemon = Command::new("zfs-fuse")
            .args(["--no-daemon", "--no-kstat-mount", "--pidfile"])
            .arg(directory.path().join("pid"))
            // It holds the lock for as long as it runs, also if it outlives this process.
            .stdin(lock)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("zfs-fuse starts");
        eventually("zfs-fuse answers", || ran("zpool", &["list"]));
        // If another one answered, ours has ended by itself.
        let ended = daemon.try_wait().expect("its state");
        assert!(
            ended.is_none(),
            "zfs-fuse: {ended:?}; does one run already?"
        );
        let file = directory.path().join("disk");
        let disk = fs::File::create(&file).expect("a file");
        disk.set_len(1 << 30).expect("a sparse file");
        let pool = format!("teutest{}", std::process::id());
        let file = file.display().to_string();
        // In nobody's list of pools to open at the next start, should this run be killed.
        let uncached = ["create", "-o", "cachefile=none", "-O", "mountpoint=none"];
        let made = ran("zpool", &[&uncached[..], &[&pool, &file]].concat());
        assert!(made, "zpool create");
        Self {
            pool,
            daemon,
            directory,
        }
    }

    /// Its pool's name.
    #[must_use]
    pub fn pool(&self) -> &str {
        &self.pool
    }
}

impl Drop for ZfsFuse {
    fn drop(&mut self) {
        ran("zpool", &["destroy", "-f", &self.pool]);
        crate::world::kill(self.daemon.id(), rustix::process::Signal::TERM);
        let _ = self.daemon.wait();
        let _ = fs::remove_file(self.directory.path().join("disk"));
    }
}

fn ran(program: &str, arguments: &[&str]) -> bool {
    let done = Command::new(program).args(arguments).output();
    done.is_ok_and(|done| done.status.success())
}
