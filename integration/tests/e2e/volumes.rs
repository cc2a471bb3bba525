//! Volumes as a user has them: made, mounted, rolled back while a container runs, copied, destroyed.
//!
//! The flow runs on each pool that this machine can have: the node's own btrfs file, and a ZFS pool
//! behind zfs-fuse (or the one named by `TEU_TEST_POOL`, as in the guest with OpenZFS). Each has a location
//! of its own, because a pool belongs to one. Next: `kills` for daemons that die in the
//! middle, `faults` for pools that break, `machine` for restarts and copies, `sharing` for who may what.

mod faults;
mod kills;
mod machine;
mod picture;
mod sharing;

use std::{io::Write as _, process::Stdio};

use teu_integration::{
    pool::ZfsFuse,
    world::{World, eventually, make_image},
};

use crate::Own;

pub(crate) const TRIALS: &[&[Own]] = &[
    STRAIGHT,
    kills::TRIALS,
    faults::TRIALS,
    machine::TRIALS,
    sharing::TRIALS,
];

const STRAIGHT: &[Own] = &[
    ("volumes::a_database_is_undone_on_btrfs", database_on_btrfs),
    ("volumes::a_database_is_undone_on_zfs", database_on_zfs),
    ("volumes::data_outlives_containers_and_daemons", survival),
    ("volumes::one_in_use_cannot_be_destroyed", in_use),
    ("volumes::a_full_one_harms_nobody_else", quota),
    ("volumes::copies_travel_in_full_and_in_part", copies),
    ("volumes::open_files_are_named_before_a_rollback", holders),
];

/// Why a test of this file cannot run here, if so: told by the harness as a skip.
pub(crate) fn cannot_run(name: &str) -> Option<String> {
    if name.starts_with("volumes::kills::") {
        return kills::cannot_run();
    }
    if name.starts_with("volumes::faults::") {
        return faults::cannot_run(name);
    }
    (name == "volumes::a_database_is_undone_on_zfs" && std::env::var_os("TEU_TEST_POOL").is_none())
        .then(ZfsFuse::cannot_start)
        .flatten()
}

fn database_on_btrfs() {
    undo_a_database(&World::start());
}

fn database_on_zfs() {
    if let Ok(pool) = std::env::var("TEU_TEST_POOL") {
        return undo_a_database(&World::start_with_pool(&pool));
    }
    let zfs = ZfsFuse::start();
    let world = World::start_with_pool(&format!("zfs:{}/teu", zfs.pool()));
    undo_a_database(&world);
    drop(world);
    drop(zfs);
}

/// A database in a container writes, a snapshot is taken, more is written; the volume is rolled
/// back while the container runs, and the data is that of the snapshot.
fn undo_a_database(world: &World) {
    let archive = world.scratch().join("sqlite.tar");
    make_image(&archive, &["sqlite", "/usr/bin/sqlite3"]);
    world.ok(["image".as_ref(), "import".as_ref(), archive.as_os_str()]);
    world.ok(["volume", "create", "books"]);
    world.ok([
        "run",
        "-d",
        "--name",
        "db",
        "-v",
        "books:/data",
        "sqlite",
        "sleep",
        "1000",
    ]);
    let sql = |text: &str| world.ok(["exec", "db", "sqlite3", "/data/books.db", text]);
    sql("create table book(title text); insert into book values('Ulysses'),('Emma');");
    world.ok(["volume", "snapshot", "books", "before"]);
    sql("delete from book; insert into book values('Nonsense');");
    assert_eq!(sql("select title from book"), "Nonsense");
    world.ok(["volume", "rollback", "--yes", "books", "before"]);
    assert_eq!(
        sql("select title from book order by title"),
        "Emma\nUlysses"
    );
    assert_eq!(sql("pragma integrity_check"), "ok");
    // Another container sees the same tree, and what is written now is there for both.
    sql("insert into book values('Middlemarch')");
    let count = "select count(*) from book";
    let other = ["run", "--rm", "-v", "books:/b:ro", "sqlite", "sqlite3"];
    let told = world.ok(other.into_iter().chain(["-readonly", "/b/books.db", count]));
    assert_eq!(told, "3");
    // A clone is a second database, whatever happens to the first.
    world.ok(["volume", "clone", "books", "before", "copy"]);
    let told = world.ok([
        "run",
        "--rm",
        "-v",
        "copy:/c",
        "sqlite",
        "sqlite3",
        "/c/books.db",
        count,
    ]);
    assert_eq!(told, "2");
    world.ok(["rm", "-f", "db"]);
    world.ok(["volume", "rm", "--yes", "books"]);
    world.ok(["volume", "rm", "--yes", "copy"]);
    assert_eq!(volumes(world), "");
}

fn volumes(world: &World) -> String {
    world.ok(["volume", "ls", "-q"])
}

fn survival() {
    let world = World::start();
    world.import_busybox();
    world.ok(["volume", "create", "notes"]);
    let in_notes = |script: &str| {
        world.ok([
            "run",
            "--rm",
            "-v",
            "notes:/notes",
            "busybox",
            "sh",
            "-c",
            script,
        ])
    };
    in_notes("echo one > /notes/file && chown 33:33 /notes/file");
    world.kill_daemon("teu-node");
    eventually("the volume can be used again", || {
        world.teu(["volume", "usage", "notes"]).status.success()
    });
    assert_eq!(
        in_notes("cat /notes/file; stat -c %u:%g /notes/file"),
        "one\n33:33"
    );
    world.ok(["volume", "snapshot", "notes", "kept"]);
    world.kill_daemon("teu-master");
    eventually("the volume is listed again", || {
        let listed = world.teu(["volume", "snapshots", "notes"]);
        String::from_utf8_lossy(&listed.stdout).contains("kept")
    });
    assert_eq!(in_notes("cat /notes/file"), "one");
}

fn in_use() {
    let world = World::start();
    world.import_busybox();
    world.ok(["volume", "create", "busy"]);
    world.ok([
        "run", "-d", "--name", "user", "-v", "busy:/b", "busybox", "sleep", "1000",
    ]);
    let refused = world.teu(["volume", "rm", "--yes", "busy"]);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && text.contains("user"), "{text}");
    assert!(world.ok(["volume", "inspect", "busy"]).contains("user"));
    world.ok(["rm", "-f", "user"]);
    world.ok(["volume", "rm", "--yes", "busy"]);
    let gone = world.teu(["run", "--rm", "-v", "busy:/b", "busybox", "true"]);
    let text = String::from_utf8_lossy(&gone.stderr);
    assert!(
        !gone.status.success() && text.contains("teu volume create busy"),
        "{text}"
    );
}

fn quota() {
    let world = World::start();
    world.import_busybox();
    world.ok(["volume", "create", "--quota", "8MiB", "small"]);
    world.ok(["volume", "create", "other"]);
    let both = [
        "run", "--rm", "-v", "small:/s", "-v", "other:/o", "busybox", "sh", "-c",
    ];
    let script = "dd if=/dev/zero of=/s/f bs=1M count=32 2>/dev/null && exit 1; \
                  dd if=/dev/zero of=/o/f bs=1M count=32 2>/dev/null || exit 2; sync; stat -c %s /o/f";
    assert_eq!(world.ok(both.into_iter().chain([script])), "33554432");
    world.ok(["volume", "quota", "small", "64MiB"]);
    let script = "dd if=/dev/zero of=/s/f bs=1M count=32 2>/dev/null && sync && stat -c %s /s/f";
    assert_eq!(world.ok(both.into_iter().chain([script])), "33554432");
}

fn copies() {
    let world = World::start();
    world.import_busybox();
    world.ok(["volume", "create", "from"]);
    let run = |volume: &str, script: &str| {
        let volume = format!("{volume}:/v");
        world.ok(["run", "--rm", "-v", &volume, "busybox", "sh", "-c", script])
    };
    run(
        "from",
        "echo 1 > /v/a; dd if=/dev/urandom of=/v/big bs=1M count=4 2>/dev/null",
    );
    world.ok(["volume", "snapshot", "from", "one"]);
    run("from", "echo 2 > /v/a; echo new > /v/b");
    world.ok(["volume", "snapshot", "from", "two"]);
    let file = |name: &str| world.scratch().join(name).display().to_string();
    let (full, part) = (file("full"), file("part"));
    world.ok(["volume", "export", "from", "one", &full]);
    world.ok(["volume", "export", "from", "two", "--base", "one", &part]);
    let length = |path: &str| std::fs::metadata(path).expect("exported").len();
    assert!(length(&full) > 4 << 20 && length(&part) < 1 << 20);
    world.ok(["volume", "import", &full, "to"]);
    assert_eq!(run("to", "cat /v/a"), "1");
    world.ok(["volume", "import", "--into", "--yes", &part, "to"]);
    assert_eq!(
        run("to", "cat /v/a /v/b; md5sum < /v/big"),
        run("from", "cat /v/a /v/b; md5sum < /v/big")
    );
    // A single changed byte is refused, and nothing is left of it.
    let mut bytes = std::fs::read(&full).expect("exported");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let mut import = world.command(["volume", "import", "-", "forged"]);
    import.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut import = import.spawn().expect("teu is built");
    // It may stop reading before the end.
    let _ = import.stdin.take().expect("a pipe").write_all(&bytes);
    assert!(!import.wait_with_output().expect("it ends").status.success());
    assert_eq!(world.ok(["volume", "ls"]).matches("forged").count(), 0);
}

fn holders() {
    let world = World::start();
    world.import_busybox();
    world.ok(["volume", "create", "held"]);
    let script =
        "exec 5> /h/open; while [ ! -e /tmp/close ]; do sleep 0.1; done; exec 5>&-; sleep 1000";
    world.ok([
        "run", "-d", "--name", "holder", "-v", "held:/h", "busybox", "sh", "-c", script,
    ]);
    eventually("the file is open", || {
        world.ok(["exec", "holder", "ls", "/h"]).contains("open")
    });
    world.ok(["volume", "snapshot", "held", "then"]);
    world.ok(["exec", "holder", "touch", "/h/later"]);
    let refused = world.teu(["volume", "rollback", "--yes", "held", "then"]);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "a file is open");
    for part in ["sh (pid 1)", "/h/open"] {
        assert!(text.contains(part), "`{part}` in: {text}");
    }
    assert!(
        world.ok(["exec", "holder", "ls", "/h"]).contains("later"),
        "nothing changed"
    );
    world.ok(["exec", "holder", "touch", "/tmp/close"]);
    eventually("it rolls back once the file is closed", || {
        let done = world.teu(["volume", "rollback", "--yes", "held", "then"]);
        done.status.success()
    });
    assert_eq!(world.ok(["exec", "holder", "ls", "/h"]), "open");
}
