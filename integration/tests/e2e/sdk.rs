//! The library, as a program uses it.

use std::time::{Duration, Instant};

use teu_integration::world::{World, patience};

use crate::{Own, Shared, wait};

pub(crate) const TRIALS: &[Shared] = &[
    (
        "sdk::a_process_has_a_handle_a_time_limit_and_an_end_when_dropped",
        process_handles,
    ),
    ("sdk::many_are_spawned_at_once", many),
    ("sdk::ready_is_not_the_same_as_started", readiness),
    ("sdk::wait_exit_tells_how_it_ended", exits),
    (
        "sdk::a_chosen_node_is_used_and_an_unknown_one_refused",
        placement,
    ),
    ("sdk::goodbye_destroys_what_the_session_owns", goodbye),
];

/// What others do would be in the offer too.
pub(crate) const ALONE: &[Own] = &[("sdk::the_offer_is_live", offer)];

fn offer() {
    let world = World::start();
    world.import_busybox();
    wait(async {
        let location = world.connect().await.expect("connected");
        let mut offer = location.offer();
        assert_eq!(offer.borrow_and_update().nodes[0].usage.containers, 0);
        let container = location
            .spawn("busybox")
            .command(["sleep", "1000"])
            .start()
            .await
            .expect("spawned");
        let patience = patience(Duration::from_secs(10));
        let more = offer.wait_for(|offer| offer.nodes[0].usage.containers == 1);
        tokio::time::timeout(patience, more)
            .await
            .expect("in time")
            .expect("live");
        container.destroy().await.expect("destroyed");
        let none = offer.wait_for(|offer| offer.nodes[0].usage.containers == 0);
        tokio::time::timeout(patience, none)
            .await
            .expect("in time")
            .expect("live");
        location.close().await;
    });
}

fn many(world: &World) {
    wait(async {
        let location = world.connect().await.expect("connected");
        let spawns: Vec<_> = (0..30)
            .map(|_| location.spawn("busybox").command(["sleep", "1000"]))
            .collect();
        let mut addresses: Vec<_> = location
            .spawn_many(spawns)
            .await
            .into_iter()
            .map(|container| container.expect("spawned").ip().expect("an address"))
            .collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 30, "addresses are unique");
        location.close().await;
    });
}

fn readiness(world: &World) {
    wait(async {
        let location = world.connect().await.expect("connected");
        let script = "sleep 1; exec httpd -f -p 80 -h /var/www";
        let container = location
            .spawn("busybox")
            .command(["sh", "-c", script])
            .start()
            .await
            .expect("spawned");
        let patience = Duration::from_secs(20);
        let started = Instant::now();
        container
            .wait_http_200(80, "/", patience)
            .await
            .expect("it answers");
        assert!(
            started.elapsed() > Duration::from_millis(500),
            "it was not ready at once"
        );
        let never = container.wait_tcp(81, Duration::from_millis(300)).await;
        assert!(never.is_err(), "nothing listens there");
        location.close().await;
    });
}

fn process_handles(world: &World) {
    wait(async {
        let location = world.connect().await.expect("connected");
        let spawn = location.spawn("busybox").command(["sleep", "1000"]);
        let container = spawn.start().await.expect("spawned");
        let script = "trap 'echo bye; exit 6' TERM; echo up; while :; do sleep 0.05; done";
        let id = container
            .run(["sh", "-c", script])
            .detached()
            .await
            .expect("started");
        let process = container.process(id);
        let mut attached = process.attach().await.expect("attached");
        let first = attached.next_output().await.expect("output");
        assert_eq!(&first.expect("output").bytes[..], b"up\n");
        process.signal(teu::Signal::TERM).await.expect("sent");
        let ended = process.wait().await.expect("ended");
        assert_eq!(ended.status, teu::ExitStatus::Code(6));
        assert_eq!(attached.wait().await.expect("ended"), ended);
        // Of one that has ended, too.
        assert_eq!(process.wait().await.expect("known"), ended);

        let slow = container
            .run(["sh", "-c", "echo so far; sleep 1000"])
            .timeout(Duration::from_millis(300))
            .output()
            .await
            .expect("its output so far");
        assert_eq!(slow.stdout, b"so far\n");
        assert_eq!(slow.termination.cause, teu::Cause::TimedOut);

        let dropped = container
            .run(["sleep", "999"])
            .kill_on_drop(true)
            .start()
            .await
            .expect("started");
        let process = container.process(dropped.id());
        drop(dropped);
        let ended = process.wait().await.expect("ended");
        assert_eq!(ended.status, teu::ExitStatus::Signal(9));

        container.destroy().await.expect("destroyed");
        assert_eq!(container.info().state, teu::ContainerState::Destroyed);
        location.close().await;
    });
}

fn exits(world: &World) {
    wait(async {
        let location = world.connect().await.expect("connected");
        let spawn = |script: &str| {
            location
                .spawn("busybox")
                .command(["sh", "-c", script])
                .start()
        };
        let seven = spawn("exit 7").await.expect("spawned");
        let termination = seven.wait_exit().await.expect("ended");
        assert_eq!(termination.status, teu::ExitStatus::Code(7));
        assert_eq!(termination.cause, teu::Cause::Exited);
        let killed = spawn("sleep 1000").await.expect("spawned");
        killed.signal(teu::Signal::KILL).await.expect("sent");
        let termination = killed.wait_exit().await.expect("ended");
        assert_eq!(termination.status, teu::ExitStatus::Signal(9));
        let hungry = location
            .spawn("busybox")
            .command([
                "sh",
                "-c",
                "head -c 200000000 /dev/zero | tail -c 100000000",
            ])
            .entrypoint(["sh", "-c", "exec tail -c 100000000 /dev/zero"])
            .memory(16 << 20)
            .start()
            .await
            .expect("spawned");
        let termination = hungry.wait_exit().await.expect("ended");
        assert_eq!(
            termination.cause,
            teu::Cause::OutOfMemory,
            "{termination:?}"
        );
        location.close().await;
    });
}

fn placement(world: &World) {
    wait(async {
        let location = world.connect().await.expect("connected");
        let node = location.ranked_nodes()[0].id;
        let container = location
            .spawn("busybox")
            .command(["sleep", "1000"])
            .node(node)
            .start()
            .await
            .expect("spawned");
        assert_eq!(container.info().node, node);
        let nowhere = teu::NodeId::from_bytes([9; 16]);
        let refused = location.spawn("busybox").node(nowhere).start().await;
        assert!(refused.is_err());
        location.close().await;
    });
}

fn goodbye(world: &World) {
    wait(async {
        let location = world.connect().await.expect("connected");
        let container = location
            .spawn("busybox")
            .command(["sleep", "1000"])
            .start()
            .await
            .expect("spawned");
        let directory = world
            .data()
            .join("node/containers")
            .join(container.id().to_string());
        assert!(directory.exists(), "{}", directory.display());
        location.close().await;
        let gone = async {
            while directory.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), gone)
            .await
            .expect("gone within 5 s");
    });
}
