//! What exec started and nobody in the container waits for; the limit of processes; ends and starts
//! that meet.

use std::time::Duration;

use teu_node::keeper::{ExecPlan, ExitStatus, LinkError, Refusal, SignalScope, StartError, sweep};
use teu_protocol::{ids::ProcessId, image_config::signal::Signal};

use crate::rig::{Rig, Running, eventually, sh, status_field};

/// Dead processes in the container that nobody has waited for.
fn zombies(boxed: &Running) -> Vec<i32> {
    let space = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let first = status_field(boxed.pid, "NSpid");
    assert!(first.ends_with("\t1"), "{first}");
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let inside = |pid: &i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let of_ours = status.contains(&format!("PPid:\t{}\n", boxed.pid));
        let in_space = space(*pid).is_some() && space(*pid) == space(boxed.pid);
        status.contains("State:\tZ") && (of_ours || in_space)
    };
    pids.filter(inside).collect()
}

#[tokio::test]
async fn killed_execs_and_their_orphans_leave_no_zombies_in_a_container_that_never_waits() {
    let rig = Rig::new().await;
    let mut plan = rig.plan("zombies", crate::rig::command(&["sleep", "1000"]));
    plan.limits.pids = 16;
    let mut boxed = rig.start("zombies", plan).await;
    for number in 1..=20 {
        let id = boxed.exec(number, sh("sleep 90 & echo up; sleep 90")).await;
        boxed.wait_output(id, "up").await;
        boxed
            .link
            .signal(id, Signal::KILL, SignalScope::Group)
            .await
            .unwrap();
        let status = boxed.events.exit_of(id).await.0.status;
        assert_eq!(status, ExitStatus::Signal(libc::SIGKILL), "{number}");
    }
    // Orphans that end by themselves, after their parent.
    let id = boxed.exec(30, sh("usleep 100000 & exit 3")).await;
    let status = boxed.events.exit_of(id).await.0.status;
    assert_eq!(status, ExitStatus::Code(3));
    eventually("no zombie is left", || zombies(&boxed).is_empty()).await;
    boxed.link.destroy().await.unwrap();
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn the_container_can_neither_end_nor_look_into_the_reaper() {
    let rig = Rig::new().await;
    let mut boxed = rig.run("reaper", "sleep 1000").await;
    let script = "for p in /proc/[0-9]*; do c=; read c < $p/comm; [ $c = teu-reaper ] || continue
        n=${p#/proc/}; kill -9 $n 2>/dev/null && echo killed; ls $p/root/ 2>/dev/null; ls $p/fd/ 2>/dev/null; echo found; done";
    let id = boxed.exec(1, sh(script)).await;
    boxed.events.exit_of(id).await;
    assert_eq!(boxed.output(id), "found\n");
    boxed.link.destroy().await.unwrap();
}

#[tokio::test]
async fn a_full_container_is_said_to_be_at_its_limit() {
    let rig = Rig::new().await;
    let mut plan = rig.plan("full", sh("sleep 100 & echo up; sleep 100"));
    plan.limits.pids = 5;
    let mut boxed = rig.start("full", plan).await;
    boxed.wait_output(boxed.main(), "up").await;
    let id = boxed
        .exec(1, sh("sleep 91 & sleep 92 & sleep 93 & echo more; wait"))
        .await;
    eventually("the container is full", || {
        boxed.output(id).contains("fork")
    })
    .await;
    let plan = ExecPlan {
        id: ProcessId::from_bytes([2; 16]),
        process: sh("true"),
    };
    let refused = boxed.link.exec(plan).await.unwrap_err();
    assert!(
        matches!(
            refused,
            StartError::Refused(Refusal::PidsLimit { limit: 5 })
        ),
        "{refused}"
    );
    boxed.link.destroy().await.unwrap();
}

#[tokio::test]
async fn an_exec_that_meets_the_end_hears_that_the_container_has_exited() {
    let rig = Rig::new().await;
    for round in 0..20 {
        let name = format!("meet{round}");
        let boxed = rig.run(&name, "sleep 1000").await;
        // So that the reaper is there in half of the rounds.
        if round % 2 == 0 {
            boxed.exec(1, sh("true")).await;
        }
        let end = boxed
            .link
            .signal(boxed.main(), Signal::KILL, SignalScope::Leader);
        let plan = ExecPlan {
            id: ProcessId::from_bytes([2; 16]),
            process: sh("true"),
        };
        let (end, exec) = tokio::join!(end, boxed.link.exec(plan));
        end.unwrap();
        match exec {
            Ok(_)
            | Err(StartError::Refused(Refusal::NotRunning) | StartError::Link(LinkError::Gone)) => {
            }
            Err(error) => panic!("round {round}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_stopped_keeper_does_not_answer_and_can_be_cleared_away() {
    let rig = Rig::new().await;
    let (slot, link) = rig.warm("stopped").await;
    assert!(link.answers(Duration::from_secs(10)).await);
    let pid = rustix::process::Pid::from_raw(link.pid()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    assert!(!link.answers(Duration::from_millis(200)).await);
    link.kill();
    sweep(&rig.run_dir(), &rig.parent, &slot).unwrap();
    assert_eq!(rig.leftovers(), Vec::<String>::new());
    eventually("the keeper is dead", || {
        !std::path::Path::new(&format!("/proc/{}", link.pid())).exists()
    })
    .await;
    assert!(!link.answers(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn a_timeout_kills_all_that_was_started_and_keeps_the_output() {
    let rig = Rig::new().await;
    let mut boxed = rig.run("timeout", "sleep 1000").await;
    let mut process = sh("sleep 91 & echo so far; sleep 91");
    process.timeout_ms = Some(300);
    let id = boxed.exec(1, process).await;
    // Nobody has to be there for it.
    let (exit, _) = boxed.events.exit_of(id).await;
    assert_eq!(exit.status, ExitStatus::Signal(libc::SIGKILL));
    assert!(exit.timed_out && !exit.oom);
    assert_eq!(boxed.output(id), "so far\n");
    let look = boxed.exec(2, sh("ps | grep -c 'sleep 9[1]'")).await;
    boxed.events.exit_of(look).await;
    assert_eq!(boxed.output(look), "0\n");
    // What ends in time ends as it ends.
    let mut process = sh("exit 4");
    process.timeout_ms = Some(60_000);
    let id = boxed.exec(3, process).await;
    let (exit, _) = boxed.events.exit_of(id).await;
    assert_eq!((exit.status, exit.timed_out), (ExitStatus::Code(4), false));
    boxed.link.destroy().await.unwrap();
}

#[tokio::test]
async fn a_containers_timeout_ends_it_without_an_agent() {
    let rig = Rig::new().await;
    let mut process = sh("echo so far; sleep 91 & sleep 91");
    process.timeout_ms = Some(500);
    let boxed = rig.start("alone", rig.plan("alone", process)).await;
    let dir = boxed.dir.clone();
    drop(boxed);
    eventually("the exit is recorded", || {
        teu_node::keeper::ExitRecord::read(&dir).unwrap().is_some()
    })
    .await;
    let record = teu_node::keeper::ExitRecord::read(&dir).unwrap().unwrap();
    assert!(record.exit.timed_out, "{record:?}");
    eventually("nothing is left", || rig.leftovers().is_empty()).await;
}

#[tokio::test]
async fn an_init_reaps_orphans_passes_signals_on_and_ends_as_its_program() {
    let rig = Rig::new().await;
    let script =
        "trap 'echo asked; exit 7' TERM; (sleep 0.1 &); echo $$ up; while :; do usleep 5000; done";
    let mut process = sh(script);
    process.init = true;
    let mut boxed = rig.start("init", rig.plan("init", process)).await;
    boxed.wait_output(boxed.main(), "up").await;
    assert_eq!(boxed.output(boxed.main()), "2 up\n");
    // An orphan of the program: nobody but the init waits for it.
    let id = boxed
        .exec(
            1,
            sh("read c < /proc/1/comm; echo $c; cat /proc/1/environ 2>/dev/null"),
        )
        .await;
    boxed.events.exit_of(id).await;
    let seen = boxed.output(id);
    assert_eq!(seen, "teu-init\n");
    eventually("no zombie is left", || zombies(&boxed).is_empty()).await;
    boxed
        .link
        .signal(boxed.main(), Signal::TERM, SignalScope::Leader)
        .await
        .unwrap();
    let (exit, text) = boxed.finish().await;
    assert_eq!(exit.status, ExitStatus::Code(7), "{text}");
    assert_eq!(text, "2 up\nasked\n");
    // A signal that the program does not handle ends it, as it would not as a first process.
    let mut process = crate::rig::command(&["sleep", "1000"]);
    process.init = true;
    let mut boxed = rig.start("init2", rig.plan("init2", process)).await;
    eventually("the program executes", || {
        std::fs::read_to_string(format!("/proc/{}/comm", boxed.pid)).unwrap() == "teu-init\n"
    })
    .await;
    boxed
        .link
        .signal(
            boxed.main(),
            Signal::real_time(3).unwrap(),
            SignalScope::Leader,
        )
        .await
        .unwrap();
    assert_eq!(boxed.exit().await.status, ExitStatus::Code(128 + 37));
    boxed.events.wait_gone().await;
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn behind_an_init_a_terminal_is_the_programs() {
    let rig = Rig::new().await;
    let mut process = sh(
        "trap 'echo interrupted; exit 3' INT; stty size; echo up; while :; do usleep 5000; done",
    );
    process.init = true;
    process.open_stdin = true;
    process.tty = Some(teu_node::keeper::TerminalSize {
        rows: 12,
        columns: 34,
    });
    let mut boxed = rig.start("inittty", rig.plan("inittty", process)).await;
    boxed.wait_output(boxed.main(), "up").await;
    boxed
        .link
        .stdin(boxed.main(), bytes::Bytes::from_static(b"\x03"), false)
        .await
        .unwrap();
    let (exit, text) = boxed.finish().await;
    assert_eq!(exit.status, ExitStatus::Code(3), "{text}");
    assert!(text.contains("12 34"), "{text}");
}
