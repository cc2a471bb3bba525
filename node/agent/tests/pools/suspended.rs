//! A pool whose disk takes nothing any more, which the kernel suspends: whoever asks waits one deadline at
//! most, leaves nothing behind, and goes on when somebody has mended it.
//!
//! Owner: the pools' tests. Of OpenZFS only: zfs-fuse's `zpool clear` cannot mend a suspended pool, so it would
//! be left to all other cases. (Its commands refuse at once what OpenZFS's wait for.)

use std::{
    fs::{self, File},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use teu_node::volumes::pool::PoolError;

use super::{
    cases::{Case, id, read, snapshot_names, tag, write},
    lab::{self, Lab, MIB, attempt, create_zpool, run},
};

pub const ALL: &[Case] = &[("a_suspended_pool_costs_one_deadline", suspended)];

/// The deadline of the pool, and what may come before it on a slow machine.
const AT_MOST: Duration = Duration::from_secs(100);
/// What needs no waiting, on such a machine.
const AT_ONCE: Duration = Duration::from_secs(20);

/// A pool of 512 MiB on a disk of 96, and who fills it.
struct SmallDisk {
    mount: String,
    zpool: String,
    writer: Child,
}

impl SmallDisk {
    fn mend(&self) {
        run("mount", &["-o", "remount,size=600m", &self.mount]);
        run("zpool", &["clear", &self.zpool]);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        attempt("mount", &["-o", "remount,size=600m", &self.mount]);
        attempt("zpool", &["clear", &self.zpool]);
        let _ = self.writer.kill();
        let _ = self.writer.wait();
        attempt("zpool", &["destroy", "-f", &self.zpool]);
        attempt("umount", &[&self.mount]);
    }
}

/// Threads of this process that wait for the kernel on behalf of a pool.
fn waiting_threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "pool-call").count()
}

fn suspended(lab: &Lab) {
    let (mount, mnt) = (lab.path("small"), lab.path("small-mnt"));
    for dir in [&mount, &mnt] {
        fs::create_dir(dir).unwrap();
    }
    run("mount", &["-t", "tmpfs", "-o", "size=96m", "tmpfs", &mount]);
    let (image, zpool) = (format!("{mount}/image"), format!("{}s", lab.zpool()));
    File::create(&image).unwrap().set_len(512 * MIB).unwrap();
    create_zpool(&zpool, &image);
    let pool = lab::open(&format!("zfs {zpool}/teu {mnt}")).unwrap();
    pool.create(id(1), b"r", None).unwrap();
    write(&*pool, id(1), "f", b"kept");
    pool.snapshot(id(1), &tag("s")).unwrap();
    let big = pool.tree(id(1)).unwrap().join("big");
    let writer = Command::new("dd")
        .args(["if=/dev/urandom", "bs=1M", "count=200", "conv=fsync"])
        .arg(format!("of={}", big.display()))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut disk = SmallDisk {
        mount,
        zpool,
        writer,
    };

    // Nobody knows when the disk is full, so what is asked meanwhile may succeed, hang, or be refused.
    let end = Instant::now() + AT_MOST;
    loop {
        let asked = Instant::now();
        let told = pool.usage(id(1));
        assert!(asked.elapsed() < AT_MOST, "{:?}", asked.elapsed());
        match told {
            Ok(_) => assert!(asked < end, "it is never suspended"),
            Err(PoolError::Faulted(_)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let asked = Instant::now();
    for n in 2..6 {
        for told in [
            pool.create(id(n), b"", None),
            pool.snapshot(id(1), &tag("t")),
            pool.destroy(id(1)),
            pool.usage(id(1)).map(drop),
            pool.space().map(drop),
            pool.maintain(),
            pool.recover(),
        ] {
            assert!(matches!(told, Err(PoolError::Faulted(_))), "{told:?}");
        }
    }
    assert!(!pool.warnings().is_empty());
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    // One of ours, and perhaps one of the case that runs beside this one.
    assert!(waiting_threads() <= 2, "{}", waiting_threads());

    disk.mend();
    assert!(disk.writer.wait().unwrap().success(), "it writes on");
    let end = Instant::now() + AT_MOST;
    while let Err(error) = pool.maintain() {
        assert!(Instant::now() < end, "{error}");
        thread::sleep(Duration::from_millis(100));
    }
    while waiting_threads() > 0 {
        assert!(Instant::now() < end, "a thread is left");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(read(&*pool, id(1), "f").unwrap(), "kept");
    assert_eq!(snapshot_names(&*pool, id(1)), ["s"]);
    pool.create(id(2), b"", None).unwrap();
    assert_eq!(pool.volumes().unwrap().len(), 2);
}
