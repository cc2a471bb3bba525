//! What every pool has to do: each case with a fresh pool.
//!
//! Owner: the pools' tests. Next: `broken.rs` for what somebody breaks, `kill.rs` for kills.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use teu_node::volumes::pool::{Pool, PoolError};
use teu_protocol::ids::{Tag, VolumeId};

use super::lab::{Kind, Lab, MIB};

pub type Case = (&'static str, fn(&Lab));

pub const CASES: &[Case] = &[
    ("a_volume_is_made_once_and_destroyed_once", lives),
    ("errors_name_what_is_missing", missing),
    ("snapshots_may_have_every_name_that_a_tag_may", names),
    ("a_quota_stops_its_writer_and_nobody_else", quota),
    ("usage_is_true", usage),
    (
        "a_roll_back_gives_the_tree_and_discards_what_is_younger",
        roll_back,
    ),
    ("a_roll_back_under_a_bind_mount", roll_back_mounted),
    ("clones_outlive_snapshot_and_volume", clones),
    ("what_was_acknowledged_is_there_after_opening_anew", reopen),
    ("long_records", long_records),
    ("two_pools_side_by_side", two_pools),
];

pub fn id(n: u8) -> VolumeId {
    VolumeId::from_bytes([n; 16])
}

pub fn tag(name: &str) -> Tag {
    name.parse().unwrap()
}

pub fn write(pool: &dyn Pool, id: VolumeId, name: &str, content: &[u8]) {
    let mut file = File::create(pool.tree(id).unwrap().join(name)).unwrap();
    file.write_all(content).unwrap();
    file.sync_all().unwrap();
}

pub fn read(pool: &dyn Pool, id: VolumeId, name: &str) -> Option<String> {
    fs::read_to_string(pool.tree(id).unwrap().join(name)).ok()
}

/// Does not compress, and is the same each time.
pub fn noise(length: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length as usize);
    while (bytes.len() as u64) < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes
}

pub fn snapshot_names(pool: &dyn Pool, id: VolumeId) -> Vec<String> {
    let list = pool.snapshots(id).unwrap();
    list.iter()
        .map(|snapshot| snapshot.name.to_string())
        .collect()
}

/// Writes until it fails.
pub fn fill(dir: &Path) -> (u64, io::Error) {
    let mut file = File::create(dir.join("fill")).unwrap();
    let block = noise(MIB);
    let mut written = 0;
    loop {
        if let Err(error) = file.write_all(&block).and_then(|()| file.sync_data()) {
            return (written, error);
        }
        written += MIB;
        assert!(written < 4096 * MIB, "nothing stops it");
    }
}

fn lives(lab: &Lab) {
    let pool = lab.open();
    pool.recover().unwrap();
    assert!(pool.volumes().unwrap().is_empty());
    pool.create(id(1), b"first", None).unwrap();
    write(&*pool, id(1), "f", b"kept");
    pool.create(id(1), b"other", None).unwrap();
    assert_eq!(read(&*pool, id(1), "f").unwrap(), "kept");
    let volumes = pool.volumes().unwrap();
    assert_eq!((volumes.len(), volumes[0].id), (1, id(1)));
    assert_eq!(volumes[0].record.as_deref(), Some(&b"first"[..]));
    pool.set_record(id(1), b"second").unwrap();
    assert_eq!(
        pool.volumes().unwrap()[0].record.as_deref(),
        Some(&b"second"[..])
    );
    let empty = lab.everything();
    pool.create(id(2), b"", Some(16 * MIB)).unwrap();
    pool.snapshot(id(2), &tag("s")).unwrap();
    assert_eq!(pool.volumes().unwrap().len(), 2);
    pool.destroy(id(2)).unwrap();
    pool.destroy(id(2)).unwrap();
    assert_eq!(pool.volumes().unwrap().len(), 1);
    pool.recover().unwrap();
    assert_eq!(lab.everything(), empty, "nothing of it is left");
    let space = pool.space().unwrap();
    assert!(
        space.free > 100 * MIB && space.free <= space.total,
        "{space:?}"
    );
    assert_eq!(pool.warnings(), Vec::<String>::new());
    assert!(pool.describe().contains(if lab.kind.is_zfs() {
        "zfs dataset"
    } else {
        "btrfs in"
    }));
}

fn missing(lab: &Lab) {
    let pool = lab.open();
    let (none, s) = (id(9), tag("s"));
    let no_volume = |result: Result<(), PoolError>| {
        assert!(
            matches!(result, Err(PoolError::NoVolume(v)) if v == none),
            "{result:?}"
        )
    };
    no_volume(pool.set_record(none, b"x"));
    no_volume(pool.tree(none).map(drop));
    no_volume(pool.snapshots(none).map(drop));
    no_volume(pool.snapshot(none, &s));
    no_volume(pool.destroy_snapshot(none, &s));
    no_volume(pool.roll_back(none, &s));
    no_volume(pool.usage(none).map(drop));
    no_volume(pool.set_quota(none, None));
    no_volume(pool.clone_from((none, &s), id(8), b"", None));
    no_volume(pool.send(none, &s, None, sink()));
    pool.create(id(1), b"", None).unwrap();
    let no_snapshot = |result: Result<(), PoolError>| {
        assert!(
            matches!(&result, Err(PoolError::NoSnapshot(n)) if *n == s),
            "{result:?}"
        )
    };
    no_snapshot(pool.destroy_snapshot(id(1), &s));
    no_snapshot(pool.roll_back(id(1), &s));
    no_snapshot(pool.clone_from((id(1), &s), id(8), b"", None));
    no_snapshot(pool.send(id(1), &s, None, sink()));
    assert_eq!(pool.volumes().unwrap().len(), 1, "nothing was begun");
}

fn sink() -> OwnedFd {
    File::options()
        .write(true)
        .open("/dev/null")
        .unwrap()
        .into()
}

fn names(lab: &Lab) {
    let pool = lab.open();
    pool.create(id(1), b"", None).unwrap();
    let long = "l".repeat(63);
    let all = [
        "zz",
        "A.b_c-9",
        "0",
        "gone-1",
        "making.x",
        "tree",
        "a..b--c__",
        long.as_str(),
        "auto-20261121T143000Z",
    ];
    for name in all {
        pool.snapshot(id(1), &tag(name)).unwrap();
        let again = pool.snapshot(id(1), &tag(name));
        assert!(matches!(again, Err(PoolError::SnapshotExists(n)) if n == tag(name)));
    }
    assert_eq!(snapshot_names(&*pool, id(1)), all, "oldest first");
    assert_eq!(pool.usage(id(1)).unwrap().snapshots, 9);
    let times: Vec<u64> = pool
        .snapshots(id(1))
        .unwrap()
        .iter()
        .map(|s| s.created_ms)
        .collect();
    assert!(
        times.is_sorted() && times[0] > 1_600_000_000_000,
        "{times:?}"
    );
    for name in all {
        pool.destroy_snapshot(id(1), &tag(name)).unwrap();
    }
    assert!(snapshot_names(&*pool, id(1)).is_empty());
}

fn quota(lab: &Lab) {
    let pool = lab.open();
    pool.create(id(1), b"", Some(24 * MIB)).unwrap();
    pool.create(id(2), b"", None).unwrap();
    assert_eq!(pool.usage(id(1)).unwrap().quota_bytes, Some(24 * MIB));
    assert!(pool.usage(id(1)).unwrap().available_bytes <= 24 * MIB);
    let (written, error) = fill(&pool.tree(id(1)).unwrap());
    assert_eq!(
        error.raw_os_error(),
        Some(rustix::io::Errno::DQUOT.raw_os_error()),
        "{error}"
    );
    assert!((16 * MIB..=24 * MIB).contains(&written), "{written}");
    write(&*pool, id(2), "f", &noise(40 * MIB));
    // Below what is there: taken by btrfs, refused by ZFS. In both it can be given more afterwards.
    let lowered = match pool.set_quota(id(1), Some(8 * MIB)) {
        Ok(()) => true,
        Err(PoolError::QuotaTooSmall) => false,
        Err(error) => panic!("{error}"),
    };
    let quota = if lowered { 8 * MIB } else { 24 * MIB };
    assert_eq!(pool.usage(id(1)).unwrap().quota_bytes, Some(quota));
    pool.set_quota(id(1), Some(64 * MIB)).unwrap();
    write(&*pool, id(1), "more", &noise(20 * MIB));
    assert_eq!(pool.usage(id(1)).unwrap().quota_bytes, Some(64 * MIB));
    pool.set_quota(id(1), None).unwrap();
    write(&*pool, id(1), "more", &noise(50 * MIB));
    let usage = pool.usage(id(1)).unwrap();
    assert_eq!(usage.quota_bytes, None);
    assert!(usage.available_bytes > 64 * MIB);
}

fn usage(lab: &Lab) {
    let pool = lab.open();
    pool.create(id(1), b"", None).unwrap();
    let near = |is: u64, mib: u64| {
        let allowed = (mib * MIB).saturating_sub(MIB / 2)..=mib * MIB + MIB;
        assert!(allowed.contains(&is), "{is} is not about {mib} MiB");
    };
    near(pool.usage(id(1)).unwrap().referenced_bytes, 0);
    write(&*pool, id(1), "f", &noise(8 * MIB));
    let usage = pool.usage(id(1)).unwrap();
    near(usage.referenced_bytes, 8);
    near(usage.exclusive_bytes, 8);
    near(usage.snapshots_bytes, 0);
    pool.snapshot(id(1), &tag("s")).unwrap();
    write(&*pool, id(1), "g", &noise(4 * MIB));
    let usage = pool.usage(id(1)).unwrap();
    near(usage.referenced_bytes, 12);
    near(usage.snapshots_bytes, 0);
    if lab.kind != Kind::Fuse {
        near(usage.exclusive_bytes, 4);
    }
    fs::remove_file(pool.tree(id(1)).unwrap().join("f")).unwrap();
    let usage = pool.usage(id(1)).unwrap();
    near(usage.referenced_bytes, 4);
    near(usage.snapshots_bytes, 8);
    let snapshot = &pool.snapshots(id(1)).unwrap()[0];
    near(snapshot.referenced_bytes, 8);
    near(snapshot.exclusive_bytes, 8);
    pool.destroy_snapshot(id(1), &tag("s")).unwrap();
    near(pool.usage(id(1)).unwrap().snapshots_bytes, 0);
}

fn roll_back(lab: &Lab) {
    let pool = lab.open();
    pool.create(id(1), b"r", Some(32 * MIB)).unwrap();
    for (n, name) in ["a", "b", "c"].iter().enumerate() {
        write(&*pool, id(1), "f", name.as_bytes());
        write(&*pool, id(1), &format!("only-{name}"), b"");
        pool.snapshot(id(1), &tag(name)).unwrap();
        assert_eq!(pool.snapshots(id(1)).unwrap().len(), n + 1);
    }
    write(&*pool, id(1), "f", b"now");
    pool.roll_back(id(1), &tag("c")).unwrap();
    pool.recover().unwrap();
    assert_eq!(read(&*pool, id(1), "f").unwrap(), "c");
    pool.roll_back(id(1), &tag("a")).unwrap();
    pool.recover().unwrap();
    assert_eq!(read(&*pool, id(1), "f").unwrap(), "a");
    assert_eq!(read(&*pool, id(1), "only-b"), None);
    assert_eq!(snapshot_names(&*pool, id(1)), ["a"]);
    assert_eq!(
        pool.volumes().unwrap()[0].record.as_deref(),
        Some(&b"r"[..])
    );
    assert_eq!(pool.usage(id(1)).unwrap().quota_bytes, Some(32 * MIB));
    let (written, _) = fill(&pool.tree(id(1)).unwrap());
    assert!(written <= 32 * MIB, "the quota holds for the new tree");
    pool.roll_back(id(1), &tag("a")).unwrap();
    assert_eq!(read(&*pool, id(1), "f").unwrap(), "a");
    // A clone of a younger snapshot: ZFS cannot, and changes nothing; btrfs can.
    pool.snapshot(id(1), &tag("d")).unwrap();
    pool.clone_from((id(1), &tag("d")), id(2), b"", None)
        .unwrap();
    match pool.roll_back(id(1), &tag("a")) {
        Err(PoolError::HasClone { snapshot, clone }) if lab.kind.is_zfs() => {
            assert_eq!((snapshot, clone), (tag("d"), id(2)));
            assert_eq!(snapshot_names(&*pool, id(1)), ["a", "d"]);
        }
        done => {
            done.unwrap();
            assert!(!lab.kind.is_zfs());
        }
    }
    assert_eq!(read(&*pool, id(2), "f").unwrap(), "a");
}

fn roll_back_mounted(lab: &Lab) {
    let pool = lab.open();
    pool.create(id(1), b"", None).unwrap();
    write(&*pool, id(1), "f", b"before");
    pool.snapshot(id(1), &tag("s")).unwrap();
    let bound = lab.dir.path().join("bound");
    fs::create_dir(&bound).unwrap();
    mount_bind(pool.tree(id(1)).unwrap(), &bound).unwrap();
    fs::write(bound.join("f"), "after").unwrap();
    pool.roll_back(id(1), &tag("s")).unwrap();
    if pool.rollback_replaces_tree() {
        assert_eq!(
            fs::read_to_string(bound.join("f")).unwrap(),
            "after",
            "the old tree is whole until recovery"
        );
        unmount(&bound, UnmountFlags::DETACH).unwrap();
        mount_bind(pool.tree(id(1)).unwrap(), &bound).unwrap();
        pool.recover().unwrap();
    }
    assert_eq!(fs::read_to_string(bound.join("f")).unwrap(), "before");
    fs::write(bound.join("g"), "new").unwrap();
    assert_eq!(read(&*pool, id(1), "g").unwrap(), "new");
    unmount(&bound, UnmountFlags::DETACH).unwrap();
}

fn clones(lab: &Lab) {
    let pool = lab.open();
    let empty = lab.everything();
    pool.create(id(1), b"one", None).unwrap();
    write(&*pool, id(1), "f", &noise(2 * MIB));
    write(&*pool, id(1), "g", b"origin");
    pool.snapshot(id(1), &tag("s")).unwrap();
    for n in 2..=3 {
        pool.clone_from((id(1), &tag("s")), id(n), b"clone", Some(16 * MIB))
            .unwrap();
        pool.clone_from((id(1), &tag("s")), id(n), b"again", None)
            .unwrap();
    }
    assert_eq!(pool.usage(id(2)).unwrap().quota_bytes, Some(16 * MIB));
    write(&*pool, id(2), "g", b"clone");
    assert_eq!(read(&*pool, id(1), "g").unwrap(), "origin");
    assert_eq!(read(&*pool, id(3), "g").unwrap(), "origin");
    pool.destroy_snapshot(id(1), &tag("s")).unwrap();
    assert!(
        snapshot_names(&*pool, id(1)).is_empty(),
        "it is gone, whoever needs it"
    );
    assert!(matches!(
        pool.roll_back(id(1), &tag("s")),
        Err(PoolError::NoSnapshot(_))
    ));
    pool.snapshot(id(1), &tag("s")).unwrap();
    assert_eq!(
        snapshot_names(&*pool, id(1)),
        ["s"],
        "its name is free again"
    );
    pool.clone_from((id(1), &tag("s")), id(4), b"clone", None)
        .unwrap();
    pool.destroy(id(1)).unwrap();
    assert_eq!(pool.volumes().unwrap().len(), 3);
    for n in 2..=4 {
        assert_eq!(
            fs::read(pool.tree(id(n)).unwrap().join("f")).unwrap(),
            noise(2 * MIB)
        );
    }
    pool.create(id(1), b"new", None).unwrap();
    assert_eq!(read(&*pool, id(1), "g"), None, "the id is free again");
    pool.recover().unwrap();
    assert_eq!(read(&*pool, id(3), "g").unwrap(), "origin");
    for n in [2, 1, 4, 3] {
        pool.destroy(id(n)).unwrap();
    }
    pool.recover().unwrap();
    assert_eq!(lab.everything(), empty, "with the last clone, all goes");
}

fn reopen(lab: &Lab) {
    let pool = lab.open();
    pool.create(id(1), b"kept", Some(32 * MIB)).unwrap();
    write(&*pool, id(1), "f", b"kept");
    pool.snapshot(id(1), &tag("s")).unwrap();
    let before = (
        pool.volumes().unwrap(),
        pool.snapshots(id(1)).unwrap()[0].created_ms,
        lab.everything(),
    );
    drop(pool);
    let pool = lab.open();
    pool.recover().unwrap();
    pool.maintain().unwrap();
    let after = (
        pool.volumes().unwrap(),
        pool.snapshots(id(1)).unwrap()[0].created_ms,
        lab.everything(),
    );
    assert_eq!(after, before);
    assert_eq!(read(&*pool, id(1), "f").unwrap(), "kept");
    assert_eq!(pool.usage(id(1)).unwrap().quota_bytes, Some(32 * MIB));
}

fn long_records(lab: &Lab) {
    let pool = lab.open();
    let record = |length: u64| noise(length)[..length as usize].to_vec();
    pool.create(id(1), &record(20_000), None).unwrap();
    pool.snapshot(id(1), &tag("s")).unwrap();
    pool.clone_from((id(1), &tag("s")), id(2), &record(13_000), None)
        .unwrap();
    for length in [30_000, 10, 17_001, 0, 6_000] {
        pool.set_record(id(1), &record(length)).unwrap();
        let volumes = pool.volumes().unwrap();
        let of = |id| {
            volumes
                .iter()
                .find(|volume| volume.id == id)
                .unwrap()
                .record
                .clone()
                .unwrap()
        };
        assert_eq!(of(id(1)), record(length));
        assert_eq!(of(id(2)), record(13_000));
    }
}

fn two_pools(lab: &Lab) {
    let other_lab = Lab::new(lab.kind);
    let (pool, other) = (lab.open(), other_lab.open());
    for pool in [&pool, &other] {
        pool.create(id(1), b"", None).unwrap();
        pool.snapshot(id(1), &tag("s")).unwrap();
    }
    write(&*pool, id(1), "f", b"one");
    write(&*other, id(1), "f", b"two");
    pool.roll_back(id(1), &tag("s")).unwrap();
    pool.destroy(id(1)).unwrap();
    pool.recover().unwrap();
    assert_eq!(read(&*other, id(1), "f").unwrap(), "two");
    assert_eq!(snapshot_names(&*other, id(1)), ["s"]);
    // A second agent on the same pool has to wait, and gives up.
    assert!(pool.volumes().unwrap().is_empty());
}
