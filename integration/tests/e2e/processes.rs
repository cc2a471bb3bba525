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
