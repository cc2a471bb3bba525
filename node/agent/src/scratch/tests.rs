//! A small scratch file system: its bounds hold, nothing of a container is left, and a full host is not met.

use std::{
    io::Write,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::Command,
    sync::{Mutex, PoisonError},
};

use super::*;

/// Mounts are this machine's.
static TURN: Mutex<()> = Mutex::new(());

struct Lab {
    dir: tempfile::TempDir,
    scratch: Option<Scratch>,
}

impl Lab {
    /// `None`: this machine cannot have one.
    fn new() -> Option<Self> {
        let root = rustix::process::geteuid().is_root();
        if !root || no_embedded_pool().is_some() {
            eprintln!("skipped: needs root and a btrfs");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("containers")).unwrap();
        let mut lab = Self { dir, scratch: None };
        lab.open();
        Some(lab)
    }

    fn open(&mut self) -> Scratch {
        self.scratch = None;
        let limits = LoopLimits {
            initial: 256 * MIB,
            headroom: 64 * MIB,
            max: 512 * MIB,
            host_reserve: 64 * MIB,
        };
        let scratch = Scratch::sized(self.dir.path(), limits);
        assert_eq!(scratch.unbounded(), None);
        self.scratch = Some(scratch.clone());
        scratch
    }

    fn container(&self, scratch: &Scratch, n: u8, bound: u64) -> (ContainerId, PathBuf) {
        let id = ContainerId::from_bytes([n; 16]);
        let dir = self.dir.path().join("containers").join(id.to_string());
        fs::create_dir(&dir).unwrap();
        assert!(scratch.make(id, &dir, Some(bound)).unwrap());
        (id, dir)
    }

    fn left(&self) -> usize {
        let count = |kind| {
            fs::read_dir(self.dir.path().join("scratch").join(kind))
                .unwrap()
                .count()
        };
        count(LAYERS) + count(LOGS)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.scratch = None;
        let run = |program: &str, args: &[&str]| Command::new(program).args(args).output().unwrap();
        let path = |name: &str| self.dir.path().join(name).to_str().unwrap().to_owned();
        run("umount", &[&path("scratch")]);
        let shown = run(
            "losetup",
            &["-n", "-O", "NAME", "-j", &path("scratch.btrfs")],
        );
        for device in String::from_utf8_lossy(&shown.stdout).lines() {
            run("losetup", &["-d", device.trim()]);
        }
    }
}

/// Writes until it may not; how many MiB went in.
fn fill(dir: &Path, most: usize) -> usize {
    let mut file = File::create(dir.join("big")).unwrap();
    let block = vec![7; MIB as usize];
    for n in 0..most {
        if file
            .write_all(&block)
            .and_then(|()| file.sync_data())
            .is_err()
        {
            return n;
        }
    }
    most
}

#[test]
fn a_container_fills_its_own_bound_and_nobody_elses() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(lab) = Lab::new() else { return };
    let scratch = lab.scratch.clone().unwrap();
    let (a, dir) = lab.container(&scratch, 1, 32 * MIB);
    let (b, other) = lab.container(&scratch, 2, 32 * MIB);
    let went_in = fill(&dir.join("upper"), 64);
    assert!((24..=32).contains(&went_in), "{went_in} MiB of 32");
    // Its log has a bound of its own, and the neighbour all of its.
    fs::write(dir.join("logs/1"), "still told").unwrap();
    assert!(fill(&other.join("upper"), 24) >= 24);
    // What is removed can be written again.
    fs::remove_file(dir.join("upper/big")).unwrap();
    assert!(fill(&dir.join("upper"), 16) >= 16);
    // The whole is reserved on the host.
    let file = fs::metadata(lab.dir.path().join("scratch.btrfs")).unwrap();
    assert!(file.blocks() * 512 >= file.len());
    for (id, dir) in [(a, dir), (b, other)] {
        scratch.remove(id).unwrap();
        scratch.remove(id).unwrap();
        fs::remove_dir_all(dir).unwrap();
    }
    assert_eq!(lab.left(), 0);
}

#[test]
fn empty_files_are_bounded_too() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(lab) = Lab::new() else { return };
    let scratch = lab.scratch.clone().unwrap();
    let (_, dir) = lab.container(&scratch, 1, 16 * MIB);
    let made = (0..400_000)
        .take_while(|n| File::create(dir.join(format!("upper/{n}"))).is_ok())
        .count();
    assert!(made < 400_000, "no bound for files");
}

#[test]
fn what_an_earlier_agent_left_is_swept_and_an_unused_file_begins_anew() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut lab) = Lab::new() else { return };
    let scratch = lab.scratch.clone().unwrap();
    let (_, kept) = lab.container(&scratch, 1, 32 * MIB);
    let (_, gone) = lab.container(&scratch, 2, 32 * MIB);
    fs::write(kept.join("upper/f"), "kept").unwrap();
    fs::remove_dir_all(gone).unwrap();
    drop(scratch);
    let scratch = lab.open();
    scratch.sweep(&lab.dir.path().join("containers"));
    assert_eq!(lab.left(), 2);
    assert_eq!(fs::read_to_string(kept.join("upper/f")).unwrap(), "kept");
}

#[test]
fn making_a_place_takes_less_than_a_millisecond() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(lab) = Lab::new() else { return };
    let scratch = lab.scratch.clone().unwrap();
    let mut took: Vec<_> = (1..=100)
        .map(|n| {
            let began = std::time::Instant::now();
            lab.container(&scratch, n, 32 * MIB);
            began.elapsed()
        })
        .collect();
    took.sort();
    eprintln!("p50 {:?}, p90 {:?}", took[50], took[90]);
    assert!(took[50] < Duration::from_millis(1), "{:?}", took[50]);
}
