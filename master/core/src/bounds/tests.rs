//! Bounds as tables: what passes and what is refused.

use super::*;
use teu_protocol::{ids::Digest, message::RefusalCode};

fn spec() -> SpawnSpec {
    SpawnSpec::of(Digest::of(b"image"), "nginx")
}

fn file(path: &str, size: u64) -> PreBootFile {
    PreBootFile {
        path: path.into(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        secret: false,
        size,
    }
}

type Change = fn(&mut SpawnSpec);

#[test]
fn what_is_within_bounds_passes() {
    let good: [Change; 7] = [
        |_| {},
        |s| s.process.args = Some(vec!["sh".into(), String::new()]),
        |s| s.process.env = vec![("A".into(), "b=c".into())],
        |s| {
            let value = "x".repeat(1_000);
            s.process.env = (0..1_000)
                .map(|n| (format!("V{n}"), value.clone()))
                .collect();
        },
        |s| s.hostname = Some("web-1".into()),
        |s| s.limits.memory_bytes = Some(4 << 20),
        |s| s.labels = (0..64).map(|n| (n.to_string(), "x".repeat(256))).collect(),
    ];
    for (n, change) in good.iter().enumerate() {
        let mut spec = spec();
        change(&mut spec);
        assert_eq!(spawn(&spec, &[]), Ok(()), "{n}");
    }
}

#[test]
fn what_is_beyond_is_refused() {
    let bad: [Change; 21] = [
        |s| s.process.args = Some(vec!["a\0b".into()]),
        |s| s.process.args = Some(vec!["x".repeat(200 << 10)]),
        |s| s.process.args = Some(vec![String::new(); 5_000]),
        |s| s.process.env = vec![("A=".into(), String::new())],
        |s| s.process.env = vec![(String::new(), "b".into())],
        |s| s.process.env = vec![("A".into(), String::new()); 4_097],
        |s| s.process.env = vec![("A".into(), "x".repeat(100 << 10)); 13],
        |s| s.process.workdir = Some("srv".into()),
        |s| s.process.user = Some(String::new()),
        |s| s.entrypoint = Some(vec!["\0".into()]),
        |s| s.labels = (0..65).map(|n| (n.to_string(), String::new())).collect(),
        |s| s.labels = [("k".into(), "x".repeat(257))].into(),
        |s| s.hostname = Some("a b".into()),
        |s| s.hostname = Some("-a".into()),
        |s| s.limits.memory_bytes = Some(1),
        |s| s.limits.cpu_millis = Some(9),
        |s| s.limits.pids = Some(0),
        |s| s.limits.pids = Some(4_000_000),
        |s| s.limits.storage_bytes = Some((16 << 20) - 1),
        |s| s.limits.storage_bytes = Some(1 << 60),
        |s| s.limits.memory_bytes = Some(u64::MAX),
    ];
    for (n, change) in bad.iter().enumerate() {
        let mut spec = spec();
        change(&mut spec);
        assert!(spawn(&spec, &[]).is_err(), "{n}");
    }
}

#[test]
fn user_numbers_that_no_container_has_are_refused_and_the_cure_is_told() {
    for user in ["4294967295", "0:4294967295", "65536", "-1", "1000680000"] {
        let mut spec = spec();
        spec.process.user = Some(user.into());
        let refusal = spawn(&spec, &[]).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::BadRequest, "{user}");
        assert!(refusal.message.contains("0 to 65535"), "{refusal:?}");
        assert_eq!(process(&spec.process).unwrap_err(), refusal);
        let part = [Bytes::from_static(b"12")];
        for (uid, gid) in [(u32::MAX, 0), (0, u32::MAX), (65_536, 0)] {
            let mut file = file("/etc/a", 2);
            (file.uid, file.gid) = (uid, gid);
            let spec = SpawnSpec {
                files: vec![file],
                ..spec.clone()
            };
            assert!(spawn(&spec, &part).is_err(), "{uid}:{gid}");
        }
    }
}

#[test]
fn files_are_absolute_bounded_and_all_there() {
    let part = [Bytes::from_static(b"12"), Bytes::from_static(b"345")];
    let with = |files| spawn(&SpawnSpec { files, ..spec() }, &part);
    assert_eq!(with(vec![file("/etc/a", 4), file("/etc/b", 1)]), Ok(()));
    assert!(with(vec![file("/etc/a", 4)]).is_err(), "a byte too many");
    assert!(with(vec![file("/etc/a", 6)]).is_err(), "a byte too few");
    assert!(
        with(vec![file("/etc/a", u64::MAX), file("/etc/b", 6)]).is_err(),
        "overflow"
    );
    for path in [
        "etc/a",
        "/etc/../a",
        "/etc/",
        "/a\0",
        "/proc/x",
        "//dev/./shm/x",
        "/sys/x",
    ] {
        assert!(with(vec![file(path, 5)]).is_err(), "{path}");
    }
}
