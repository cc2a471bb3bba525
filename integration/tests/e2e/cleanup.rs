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
