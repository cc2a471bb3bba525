//! Rolling a volume back under a running container: nobody may run meanwhile, who holds something is
//! named, and afterwards the container sees the other tree wherever it has the volume.

use std::{convert::Infallible, fs, path::Path};

use teu_node::{
    keeper::VolumeMountPlan,
    volumes::mounts::{
        ContainerMounts, Held, NewTree, RollBackError, device, reconcile, roll_back_mounted,
    },
};
use teu_protocol::image_config::signal::Signal;

use crate::{
    rig::{Rig, Running, eventually, sh},
    volume_lab::{Pool, mount, mounts_of},
};

/// How many mounts of the container lie at `place`.
fn mounted(pid: i32, place: &str) -> usize {
    fs::read_to_string(format!("/proc/{pid}/mountinfo"))
        .unwrap()
        .lines()
        .filter(|line| line.split(' ').nth(4) == Some(place))
        .count()
}

/// What a further process reads there.
async fn reads(boxed: &mut Running, number: u8, script: &str) -> String {
    let id = boxed
        .exec(number, sh(&format!("exec 2>&1; {script}")))
        .await;
    boxed.events.exit_of(id).await;
    boxed.output(id)
}

fn roll_back(
    pool: &Pool,
    container: &ContainerMounts,
    force: bool,
    tree: &Path,
    by: &Path,
) -> Result<(), RollBackError<Infallible>> {
    roll_back_mounted(std::slice::from_ref(container), force, tree, || {
        assert!(container.cgroup.is_frozen().unwrap(), "it stands still");
        pool.replace(tree, by);
        Ok(Some(NewTree {
            tree: tree.to_owned(),
            old_is_there: true,
        }))
    })
}

#[tokio::test]
async fn a_running_loop_sees_the_other_tree_and_never_the_old_one_again() {
    let rig = Rig::new().await;
    let pool = Pool::new(&rig);
    let (tree, next) = (pool.versioned("tree", "one"), pool.versioned("next", "two"));
    let script = "while :; do cat /data/version; usleep 2000; done";
    let mut plan = rig.plan("loop", sh(script));
    let read_only = VolumeMountPlan {
        read_only: true,
        ..mount(&tree, "/ro")
    };
    plan.mounts = vec![mount(&tree, "/data"), read_only];
    let mounts = plan.mounts.clone();
    let mut boxed = rig.start("loop", plan).await;
    let main = boxed.main();
    boxed.wait_output(main, "one\n").await;
    let container = mounts_of(&rig, &boxed, mounts);
    assert!(container.shows(&tree).unwrap());
    roll_back(&pool, &container, true, &tree, &next).unwrap();
    assert!(container.shows(&tree).unwrap());
    boxed.wait_output(main, "two\n").await;
    let text = boxed.output(main);
    let (before, after) = text.split_once("two\n").unwrap();
    assert!(before.lines().all(|line| line == "one"), "{before}");
    assert!(after.lines().all(|line| line == "two"), "{after}");
    assert_eq!(
        (mounted(boxed.pid, "/data"), mounted(boxed.pid, "/ro")),
        (1, 1)
    );
    // Rights and owners are as before.
    let script =
        "cat /ro/version; echo x > /ro/x || echo refused; echo y > /data/y; stat -c %u /data/y";
    let text = reads(&mut boxed, 1, script).await;
    assert!(
        text.starts_with("two\n") && text.contains("refused\n"),
        "{text}"
    );
    assert!(text.ends_with("0\n"), "{text}");
    assert_eq!(fs::read(tree.join("y")).unwrap(), b"y\n");
    // Again is nothing.
    let gone = device(&tree.with_extension("gone")).unwrap();
    container.exchange(gone, &tree).unwrap();
    assert!(!reconcile(&container).unwrap());
    assert_eq!(
        (mounted(boxed.pid, "/data"), mounted(boxed.pid, "/ro")),
        (1, 1)
    );
    assert!(!container.cgroup.is_frozen().unwrap());
}

#[tokio::test]
async fn whoever_holds_something_is_named_and_nothing_is_done() {
    let rig = Rig::new().await;
    let pool = Pool::new(&rig);
    let (tree, next) = (pool.versioned("tree", "one"), pool.versioned("next", "two"));
    fs::copy("/bin/busybox", tree.join("busybox")).unwrap();
    let script = "trap 'exec 3<&-; cd /; kill $!; wait; echo closed' USR1; exec 3</data/version; \
                  cd /data; /data/busybox sleep 100 & echo up; while :; do usleep 10000; done";
    let mut plan = rig.plan("held", sh(script));
    plan.mounts = vec![mount(&tree, "/data")];
    let mounts = plan.mounts.clone();
    fs::set_permissions(
        tree.join("busybox"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let mut boxed = rig.start("held", plan).await;
    let main = boxed.main();
    boxed.wait_output(main, "up\n").await;
    let container = mounts_of(&rig, &boxed, mounts);
    let maps = |what: &Held| matches!(what, Held::Mapping(path) if path == "/data/busybox");
    let device_now = device(&tree).unwrap();
    eventually("it executes", || {
        let held = container.holders(device_now).unwrap();
        held.iter().any(|one| maps(&one.what))
    })
    .await;
    let error = roll_back(&pool, &container, false, &tree, &next).unwrap_err();
    let RollBackError::Held(held) = error else {
        panic!("{error:?}")
    };
    let first = |what: &Held| {
        held.iter().any(|(id, one)| {
            *id == boxed.container
                && one.program == "sh"
                && one.pid_in_container == 1
                && one.what == *what
        })
    };
    assert!(first(&Held::File("/data/version".to_owned())), "{held:?}");
    assert!(first(&Held::WorkingDirectory), "{held:?}");
    assert!(
        held.iter().any(|(_, one)| maps(&one.what)
            && one.program == "busybox"
            && one.pid_in_container > 1),
        "{held:?}"
    );
    assert!(next.exists(), "nothing was rolled back");
    assert!(!container.cgroup.is_frozen().unwrap(), "it goes on");
    // Once nobody holds it, it can be done.
    boxed
        .link
        .signal(main, Signal::USR1, teu_node::keeper::SignalScope::Leader)
        .await
        .unwrap();
    boxed.wait_output(main, "closed\n").await;
    roll_back(&pool, &container, false, &tree, &next).unwrap();
    assert_eq!(reads(&mut boxed, 1, "cat /data/version").await, "two\n");
}

#[tokio::test]
async fn a_volume_is_found_where_the_container_has_moved_it() {
    let rig = Rig::new().await;
    let pool = Pool::new(&rig);
    let (tree, next) = (pool.versioned("tree", "one"), pool.versioned("next", "two"));
    let inner = pool.versioned("inner", "inner");
    fs::create_dir(tree.join("in")).unwrap();
    let script = "busybox mv /new/a '/new/b c'; echo moved; sleep 100";
    let mut plan = rig.plan("moved", sh(script));
    plan.mounts = vec![mount(&tree, "/new/a/data"), mount(&inner, "/new/a/data/in")];
    let mounts = plan.mounts.clone();
    let mut boxed = rig.start("moved", plan).await;
    let main = boxed.main();
    boxed.wait_output(main, "moved\n").await;
    let container = mounts_of(&rig, &boxed, mounts);
    roll_back(&pool, &container, true, &tree, &next).unwrap();
    // The inner volume is still in it, though the other tree had no place for it.
    let script = "cd '/new/b c/data'; cat version in/version; ls /new";
    assert_eq!(reads(&mut boxed, 1, script).await, "two\ninner\nb c\n");
    assert_eq!(mounted(boxed.pid, "/new/b\\040c/data"), 1);
    assert_eq!(mounted(boxed.pid, "/new/b\\040c/data/in"), 1);
    assert!(container.shows(&tree).unwrap() && container.shows(&inner).unwrap());
}

#[tokio::test]
async fn what_a_dead_agent_left_is_finished() {
    let rig = Rig::new().await;
    let pool = Pool::new(&rig);
    let (tree, next) = (pool.versioned("tree", "one"), pool.versioned("next", "two"));
    let other = pool.versioned("other", "other");
    let mut plan = rig.plan("left", sh("echo up; sleep 100"));
    plan.mounts = vec![mount(&other, "/other"), mount(&tree, "/data")];
    let mounts = plan.mounts.clone();
    let mut boxed = rig.start("left", plan).await;
    let main = boxed.main();
    boxed.wait_output(main, "up\n").await;
    let container = mounts_of(&rig, &boxed, mounts);
    // It died after rolling back: the container stands still and would see the old tree.
    container.cgroup.freeze().unwrap();
    pool.replace(&tree, &next);
    assert!(!container.shows(&tree).unwrap());
    assert!(reconcile(&container).unwrap());
    assert!(!container.cgroup.is_frozen().unwrap());
    assert!(container.shows(&tree).unwrap());
    let read = "cat /data/version /other/version";
    assert_eq!(reads(&mut boxed, 1, read).await, "two\nother\n");
    // It died between unmounting and mounting.
    let unmounted = std::process::Command::new("nsenter")
        .arg(format!("--mount=/proc/{}/ns/mnt", boxed.pid))
        .args(["/bin/busybox", "umount", "/data"])
        .status()
        .unwrap();
    assert!(unmounted.success());
    assert_eq!(mounted(boxed.pid, "/data"), 0);
    assert!(reconcile(&container).unwrap());
    assert_eq!(reads(&mut boxed, 2, read).await, "two\nother\n");
    assert_eq!(
        (mounted(boxed.pid, "/data"), mounted(boxed.pid, "/other")),
        (1, 1)
    );
    // There is nothing more to do, now or for one that has ended.
    assert!(!reconcile(&container).unwrap());
    boxed.link.destroy().await.unwrap();
    boxed.events.wait_gone().await;
    assert!(!container.runs());
    assert!(!reconcile(&container).unwrap());
    roll_back_mounted(&[container], false, &tree, || Ok::<_, Infallible>(None)).unwrap();
}

#[tokio::test]
async fn a_frozen_container_can_be_thawed_by_another_and_destroyed() {
    let rig = Rig::new().await;
    let mut boxed = rig
        .run("frozen", "while :; do echo tick; usleep 1000; done")
        .await;
    let main = boxed.main();
    boxed.wait_output(main, "tick").await;
    let container = mounts_of(&rig, &boxed, Vec::new());
    // The first agent died without a guard's help.
    std::mem::forget(container.freeze().unwrap());
    assert!(container.cgroup.is_frozen().unwrap());
    // What it had written before is still read; then there is no more.
    let mut before = boxed.output(main).len();
    eventually("all output is read", || {
        let now = boxed.output(main).len();
        std::mem::replace(&mut before, now) == now
    })
    .await;
    let after_restart = mounts_of(&rig, &boxed, Vec::new());
    after_restart.cgroup.thaw().unwrap();
    after_restart.cgroup.thaw().unwrap();
    assert!(!after_restart.cgroup.is_frozen().unwrap());
    eventually("it goes on", || boxed.output(main).len() > before).await;
    // Frozen again, it can still be destroyed.
    std::mem::forget(container.freeze().unwrap());
    boxed.link.destroy().await.unwrap();
    boxed.events.wait_gone().await;
    assert_eq!(rig.leftovers(), Vec::<String>::new());
    container.cgroup.thaw().unwrap();
}

#[tokio::test]
async fn a_panic_while_rolling_back_leaves_nobody_frozen() {
    let rig = Rig::new().await;
    let pool = Pool::new(&rig);
    let tree = pool.versioned("tree", "one");
    let mut plan = rig.plan("panic", sh("sleep 100"));
    plan.mounts = vec![mount(&tree, "/data")];
    let mounts = plan.mounts.clone();
    let boxed = rig.start("panic", plan).await;
    let container = mounts_of(&rig, &boxed, mounts);
    let worker = container.clone();
    let outcome = tokio::task::spawn_blocking(move || {
        roll_back_mounted(&[worker], false, &tree, || -> Result<_, Infallible> {
            panic!("in the pool")
        })
    });
    assert!(outcome.await.is_err());
    assert!(!container.cgroup.is_frozen().unwrap());
}
