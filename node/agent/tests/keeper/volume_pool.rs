//! A real pool of btrfs volumes where things go wrong half-way: what somebody made in a tree by hand,
//! imports that fail or meet recovery, roll-backs of a pool that goes away under them. And containers,
//! which go on in any case, and see the tree that is current as soon as there is one.

use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
    time::Duration,
};

use teu_node::volumes::pool::{BtrfsPool, LoopLimits, Pool, PoolError, Receive};
use teu_protocol::ids::{Tag, VolumeId};

/// One failpoint has one callback in the whole process: whoever sets one works alone.
pub(crate) static FAILPOINTS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A failpoint's callback, until this is dropped. It is called on the thread of that name only, and
/// once.
pub(crate) struct At(&'static str);

impl At {
    pub(crate) fn new(
        point: &'static str,
        on: &'static str,
        act: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let done = AtomicBool::new(false);
        let callback = move || {
            let is_there = thread::current().name() == Some(on);
            if is_there && !done.swap(true, Ordering::SeqCst) {
                act();
            }
        };
        fail::cfg_callback(point, callback).unwrap();
        Self(point)
    }
}

impl Drop for At {
    fn drop(&mut self) {
        fail::remove(self.0);
    }
}

pub(crate) struct Lab {
    pub(crate) mount_dir: PathBuf,
    pub(crate) file: PathBuf,
}

impl Lab {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            mount_dir: dir.join("volumes/pool"),
            file: dir.join("pool.btrfs"),
        }
    }

    pub(crate) fn open(&self) -> Result<BtrfsPool, PoolError> {
        let limits = LoopLimits {
            initial: 256 << 20,
            headroom: 0,
            max: 256 << 20,
            host_reserve: 0,
        };
        BtrfsPool::open_loop(&self.file, &self.mount_dir, limits)
    }

    /// As an administrator's hand does it: the containers keep theirs.
    pub(crate) fn unmount(&self) {
        run("umount", &[Path::new("-l"), &self.mount_dir]);
    }

    pub(crate) fn entries(&self, dir: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.mount_dir.join(dir)).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    fn subvolumes(&self) -> usize {
        let args = [Path::new("subvolume"), Path::new("list"), &self.mount_dir];
        run("btrfs", &args).lines().count()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-l")
            .arg(&self.mount_dir)
            .output();
        let found = Command::new("losetup").arg("-j").arg(&self.file).output();
        let found = String::from_utf8(found.unwrap().stdout).unwrap();
        for device in found.lines().filter_map(|line| line.split_once(':')) {
            let _ = Command::new("losetup").args(["-d", device.0]).status();
        }
    }
}

fn run(program: &str, args: &[&Path]) -> String {
    let out = Command::new(program).args(args).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

pub(crate) fn id(number: u8) -> VolumeId {
    VolumeId::from_bytes([number; 16])
}

pub(crate) fn tag(name: &str) -> Tag {
    name.parse().unwrap()
}

pub(crate) fn write(pool: &dyn Pool, number: u8, version: &str) {
    let tree = pool.tree(id(number)).unwrap();
    fs::write(tree.join("version"), format!("{version}\n")).unwrap();
}

fn version(pool: &dyn Pool, number: u8) -> String {
    let tree = pool.tree(id(number)).unwrap();
    fs::read_to_string(tree.join("version")).unwrap()
}

fn names(pool: &dyn Pool, number: u8) -> Vec<String> {
    let all = pool.snapshots(id(number)).unwrap();
    all.iter().map(|one| one.name.to_string()).collect()
}

/// Subvolumes in subvolumes, at some depth, one of them read-only, and a link that leads out.
fn nest(tree: &Path, trap: &Path) {
    let create = |path: &str| {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let args = [
            Path::new("-q"),
            Path::new("subvolume"),
            Path::new("create"),
            &path,
        ];
        run("btrfs", &args);
    };
    create("a");
    create("deep/er/b");
    create("deep/er/b/in/c");
    create("deep/er/b/in/c/d");
    symlink(trap, tree.join("deep/er/b/out")).unwrap();
    fs::write(tree.join("deep/er/b/in/c/d/file"), "x").unwrap();
    let frozen = tree.join("a/frozen");
    let args = ["-q", "subvolume", "snapshot", "-r"].map(Path::new);
    let deep = tree.join("deep/er/b");
    run("btrfs", &[&args[..], &[&deep, &frozen]].concat());
}

#[test]
fn subvolumes_that_somebody_made_in_a_volume_do_not_keep_it() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::new(dir.path());
    let pool = lab.open().unwrap();
    pool.create(id(1), b"one", Some(64 << 20)).unwrap();
    pool.create(id(2), b"two", None).unwrap();
    write(&pool, 2, "other");
    write(&pool, 1, "old");
    // Where the link leads: another volume.
    let (tree, trap) = (pool.tree(id(1)).unwrap(), pool.tree(id(2)).unwrap());
    nest(&tree, &trap);
    pool.snapshot(id(1), &tag("s")).unwrap();
    write(&pool, 1, "new");
    assert_eq!(lab.subvolumes(), 2 + 5 + 1);
    pool.roll_back(id(1), &tag("s")).unwrap();
    assert_eq!(version(&pool, 1), "old\n");
    assert_eq!(lab.entries("gone").len(), 1, "the old tree");
    pool.recover().unwrap();
    assert_eq!(lab.subvolumes(), 2 + 1);
    // Read-only by hand: it cannot be moved as it is.
    fs::remove_dir_all(tree.join("deep")).unwrap();
    fs::remove_dir(tree.join("a")).unwrap();
    nest(&tree, &trap);
    let args = ["property", "set", "-ts"].map(Path::new);
    let last = [tree.as_path(), Path::new("ro"), Path::new("true")];
    run("btrfs", &[&args[..], &last].concat());
    pool.roll_back(id(1), &tag("s")).unwrap();
    pool.recover().unwrap();
    assert_eq!(lab.subvolumes(), 2 + 1);
    // What a killed agent was making, with the like in it.
    let making = lab.mount_dir.join("making").join(id(3).to_string());
    fs::create_dir(&making).unwrap();
    let half = making.join("tree");
    let create = ["-q", "subvolume", "create"].map(Path::new);
    run("btrfs", &[&create[..], &[&half]].concat());
    nest(&half, &trap);
    pool.recover().unwrap();
    assert_eq!(lab.entries("making").len(), 0);
    // And the end of it all.
    fs::remove_dir_all(tree.join("deep")).unwrap();
    fs::remove_dir(tree.join("a")).unwrap();
    nest(&tree, &trap);
    pool.destroy(id(1)).unwrap();
    pool.recover().unwrap();
    assert_eq!((lab.subvolumes(), lab.entries("gone").len()), (1, 0));
    assert_eq!(version(&pool, 2), "other\n");
}

#[test]
fn what_cannot_be_removed_yet_is_removed_later() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::new(dir.path());
    let pool = lab.open().unwrap();
    pool.create(id(1), b"one", None).unwrap();
    let tree = pool.tree(id(1)).unwrap();
    // The kernel keeps the one that a mount shows by default (as it keeps one that is being sent).
    let default = |number: &str| {
        let args = ["subvolume", "set-default", number].map(Path::new);
        run("btrfs", &[&args[..], &[&lab.mount_dir]].concat());
    };
    let number = teu_node::sys::btrfs::subvolume(&tree).unwrap().id;
    default(&number.to_string());
    pool.destroy(id(1)).unwrap();
    assert!(pool.volumes().unwrap().is_empty(), "nobody sees it");
    pool.recover().unwrap();
    pool.maintain().unwrap();
    assert_eq!(lab.subvolumes(), 1);
    default("5");
    pool.maintain().unwrap();
    assert_eq!((lab.subvolumes(), lab.entries("gone").len()), (0, 0));
}

/// Two volumes with the same base; a stream of what changed in the first since.
fn with_changes(lab: &Lab, dir: &Path) -> (Arc<BtrfsPool>, PathBuf) {
    let pool = Arc::new(lab.open().unwrap());
    pool.create(id(1), b"one", None).unwrap();
    let send = |name: &str, base: Option<&Tag>| {
        let file = dir.join(name);
        let out: OwnedFd = fs::File::create(&file).unwrap().into();
        pool.send(id(1), &tag(name), base, out).unwrap();
        file
    };
    write(&*pool, 1, "base");
    pool.snapshot(id(1), &tag("base")).unwrap();
    let whole = send("base", None);
    write(&*pool, 1, "changed");
    pool.snapshot(id(1), &tag("more")).unwrap();
    let changes = send("more", Some(&tag("base")));
    receive(&pool, &whole, "base", None).unwrap();
    (pool, changes)
}

fn receive(pool: &BtrfsPool, file: &Path, name: &str, base: Option<&str>) -> Result<(), PoolError> {
    let (name, base) = (tag(name), base.map(tag));
    let receive = Receive {
        id: id(2),
        record: b"two",
        quota: Some(64 << 20),
        name: &name,
        base: base.as_ref(),
    };
    pool.receive(receive, fs::File::open(file).unwrap().into())
}

/// On a thread that a failpoint knows.
fn receive_changes(pool: &Arc<BtrfsPool>, file: &Path) -> Receiver<Result<(), PoolError>> {
    let (pool, file) = (Arc::clone(pool), file.to_owned());
    let (answer, answered) = channel();
    let work = move || {
        answer
            .send(receive(&pool, &file, "more", Some("base")))
            .unwrap()
    };
    let thread = thread::Builder::new().name("import".to_owned());
    thread.spawn(work).unwrap();
    answered
}

#[tokio::test]
async fn an_import_that_fails_leaves_nothing_that_rolls_back_later() {
    let _alone = FAILPOINTS.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::new(dir.path());
    let (pool, changes) = with_changes(&lab, dir.path());
    // The new tree is made; its quota cannot be set.
    let mount_dir = lab.mount_dir.clone();
    let at = At::new("volume-btrfs-rollback-next", "import", move || {
        let args = ["quota", "disable"].map(Path::new);
        run("btrfs", &[args[0], args[1], &mount_dir]);
    });
    let failed = receive_changes(&pool, &changes).recv().unwrap();
    drop(at);
    assert!(failed.is_err());
    let args = ["quota", "enable"].map(Path::new);
    run("btrfs", &[args[0], args[1], &lab.mount_dir]);
    assert_eq!(names(&*pool, 2), ["base"]);
    write(&*pool, 2, "written since");
    pool.recover().unwrap();
    assert_eq!(version(&*pool, 2), "written since\n");
    // It can be done again.
    receive_changes(&pool, &changes).recv().unwrap().unwrap();
    assert_eq!(
        (version(&*pool, 2).as_str(), names(&*pool, 2).len()),
        ("changed\n", 2)
    );
}

#[tokio::test]
async fn recovery_leaves_an_import_alone_that_is_about_to_end() {
    let _alone = FAILPOINTS.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::new(dir.path());
    let (pool, changes) = with_changes(&lab, dir.path());
    let (reached, has_reached) = channel();
    let (recovered, has_recovered) = channel();
    let has_recovered = std::sync::Mutex::new(has_recovered);
    // Recovery would finish what it takes for half done. It does not get to it, however long it has.
    let _at = At::new("volume-btrfs-rollback-next", "import", move || {
        reached.send(()).unwrap();
        let waited = has_recovered.lock().unwrap();
        let _: Result<(), _> = waited.recv_timeout(Duration::from_secs(1));
    });
    let done = receive_changes(&pool, &changes);
    has_reached.recv().unwrap();
    pool.recover().unwrap();
    let _ = recovered.send(());
    done.recv().unwrap().unwrap();
    assert_eq!(version(&*pool, 2), "changed\n");
    assert_eq!(names(&*pool, 2), ["base", "more"]);
}
