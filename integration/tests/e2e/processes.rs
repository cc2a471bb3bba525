//! Standard input and output, exec, signals: every byte, and the truth about the end.

use std::{
    io::{Read as _, Write as _},
    process::Stdio,
};

use teu_integration::world::{World, eventually, kill, within};

use crate::Shared;

pub(crate) const TRIALS: &[Shared] = &[
    ("processes::stdin_reaches_the_program_and_ends", stdin),
    (
        "processes::every_byte_of_a_large_output_arrives",
        large_output,
    ),
    ("processes::a_slow_reader_loses_nothing", slow_reader),
    (
        "processes::exec_has_its_own_environment_and_exit_code",
        exec,
    ),
    ("processes::exec_dies_with_its_client", exec_dies),
    ("processes::interrupt_ends_a_foreground_run", interrupt),
    ("processes::stop_asks_then_kills", stop),
    ("processes::real_time_signals_are_delivered", real_time),
    ("processes::killed_execs_use_nothing_up", killed_execs),
    ("processes::a_timeout_ends_it_with_its_output", timeout),
    ("processes::an_exec_after_the_end_says_so", exec_after_end),
];

fn stdin(world: &World) {
    let mut child = world
        .command([
            "run",
            "-i",
            "--rm",
            "busybox",
            "sh",
            "-c",
            "wc -c; echo end",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("teu is built");
    let mut input = child.stdin.take().expect("a pipe");
    let block = vec![b'x'; 1 << 20];
    for _ in 0..5 {
        input.write_all(&block).expect("the program reads");
    }
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "5242880\nend\n");
    assert!(output.status.success());
}

/// Prints 40 MB of lines that differ, so that loss, repetition and reordering all show.
const COUNT_TO: u32 = 5_000_000;

fn large_output(world: &World) {
    let script = format!("seq 1 {COUNT_TO}; exit 5");
    let output = world.teu(["run", "--rm", "busybox", "sh", "-c", &script]);
    assert_eq!(output.status.code(), Some(5));
    check_sequence(&output.stdout);
}

fn check_sequence(printed: &[u8]) {
    let text = String::from_utf8_lossy(printed);
    let mut expected = 1;
    for line in text.lines() {
        assert_eq!(line.parse(), Ok(expected), "line {expected}");
        expected += 1;
    }
    assert_eq!(expected, COUNT_TO + 1);
}

fn slow_reader(world: &World) {
    let script = format!("seq 1 {COUNT_TO}");
    let mut child = world
        .command(["run", "--rm", "busybox", "sh", "-c", &script])
        .stdout(Stdio::piped())
        .spawn()
        .expect("teu is built");
    let mut output = child.stdout.take().expect("a pipe");
    // Another command is served while this one's output is not read at all.
    assert_eq!(
        world.ok(["run", "--rm", "busybox", "echo", "quick"]),
        "quick"
    );
    let mut printed = Vec::new();
    output.read_to_end(&mut printed).expect("output");
    check_sequence(&printed);
    assert!(child.wait().expect("it ends").success());
}

fn exec(world: &World) {
    world.ok([
        "run", "-d", "--name", "exec-one", "-e", "A=1", "busybox", "sleep", "1000",
    ]);
    let script = "echo $A $B; pwd; exit 4";
    let output = world.teu([
        "exec", "-e", "B=2", "-w", "/tmp", "exec-one", "sh", "-c", script,
    ]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1 2\n/tmp\n");
    assert_eq!(output.status.code(), Some(4));
    let missing = world.teu(["exec", "exec-one", "no-such-program"]);
    assert_eq!(missing.status.code(), Some(127));
    world.ok(["rm", "-f", "exec-one"]);
}

fn exec_dies(world: &World) {
    world.ok([
        "run", "-d", "--name", "exec-two", "busybox", "sleep", "1000",
    ]);
    let mut child = world
        .command(["exec", "exec-two", "sleep", "777"])
        .spawn()
        .expect("teu is built");
    let runs = || world.ok(["exec", "exec-two", "ps"]).contains("sleep 777");
    eventually("the process runs", runs);
    child.kill().expect("SIGKILL");
    child.wait().expect("it ends");
    within(
        std::time::Duration::from_secs(5),
        "the process ended with its client",
        || !runs(),
    );
    world.ok(["rm", "-f", "exec-two"]);
}

fn interrupt(world: &World) {
    let script = "trap 'exit 3' INT; echo ready; while :; do sleep 0.1; done";
    let mut child = world
        .command([
            "run", "--rm", "--name", "int-one", "busybox", "sh", "-c", script,
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("teu is built");
    let mut ready = [0; 6];
    child
        .stdout
        .as_mut()
        .expect("a pipe")
        .read_exact(&mut ready)
        .expect("it runs and we are attached");
    kill(child.id(), rustix::process::Signal::INT);
    assert_eq!(child.wait().expect("it ends").code(), Some(3));
    assert!(!world.ok(["ps", "-a"]).contains("int-one"));
}

fn real_time(world: &World) {
    let script = "trap 'exit 9' 37; trap 'echo hello' 40; while :; do sleep 0.1; done";
    world.ok([
        "run", "-d", "--name", "rt-one", "busybox", "sh", "-c", script,
    ]);
    eventually("the trap is set", || {
        world.ok(["exec", "rt-one", "ps"]).contains("sleep")
    });
    world.ok(["kill", "-s", "RTMIN+6", "rt-one"]);
    eventually("it hears the first", || {
        world.ok(["logs", "rt-one"]) == "hello"
    });
    world.ok(["stop", "-s", "SIGRTMIN+3", "rt-one"]);
    assert!(world.ok(["ps", "-a"]).contains("exited (9)"));
    let unknown = world.teu(["kill", "-s", "RTMIN+31", "rt-one"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("is not a signal"));
    world.ok(["rm", "rt-one"]);
}

fn killed_execs(world: &World) {
    world.ok([
        "run", "-d", "--pids", "16", "--name", "few", "busybox", "sleep", "1000",
    ]);
    for _ in 0..8 {
        let script = "sleep 500 & echo up; sleep 500";
        let killed = world.teu(["exec", "--timeout", "300ms", "few", "sh", "-c", script]);
        assert_eq!(killed.status.code(), Some(124));
        assert_eq!(String::from_utf8_lossy(&killed.stdout), "up\n");
    }
    // A command that is told to end ends its process, and what that has started.
    for _ in 0..8 {
        let script = "sleep 500 & sleep 500";
        let mut command = world.command(["exec", "few", "sh", "-c", script]);
        let mut told = command.spawn().expect("teu");
        eventually("it runs", || {
            world.ok(["exec", "few", "ps"]).contains("500")
        });
        let pid = rustix::process::Pid::from_child(&told);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it lives");
        assert!(!told.wait().expect("it ends").success());
    }
    eventually("all are dead and reaped", || {
        !world.ok(["exec", "few", "ps"]).contains("500")
    });
    assert!(!world.ok(["exec", "few", "ps"]).contains("[sleep]"));
    // And a container that is full says that it is.
    let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do sleep 300 & done; wait";
    world.ok(["exec", "-d", "few", "sh", "-c", script]);
    eventually("the container is full, and says so", || {
        let refused = world.teu(["exec", "few", "true"]);
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        refused.status.code() == Some(125) && text.contains("at its --pids limit (16)")
    });
    world.ok(["rm", "-f", "few"]);
}

fn timeout(world: &World) {
    world.ok(["run", "-d", "--name", "slow", "busybox", "sleep", "1000"]);
    let script = "echo so far; sleep 555 & sleep 555";
    let output = world.teu(["exec", "--timeout", "500ms", "slow", "sh", "-c", script]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "so far\n");
    assert_eq!(output.status.code(), Some(124));
    assert!(!world.ok(["exec", "slow", "ps"]).contains("555"));
    // It holds although nobody is there.
    world.ok(["exec", "-d", "--timeout", "300ms", "slow", "sleep", "666"]);
    eventually("the node ends it", || {
        !world.ok(["exec", "slow", "ps"]).contains("666")
    });
    world.ok(["rm", "-f", "slow"]);
    let script = "echo first; sleep 1000";
    let output = world.teu([
        "run",
        "--rm",
        "--init",
        "--timeout",
        "1s",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "first\n");
    assert_eq!(output.status.code(), Some(124));
}

fn exec_after_end(world: &World) {
    for round in 0..5 {
        let name = format!("short-{round}");
        world.ok(["run", "-d", "--name", &name, "busybox", "sleep", "0.3"]);
        let refused = loop {
            let output = world.teu(["exec", &name, "true"]);
            if !output.status.success() {
                break output;
            }
        };
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        // An exec that began is killed with the container.
        let killed = refused.status.code() == Some(137);
        assert!(killed || text.contains("has exited"), "{text}");
        world.ok(["rm", &name]);
    }
}

fn stop(world: &World) {
    let polite = "trap 'echo bye; exit 0' TERM; while :; do sleep 0.1; done";
    world.ok([
        "run", "-d", "--name", "polite", "busybox", "sh", "-c", polite,
    ]);
    eventually("the trap is set", || {
        world.ok(["exec", "polite", "ps"]).contains("sleep")
    });
    world.ok(["stop", "polite"]);
    assert_eq!(world.ok(["logs", "polite"]), "bye");
    world.ok([
        "run", "-d", "--name", "stubborn", "busybox", "sleep", "1000",
    ]);
    world.ok(["stop", "-t", "0", "stubborn"]);
    assert!(world.ok(["ps", "-a"]).contains("exited (137)"));
    world.ok(["rm", "polite", "stubborn"]);
}
