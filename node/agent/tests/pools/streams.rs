//! What is sent from one pool and received by another, or by the same.
//!
//! Owner: the pools' tests. Next: `kill.rs`, which kills a process while it receives.

use std::{
    fs,
    io::{self, Write},
};

use teu_node::volumes::pool::{Pool, PoolError, Receive};
use teu_protocol::ids::VolumeId;

use super::{
    cases::{Case, id, noise, read, snapshot_names, tag, write},
    lab::{Kind, Lab, MIB},
};

pub const ALL: &[Case] = &[
    ("streams_make_the_same_volume_elsewhere", streams),
    (
        "a_stream_that_is_cut_or_does_not_fit_leaves_nothing",
        bad_streams,
    ),
    (
        "changes_arrive_whoever_read_the_tree_meanwhile",
        under_a_reader,
    ),
    (
        "recovery_leaves_alone_what_is_being_received",
        recovery_beside,
    ),
];

/// What a snapshot is sent as.
pub fn sent(pool: &dyn Pool, id: VolumeId, name: &str, base: Option<&str>) -> Vec<u8> {
    let mut file = tempfile::tempfile().unwrap();
    let out = file.try_clone().unwrap();
    pool.send(id, &tag(name), base.map(tag).as_ref(), out.into())
        .unwrap();
    let mut bytes = Vec::new();
    io::Seek::rewind(&mut file).unwrap();
    io::Read::read_to_end(&mut file, &mut bytes).unwrap();
    bytes
}

/// Receives it through a pipe, as the agent does.
pub fn received(
    pool: &dyn Pool,
    n: u8,
    name: &str,
    base: Option<&str>,
    stream: &[u8],
) -> Result<(), PoolError> {
    let (reader, mut writer) = io::pipe().unwrap();
    std::thread::scope(|scope| {
        // It may stop reading when it has seen enough.
        scope.spawn(move || writer.write_all(stream));
        let (name, base) = (tag(name), base.map(tag));
        let receive = Receive {
            id: id(n),
            record: b"received",
            quota: Some(48 * MIB),
            name: &name,
            base: base.as_ref(),
        };
        pool.receive(receive, reader.into())
    })
}

fn streams(lab: &Lab) {
    let (pool, other_lab) = (lab.open(), Lab::new(lab.kind));
    let other = other_lab.open();
    assert_eq!(pool.format(), other.format());
    pool.create(id(1), b"", None).unwrap();
    write(&*pool, id(1), "f", &noise(3 * MIB));
    pool.snapshot(id(1), &tag("a")).unwrap();
    write(&*pool, id(1), "g", b"b");
    pool.snapshot(id(1), &tag("b")).unwrap();
    fs::remove_file(pool.tree(id(1)).unwrap().join("f")).unwrap();
    pool.snapshot(id(1), &tag("c")).unwrap();
    let (a, b, c) = (
        sent(&*pool, id(1), "a", None),
        sent(&*pool, id(1), "b", Some("a")),
        sent(&*pool, id(1), "c", Some("b")),
    );
    assert!(b.len() < a.len() / 4, "only what changed");
    for (target, n) in [(&other, 5), (&pool, 6)] {
        received(&**target, n, "first", None, &a).unwrap();
        assert_eq!(
            fs::read(target.tree(id(n)).unwrap().join("f")).unwrap(),
            noise(3 * MIB)
        );
        assert_eq!(read(&**target, id(n), "g"), None);
        let stored = target
            .volumes()
            .unwrap()
            .into_iter()
            .find(|volume| volume.id == id(n))
            .unwrap();
        assert_eq!(stored.record.as_deref(), Some(&b"received"[..]));
        assert_eq!(target.usage(id(n)).unwrap().quota_bytes, Some(48 * MIB));
        // What was written since goes: it becomes what was sent.
        write(&**target, id(n), "mine", b"");
        received(&**target, n, "second", Some("first"), &b).unwrap();
        target.recover().unwrap();
        assert_eq!(
            (read(&**target, id(n), "g"), read(&**target, id(n), "mine")),
            (Some("b".to_owned()), None)
        );
        received(&**target, n, "third", Some("second"), &c).unwrap();
        target.recover().unwrap();
        assert_eq!(read(&**target, id(n), "f"), None);
        assert_eq!(
            snapshot_names(&**target, id(n)),
            ["first", "second", "third"]
        );
        assert_eq!(target.usage(id(n)).unwrap().quota_bytes, Some(48 * MIB));
    }
    // And on from there.
    write(&*other, id(5), "h", b"back");
    other.snapshot(id(5), &tag("d")).unwrap();
    let whole = sent(&*other, id(5), "d", None);
    received(&*pool, 7, "d", None, &whole).unwrap();
    assert_eq!(read(&*pool, id(7), "h").unwrap(), "back");
    assert_eq!(read(&*pool, id(7), "g").unwrap(), "b");
}

/// Reading sets access times, which is a change since the snapshot.
fn under_a_reader(lab: &Lab) {
    let pool = lab.open();
    pool.create(id(1), b"", None).unwrap();
    for n in 0..20 {
        write(&*pool, id(1), &format!("f{n}"), &noise(64 << 10));
    }
    pool.snapshot(id(1), &tag("a")).unwrap();
    write(&*pool, id(1), "f0", b"b");
    pool.snapshot(id(1), &tag("b")).unwrap();
    let (a, b) = (
        sent(&*pool, id(1), "a", None),
        sent(&*pool, id(1), "b", Some("a")),
    );
    received(&*pool, 2, "a", None, &a).unwrap();
    let tree = pool.tree(id(2)).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (told, reads) = std::thread::scope(|scope| {
        // Without a file open in between, for zfs-fuse has to unmount the tree, which the node
        // allows because no container has it mounted.
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let n = 1 + reads % 19;
                if lab.kind != Kind::Fuse || reads < 19 {
                    reads += usize::from(fs::read(tree.join(format!("f{n}"))).is_ok());
                }
            }
            reads
        });
        let told = received(&*pool, 2, "b", Some("a"), &b);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        (told, reader.join().unwrap())
    });
    told.unwrap();
    assert!(reads > 0);
    assert_eq!(read(&*pool, id(2), "f0").unwrap(), "b");
    for n in 1..20 {
        let content = fs::read(pool.tree(id(2)).unwrap().join(format!("f{n}")));
        assert_eq!(content.unwrap(), noise(64 << 10));
    }
    assert_eq!(snapshot_names(&*pool, id(2)), ["a", "b"]);
}

/// The agent tidies the pool up after roll-backs, whatever else is under way.
fn recovery_beside(lab: &Lab) {
    let pool = lab.open();
    pool.create(id(1), b"", None).unwrap();
    write(&*pool, id(1), "f", &noise(2 * MIB));
    pool.snapshot(id(1), &tag("a")).unwrap();
    write(&*pool, id(1), "f", &noise(3 * MIB));
    pool.snapshot(id(1), &tag("b")).unwrap();
    let (a, b) = (
        sent(&*pool, id(1), "a", None),
        sent(&*pool, id(1), "b", Some("a")),
    );
    let before = pool.volumes().unwrap().len();
    for (name, base, stream) in [("a", None, &a), ("b", Some("a"), &b)] {
        let (reader, mut writer) = io::pipe().unwrap();
        std::thread::scope(|scope| {
            let pool = &*pool;
            let receiving = scope.spawn(move || {
                let (name, base) = (tag(name), base.map(tag));
                let receive = Receive {
                    id: id(2),
                    record: b"received",
                    quota: None,
                    name: &name,
                    base: base.as_ref(),
                };
                pool.receive(receive, reader.into())
            });
            let (first, rest) = stream.split_at(stream.len() / 2);
            // More than a pipe holds, so it is being read when this is through.
            writer.write_all(first).unwrap();
            pool.recover().unwrap();
            pool.maintain().unwrap();
            let seen = pool.volumes().unwrap().len();
            assert_eq!(seen, before + usize::from(base.is_some()));
            writer.write_all(rest).unwrap();
            drop(writer);
            receiving.join().unwrap().unwrap();
        });
    }
    let tree = pool.tree(id(2)).unwrap();
    assert_eq!(fs::read(tree.join("f")).unwrap(), noise(3 * MIB));
    assert_eq!(snapshot_names(&*pool, id(2)), ["a", "b"]);
    pool.recover().unwrap();
    assert_eq!(pool.volumes().unwrap().len(), before + 1);
}

fn bad_streams(lab: &Lab) {
    let pool = lab.open();
    pool.create(id(1), b"", None).unwrap();
    write(&*pool, id(1), "f", &noise(2 * MIB));
    pool.snapshot(id(1), &tag("a")).unwrap();
    write(&*pool, id(1), "g", &noise(MIB));
    pool.snapshot(id(1), &tag("b")).unwrap();
    let (a, b) = (
        sent(&*pool, id(1), "a", None),
        sent(&*pool, id(1), "b", Some("a")),
    );
    received(&*pool, 2, "a", None, &a).unwrap();
    let before = lab.everything();
    let refused = |result: Result<(), PoolError>| {
        assert!(matches!(result, Err(PoolError::BadStream(_))), "{result:?}")
    };
    for cut in [0, 10, a.len() / 2, a.len() - 10, a.len() - 1] {
        refused(received(&*pool, 3, "a", None, &a[..cut]));
    }
    for cut in [0, 10, b.len() / 2, b.len() - 10] {
        refused(received(&*pool, 2, "b", Some("a"), &b[..cut]));
    }
    refused(received(&*pool, 3, "a", None, &noise(MIB)));
    refused(received(&*pool, 1, "x", None, &a));
    refused(received(&*pool, 1, "x", Some("a"), &b));
    assert!(matches!(
        received(&*pool, 2, "b", Some("z"), &b),
        Err(PoolError::NoSnapshot(_))
    ));
    assert!(matches!(
        received(&*pool, 2, "a", Some("a"), &b),
        Err(PoolError::SnapshotExists(_))
    ));
    assert!(matches!(
        received(&*pool, 4, "b", Some("a"), &b),
        Err(PoolError::NoVolume(_))
    ));
    assert_eq!(lab.everything(), before, "nothing is left of any");
    assert_eq!(read(&*pool, id(2), "g"), None);
    received(&*pool, 2, "b", Some("a"), &b).unwrap();
    assert_eq!(
        fs::read(pool.tree(id(2)).unwrap().join("g")).unwrap(),
        noise(MIB)
    );
}
