//! A process killed at every failpoint, every time it is reached: afterwards each change is done or
//! not begun, nothing is leaked, what was acknowledged is there, and the rest can go on.
//!
//! Owner: the pools' tests. The same script runs once undisturbed, with the pool's whole state noted after
//! each step; then, a trial for each failpoint, in a child that aborts at its first hit, at its second, and so on.
//! On a machine that is told to be slow (`TEU_TEST_PATIENCE`, as in the guest of deploy/vm, where one kill and
//! what follows takes half a minute) only at the first hit of each.

use std::{
    env, fs,
    io::Write,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, abort},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use libtest_mimic::Trial;

use teu_node::volumes::pool::{Pool, Receive, failpoints::FAILPOINTS};
use teu_protocol::ids::VolumeId;

use super::{
    cases::{id, noise, read, snapshot_names, tag, write},
    lab::{self, Kind, Lab, MIB},
};

/// What makes this binary the child: the pool, the directory of streams, the failpoint, the hit.
const CHILD: &str = "TEU_POOLS_CHILD";

type Step = fn(&dyn Pool, &Path);

fn stream(id: VolumeId, name: &str, base: Option<&str>, pool: &dyn Pool, file: &Path) {
    let out = fs::File::create(file).unwrap();
    pool.send(id, &tag(name), base.map(tag).as_ref(), out.into())
        .unwrap();
}

fn receive(name: &str, base: Option<&str>, pool: &dyn Pool, file: &Path) {
    let (name, base) = (tag(name), base.map(tag));
    let receive = Receive {
        id: id(3),
        record: b"c",
        quota: Some(64 * MIB),
        name: &name,
        base: base.as_ref(),
    };
    pool.receive(receive, fs::File::open(file).unwrap().into())
        .unwrap();
}

/// Each step changes the pool by one call; those of the harness come with the next one.
const SCRIPT: &[Step] = &[
    |pool, _| pool.create(id(1), b"one", Some(64 * MIB)).unwrap(),
    |pool, _| {
        write(pool, id(1), "mark", b"1");
        pool.snapshot(id(1), &tag("s1")).unwrap();
    },
    |pool, _| {
        write(pool, id(1), "mark", b"2");
        pool.snapshot(id(1), &tag("s2")).unwrap();
    },
    |pool, _| pool.set_record(id(1), &noise(20_000)).unwrap(),
    |pool, _| {
        pool.clone_from((id(1), &tag("s1")), id(2), b"two", Some(32 * MIB))
            .unwrap()
    },
    |pool, dir| {
        stream(id(1), "s1", None, pool, &dir.join("full"));
        receive("s1", None, pool, &dir.join("full"));
    },
    |pool, dir| {
        stream(id(1), "s2", Some("s1"), pool, &dir.join("changes"));
        receive("s2", Some("s1"), pool, &dir.join("changes"));
    },
    |pool, _| pool.roll_back(id(1), &tag("s1")).unwrap(),
    |pool, _| pool.set_record(id(1), b"small").unwrap(),
    |pool, _| pool.destroy_snapshot(id(1), &tag("s1")).unwrap(),
    |pool, _| pool.destroy_snapshot(id(3), &tag("s2")).unwrap(),
    |pool, _| pool.destroy(id(3)).unwrap(),
    |pool, _| pool.destroy(id(1)).unwrap(),
    |pool, _| pool.destroy(id(2)).unwrap(),
];

/// All that can be seen of a pool.
fn state(lab: &Lab, pool: &dyn Pool) -> String {
    let mut text = String::new();
    let mut volumes = pool.volumes().unwrap();
    volumes.sort_by_key(|volume| volume.id);
    for volume in volumes {
        let quota = pool.usage(volume.id).unwrap().quota_bytes;
        let record = volume
            .record
            .map(|record| (record.len(), record.first().copied()));
        let (snapshots, mark) = (
            snapshot_names(pool, volume.id),
            read(pool, volume.id, "mark"),
        );
        text += &format!(
            "{} {record:?} {quota:?} {snapshots:?} {mark:?}\n",
            volume.id.short()
        );
    }
    text + &lab.everything().join("\n")
}

/// The state after each number of steps.
fn undisturbed(kind: Kind) -> Vec<String> {
    let lab = Lab::new(kind);
    let pool = lab.open();
    let mut states = vec![state(&lab, &*pool)];
    for step in SCRIPT {
        step(&*pool, lab.dir.path());
        pool.recover().unwrap();
        states.push(state(&lab, &*pool));
    }
    states
}

/// The failpoints of a kind of pool.
pub fn failpoints(kind: Kind) -> Vec<&'static str> {
    let prefix = if kind.is_zfs() {
        "volume-zfs-"
    } else {
        "volume-btrfs-"
    };
    let own = FAILPOINTS
        .iter()
        .copied()
        .filter(|name| name.starts_with(prefix));
    own.filter(|name| kind == Kind::Loop || !name.contains("-grow-"))
        .collect()
}

/// One for each failpoint of a kind of pool.
pub fn trials(kind: Kind) -> Vec<Trial> {
    let trial = |failpoint| {
        let name = format!("{}::killed_at::{failpoint}", kind.name());
        Trial::test(name, move || {
            let _turn = lab::turn(kind);
            every_hit(kind, failpoint);
            Ok(())
        })
    };
    failpoints(kind).into_iter().map(trial).collect()
}

/// What the undisturbed run showed, which is the same for all trials of a kind.
fn states(kind: Kind) -> &'static [String] {
    static STATES: [OnceLock<Vec<String>>; Kind::ALL.len()] =
        [const { OnceLock::new() }; Kind::ALL.len()];
    let place = Kind::ALL.iter().position(|one| *one == kind).unwrap();
    STATES[place].get_or_init(|| undisturbed(kind))
}

fn every_hit(kind: Kind, failpoint: &str) {
    assert!(fail::has_failpoints(), "built without the failpoints");
    let is_slow = env::var("TEU_TEST_PATIENCE").is_ok_and(|times| times != "1");
    let most = if is_slow { 1 } else { u32::MAX };
    let states = states(kind);
    let mut kills = 0;
    while kills < most && killed(kind, states, failpoint, kills + 1) {
        kills += 1;
    }
    assert!(kills > 0, "{failpoint} is never reached");
}

/// Whether the child got to that hit, and so was killed.
fn killed(kind: Kind, states: &[String], failpoint: &str, hit: u32) -> bool {
    let lab = Lab::new(kind);
    let spec = format!(
        "{}|{}|{failpoint}|{hit}",
        lab.spec(),
        lab.dir.path().display()
    );
    let done = Command::new(env::current_exe().unwrap())
        .env(CHILD, spec)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    if done.status.success() {
        return false;
    }
    assert_eq!(done.status.signal(), Some(6), "{failpoint} {hit}: {said}");
    let acknowledged = fs::read(lab.dir.path().join("acknowledged"))
        .unwrap_or_default()
        .len();
    let pool = lab.open();
    pool.recover().unwrap();
    let found = state(&lab, &*pool);
    let expected = [
        &states[acknowledged],
        &states[(acknowledged + 1).min(SCRIPT.len())],
    ];
    // The harness's own write may have come before the kill.
    let same = |expected: &str| unmarked(&found) == unmarked(expected);
    let steps = match (same(expected[0]), same(expected[1])) {
        (_, true) => acknowledged + 1,
        (true, false) => acknowledged,
        _ => panic!(
            "killed at {failpoint}, hit {hit}, after {acknowledged} steps\n--- found\n{found}\n--- neither\n{}\n--- nor\n{}",
            expected[0], expected[1]
        ),
    };
    for step in &SCRIPT[steps.min(SCRIPT.len())..] {
        step(&*pool, lab.dir.path());
        pool.recover().unwrap();
    }
    assert_eq!(
        state(&lab, &*pool),
        states[SCRIPT.len()],
        "{failpoint} {hit}: the rest goes on"
    );
    true
}

/// Without volume 1's mark while it is being written by the script.
fn unmarked(state: &str) -> String {
    let line = |line: &str| match line.starts_with("010101010101") {
        true => line
            .split("Some(\"")
            .next()
            .unwrap_or_default()
            .trim_end_matches("None")
            .to_owned(),
        false => line.to_owned(),
    };
    state.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// If this process is such a child: runs the script and does not return.
pub fn run_if_child() {
    let Ok(spec) = env::var(CHILD) else { return };
    let [pool, dir, failpoint, hit] = spec.split('|').collect::<Vec<_>>().try_into().unwrap();
    let (hit, hits): (u32, AtomicU32) = (hit.parse().unwrap(), AtomicU32::new(0));
    fail::cfg_callback(failpoint, move || {
        if hits.fetch_add(1, Ordering::SeqCst) + 1 == hit {
            abort();
        }
    })
    .unwrap();
    let (pool, dir) = (lab::open(pool).unwrap(), Path::new(dir));
    let mut acknowledged = fs::File::create(dir.join("acknowledged")).unwrap();
    for step in SCRIPT {
        step(&*pool, dir);
        acknowledged.write_all(b".").unwrap();
        pool.recover().unwrap();
    }
    std::process::exit(0);
}
