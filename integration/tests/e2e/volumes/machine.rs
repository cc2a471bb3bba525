//! Volumes and machines: one that restarts, two that have copies, one that is purged.

use teu_integration::world::{World, eventually, loop_devices};

use crate::{Own, wait};

pub(crate) const TRIALS: &[Own] = &[
    ("volumes::machine::a_restart_loses_nothing", restart),
    (
        "volumes::machine::a_copy_on_another_node_is_kept_up_to_date",
        two,
    ),
    ("volumes::machine::purge_leaves_nothing", purge),
];

/// Runs a script with the volume at `/v`.
pub(super) fn in_volume(world: &World, name: &str, script: &str) -> String {
    let volume = format!("{name}:/v");
    world.ok(["run", "--rm", "-v", &volume, "busybox", "sh", "-c", script])
}

/// Containers have nothing to do with what befalls volumes.
pub(super) fn containers_run(world: &World) {
    assert_eq!(world.ok(["run", "--rm", "busybox", "echo", "runs"]), "runs");
}

pub(super) fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).expect("JSON")
}

fn restart() {
    let mut world = World::start();
    world.import_busybox();
    world.ok(["volume", "create", "--quota", "64MiB", "kept"]);
    in_volume(
        &world,
        "kept",
        "echo before > /v/file && chown 33:44 /v/file && sync",
    );
    world.ok(["volume", "snapshot", "kept", "then"]);
    in_volume(&world, "kept", "echo after > /v/file && sync");
    world.ok([
        "run", "-d", "--name", "user", "-v", "kept:/v", "busybox", "sleep", "1000",
    ]);
    let listed = |world: &World| {
        let mut all = json(&world.ok(["volume", "inspect", "kept"]));
        // Whoever used it ended with the machine.
        all[0]["used_by"] = serde_json::Value::Null;
        all[0]["used_by_names"] = serde_json::Value::Null;
        all
    };
    let before = listed(&world);
    world.restart_machine();
    assert_eq!(listed(&world), before, "(left: now, right: before)");
    let file = world.data().join("node/pool.btrfs");
    assert_eq!(loop_devices(&file).len(), 1);
    let read = "cat /v/file; stat -c %u:%g /v/file";
    assert_eq!(in_volume(&world, "kept", read), "after\n33:44");
    world.teu(["rm", "-f", "user"]);
    world.ok(["volume", "rollback", "--yes", "kept", "then"]);
    assert_eq!(in_volume(&world, "kept", read), "before\n33:44");
    eventually("nobody uses it", || {
        world
            .teu(["volume", "rm", "--yes", "kept"])
            .status
            .success()
    });
}

fn two() {
    let world = World::start();
    world.import_busybox();
    let second = world.second_node("second");
    wait(async {
        let location = world.connect().await.expect("connected");
        let node = |name: &str| {
            let nodes = location.nodes().into_iter();
            let found = nodes.filter(|node| (node.name == "second") == (name == "second"));
            found.map(|node| node.id).next().expect("a node")
        };
        let (first, second) = (node("first"), node("second"));
        let builder = location.create_volume().node(first).tag("original");
        let original = builder.await.expect("a volume");
        assert_eq!(original.node(), first);
        let run = async |volume: &teu::Volume, script: &str| {
            let container = location
                .spawn("busybox")
                .command(["sleep", "1000"])
                .volume(volume, "/v")
                .start()
                .await
                .expect("spawned");
            assert_eq!(container.info().node, volume.node(), "where its volume is");
            let done = container.run(["sh", "-c", script]).output().await;
            container.destroy().await.expect("destroyed");
            String::from_utf8_lossy(&done.expect("it runs").stdout).into_owned()
        };
        let big = "dd if=/dev/urandom of=/v/big bs=1M count=8 2>/dev/null";
        run(
            &original,
            &format!("echo 1 > /v/file; chown 5:6 /v/file; {big}"),
        )
        .await;
        original.snapshot("one").await.expect("a snapshot");
        let copy = original.copy_to("one", second).tag("copy");
        let copy = copy.await.expect("a copy");
        assert_eq!(copy.node(), second);
        let read = "cat /v/file; stat -c %u:%g /v/file; md5sum < /v/big";
        assert_eq!(run(&copy, read).await, run(&original, read).await);
        // Only what changed since travels.
        run(&original, "echo 2 > /v/file; echo new > /v/other").await;
        original.snapshot("two").await.expect("a snapshot");
        let changes = original
            .export_to("two", Some("one"), tokio::io::sink())
            .await;
        assert!(changes.expect("exported") < 1 << 20);
        original
            .copy_into("two", &copy)
            .await
            .expect("brought up to date");
        let read = "cat /v/file /v/other; md5sum < /v/big";
        assert_eq!(run(&copy, read).await, run(&original, read).await);
        // The same node as this volume, in one call, without mounting it.
        let near = location
            .spawn("busybox")
            .command(["sleep", "1000"])
            .near(&copy)
            .start()
            .await
            .expect("spawned");
        assert_eq!(near.info().node, second);
        // Two volumes on two nodes are in no container together.
        let both = location
            .spawn("busybox")
            .command(["true"])
            .volume(&original, "/a")
            .volume(&copy, "/b")
            .start()
            .await
            .expect_err("they are on two nodes");
        assert_eq!(both.code(), Some(teu::RefusalCode::BadRequest), "{both}");
        near.destroy().await.expect("destroyed");
        copy.destroy().await.expect("destroyed");
        original.destroy().await.expect("destroyed");
        location.close().await;
    });
    drop(second);
}

fn purge() {
    let world = World::start();
    world.import_busybox();
    world.ok(["volume", "create", "left"]);
    in_volume(&world, "left", "echo 1 > /v/file");
    world.ok([
        "run", "-d", "--name", "user", "-v", "left:/v", "busybox", "sleep", "1000",
    ]);
    let file = world.data().join("node/pool.btrfs");
    let devices = loop_devices(&file);
    assert_eq!(devices.len(), 1);
    world.purge();
    assert!(!world.data().exists(), "the data is gone");
    assert!(world.census().mounts.is_empty(), "{:?}", world.census());
    // The file is gone, so the device itself is asked: the kernel lets go when nobody has it open.
    eventually("the loop device is free", || {
        let all = std::process::Command::new("losetup").arg("--all").output();
        let all = String::from_utf8_lossy(&all.expect("losetup").stdout).into_owned();
        !all.contains(&file.display().to_string())
    });
}
