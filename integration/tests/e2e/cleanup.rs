//! What is left behind: nothing.

use std::time::{Duration, Instant};

use teu_integration::world::{
    Census, PATIENCE, World, eventually, interfaces, kill, patience, within,
};

use crate::{Own, wait};

pub(crate) const TRIALS: &[Own] = &[
    (
        "cleanup::kill_9_of_a_client_leaves_nothing_after_5_s",
        killed_client,
    ),
    ("cleanup::a_hundred_cycles_leave_nothing", cycles),
    (
        "cleanup::killed_and_stopped_keepers_leave_nothing_and_cost_no_spawn",
        broken_keepers,
    ),
    ("cleanup::stop_and_purge_leave_nothing", purge),
];

/// How long clean-up may take after a client was killed (design: 5 s).
const CLEAN_WITHIN: Duration = Duration::from_secs(5);

fn killed_client() {
    let world = World::start();
    world.import_busybox();
    // The first spawn extracts the layer; that stays, and is no leak.
    world.ok(["run", "--rm", "busybox", "true"]);
    settled(&world);
    let before = world.census();
    let mut clients: Vec<_> = (0..3)
        .map(|number| {
            let name = format!("victim-{number}");
            world
                .command(["run", "--rm", "--name", &name, "busybox", "sleep", "1000"])
                .spawn()
                .expect("teu is built")
        })
        .collect();
    eventually("all run", || world.ok(["ps", "-q"]).lines().count() == 3);
    for client in &mut clients {
        kill(client.id(), rustix::process::Signal::KILL);
        client.wait().expect("it ends");
    }
    within(CLEAN_WITHIN, "containers are gone", || {
        world.census().containers == before.containers
    });
    returns_to(&world, &before);
    assert_eq!(world.ok(["ps", "-a", "-q"]), "");
}

/// Waits until everything is as it was; shows the difference if it does not come to that.
fn returns_to(world: &World, before: &Census) {
    let deadline = Instant::now() + patience(PATIENCE);
    let mut now = world.census();
    while now != *before && Instant::now() < deadline {
        std::thread::park_timeout(Duration::from_millis(50));
        now = world.census();
    }
    assert_eq!(now, *before, "(left: now, right: before)");
}

/// Waits until the warm slots are complete: two looks that agree, half a second apart.
fn settled(world: &World) {
    let mut last = world.census();
    eventually("the warm slots are complete", || {
        std::thread::park_timeout(Duration::from_millis(500));
        let now = world.census();
        let same = now == last && now.links > 0;
        last = now;
        same
    });
}

fn cycles() {
    let world = World::start();
    world.import_busybox();
    world.ok(["run", "--rm", "busybox", "true"]);
    settled(&world);
    let before = world.census();
    wait(async {
        let location = world.connect().await.expect("connected");
        for round in 0..10 {
            let spawns: Vec<_> = (0..10)
                .map(|_| location.spawn("busybox").command(["sleep", "1000"]))
                .collect();
            for container in location.spawn_many(spawns).await {
                let container = container.unwrap_or_else(|error| panic!("round {round}: {error}"));
                container.destroy().await.expect("destroyed");
            }
        }
        location.close().await;
    });
    returns_to(&world, &before);
}

/// The location's keepers: children of the launcher, which is the agent's child.
fn keepers(world: &World) -> Vec<u32> {
    let group = format!("/{}/_keepers", world.instance());
    let field = |pid: u32, name: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(|rest| rest.trim().to_owned())
    };
    let parent = |pid: u32| field(pid, "PPid:").and_then(|parent| parent.parse().ok());
    let in_group = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        text.lines().any(|line| line.ends_with(&group))
    };
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    pids.filter(|pid| in_group(*pid) && parent(*pid).is_some_and(in_group))
        .filter(|pid| field(*pid, "Name:").is_none_or(|name| name != "teu-reaper"))
        .collect()
}

fn broken_keepers() {
    let world = World::start();
    world.import_busybox();
    world.ok(["run", "--rm", "busybox", "true"]);
    settled(&world);
    let before = world.census();
    // A container's keeper is killed: what it would have removed is removed all the same.
    let warm = keepers(&world);
    world.ok(["run", "-d", "--name", "orphan", "busybox", "sleep", "1000"]);
    world.ok(["exec", "orphan", "true"]);
    let init = world.ok(["exec", "orphan", "sh", "-c", "sleep 1000 & echo started"]);
    assert_eq!(init, "started");
    let keeper = warm.into_iter().find(|keeper| {
        let comm =
            |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        children(*keeper)
            .into_iter()
            .any(|child| comm(child) == "sleep\n")
    });
    kill(
        keeper.expect("its keeper was warm before"),
        rustix::process::Signal::KILL,
    );
    eventually("its end is noticed", || {
        world.ok(["ps", "-a"]).contains("exited (137)")
    });
    world.ok(["rm", "orphan"]);
    returns_to(&world, &before);
    // All warm keepers are killed or stopped: the next spawns take those that come after them.
    for (number, keeper) in keepers(&world).into_iter().enumerate() {
        let signal = if number % 2 == 0 {
            rustix::process::Signal::KILL
        } else {
            rustix::process::Signal::STOP
        };
        kill(keeper, signal);
    }
    let begun = Instant::now();
    for _ in 0..4 {
        assert_eq!(world.ok(["run", "--rm", "busybox", "echo", "fine"]), "fine");
    }
    assert!(begun.elapsed() < patience(Duration::from_secs(60)));
    returns_to(&world, &before);
}

fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

fn purge() {
    let world = World::start();
    world.import_busybox();
    world.ok(["run", "-d", "--name", "left", "busybox", "sleep", "1000"]);
    let (instance, data) = (world.instance().to_owned(), world.data());
    world.purge();
    let bridge = format!("{instance}0");
    assert!(!interfaces().contains(&bridge), "the bridge is gone");
    assert!(!data.exists(), "the data is gone");
    let tables = std::process::Command::new("nft")
        .args(["list", "tables"])
        .output();
    let tables = String::from_utf8_lossy(&tables.expect("nft").stdout).into_owned();
    assert!(!tables.contains(&format!("inet {instance}\n")), "{tables}");
    let census = world.census();
    assert_eq!(
        (census.links, census.keepers, census.cgroups),
        (0, 0, 0),
        "{census:?}"
    );
}
