//! Crashes of master and node: containers go on, sessions are found again, no output is lost.

use std::io::Read as _;
use std::process::Stdio;

use teu_integration::world::{World, eventually, free_port, get};

use crate::{Own, wait};

pub(crate) const TRIALS: &[Own] = &[
    ("persistence::containers_survive_kill_9_of_the_agent", agent),
    (
        "persistence::containers_survive_kill_9_of_the_master",
        master,
    ),
    (
        "persistence::handles_stay_valid_over_a_master_restart",
        handles,
    ),
    (
        "persistence::what_ended_while_the_agent_was_down_is_known",
        ended_meanwhile,
    ),
    (
        "persistence::output_goes_on_when_the_agent_restarts",
        followed,
    ),
    ("persistence::orphans_of_a_dead_keeper_are_reported", keeper),
];

fn start_server(world: &World) -> (String, String) {
    world.import_busybox();
    let address = format!("127.0.0.1:{}", free_port());
    let publish = format!("{}:80", address.rsplit(':').next().unwrap_or_default());
    let id = world.ok([
        "run", "-d", "--name", "web", "-p", &publish, "busybox", "httpd", "-f", "-p", "80", "-h",
        "/var/www",
    ]);
    get(address.as_str(), "/");
    (id, address)
}

/// The first process, as the host sees it: restarts must not change it.
fn pid_of(id: &str) -> Vec<u32> {
    let found = std::process::Command::new("pgrep")
        .args(["-f", "httpd -f -p 80"])
        .output();
    let text = String::from_utf8_lossy(&found.expect("pgrep").stdout).into_owned();
    let in_container = |pid: &u32| {
        // Other tests have a container of this name too; the writable layer is its own.
        std::fs::read_to_string(format!("/proc/{pid}/mountinfo"))
            .is_ok_and(|mounts| mounts.contains(id))
    };
    text.lines()
        .filter_map(|pid| pid.parse().ok())
        .filter(in_container)
        .collect()
}

fn found_again(world: &World, id: &str, address: &str, pids: &[u32]) {
    eventually("ps finds it again", || {
        let listed = world.teu(["ps", "-q"]);
        String::from_utf8_lossy(&listed.stdout).contains(id)
    });
    assert_eq!(pid_of(id), pids, "the same process");
    get(address, "/");
    assert!(world.ok(["exec", "web", "ps"]).contains("httpd"));
    world.ok(["logs", "web"]);
    world.ok(["stop", "-t", "0", "web"]);
    world.ok(["rm", "web"]);
    assert_eq!(world.ok(["ps", "-a", "-q"]), "");
}

fn agent() {
    let world = World::start();
    let (id, address) = start_server(&world);
    let pids = pid_of(&id);
    assert!(!pids.is_empty(), "the server runs");
    world.kill_daemon("teu-node");
    found_again(&world, &id, &address, &pids);
}

fn master() {
    let world = World::start();
    let (id, address) = start_server(&world);
    let pids = pid_of(&id);
    world.kill_daemon("teu-master");
    found_again(&world, &id, &address, &pids);
}

/// One program, connected all the time: reads every line although both daemons are killed.
fn handles() {
    let world = World::start();
    world.import_busybox();
    let script = "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); sleep 0.05; done; exit 6";
    let mut client = world
        .command([
            "run", "--rm", "--name", "counter", "busybox", "sh", "-c", script,
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("teu is built");
    let mut output = client.stdout.take().expect("a pipe");
    let mut first = [0; 7];
    output.read_exact(&mut first).expect("the first line");
    world.kill_daemon("teu-master");
    world.kill_daemon("teu-node");
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("the rest");
    let text = String::from_utf8_lossy(&first).into_owned() + &rest;
    let expected: String = (0..300).map(|i| format!("line {i}\n")).collect();
    assert_eq!(text, expected);
    assert_eq!(client.wait().expect("it ends").code(), Some(6));
}

fn ended_meanwhile() {
    let world = World::start();
    world.import_busybox();
    wait(async {
        let location = world.connect().await.expect("connected");
        let script = "echo before; sleep 1; echo after; exit 8";
        let container = location
            .spawn("busybox")
            .command(["sh", "-c", script])
            .start()
            .await
            .expect("spawned");
        world.kill_daemon("teu-node");
        let termination = container.wait_exit().await.expect("ended");
        assert_eq!(termination.status, teu::ExitStatus::Code(8));
        location.close().await;
    });
}

fn keeper() {
    let world = World::start();
    world.import_busybox();
    wait(async {
        let location = world.connect().await.expect("connected");
        let container = location
            .spawn("busybox")
            .command(["sleep", "4321"])
            .start()
            .await
            .expect("spawned");
        let killed = std::process::Command::new("pkill")
            .args(["-9", "-f", "^sleep 4321"])
            .status();
        assert!(killed.expect("pkill").success());
        let termination = container.wait_exit().await.expect("ended");
        assert_eq!(termination.status, teu::ExitStatus::Signal(9));
        location.close().await;
    });
}

fn followed() {
    let world = World::start();
    world.import_busybox();
    let count_to = |last: u32| {
        format!("i=0; while [ $i -lt {last} ]; do i=$((i+1)); echo $i; sleep 0.05; done")
    };
    // The first process ends last: its end would kill the other.
    let (first, second) = (count_to(100), count_to(50));
    world.ok([
        "run", "-d", "--name", "ticker", "busybox", "sh", "-c", &first,
    ]);
    let reading = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.spawn().expect("teu starts")
    };
    let logs = reading(&["logs", "-f", "ticker"]);
    let exec = reading(&["exec", "ticker", "sh", "-c", &second]);
    eventually("both are running", || {
        world.ok(["exec", "ticker", "ps"]).matches("sh -c").count() == 2
            && !world.ok(["logs", "-n", "1", "ticker"]).is_empty()
    });
    world.kill_daemon("teu-node");
    for (what, reader, last) in [("exec", exec, 50), ("logs -f", logs, 100)] {
        let expected: String = (1..=last).map(|number| format!("{number}\n")).collect();
        let output = reader.wait_with_output().expect("it ends");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            expected,
            "{what}: {}",
            output.status
        );
        assert!(output.status.success(), "{what}");
    }
}
