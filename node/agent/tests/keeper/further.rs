//! Further processes in a running container (exec).

use bytes::Bytes;
use teu_node::keeper::{ExecPlan, ExitStatus, Refusal, SignalScope, StartError, TerminalSize};
use teu_protocol::ids::ProcessId;
use teu_protocol::image_config::signal::Signal;

use crate::rig::{BASE, Rig, command, eventually, sh, status_field};

#[tokio::test]
async fn they_share_the_container_and_have_their_own_log() {
    let rig = Rig::new().await;
    let mut boxed = rig.run("share", "touch /seen; echo main; sleep 100").await;
    boxed.wait_output(boxed.main(), "main").await;
    let mut process =
        sh("ls /seen; hostname; id -u; echo $$; ps | grep -c sleep; pwd; echo $GREETING; exit 5");
    process.env = vec![("GREETING".to_owned(), "hi there".to_owned())];
    process.cwd = "/tmp".into();
    let id = boxed.exec(1, process).await;
    let (exit, _) = boxed.events.exit_of(id).await;
    let text = boxed.output(id);
    assert_eq!(exit.status, ExitStatus::Code(5), "{text}");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(&lines[..3], ["/seen", "boxed", "0"], "{text}");
    assert_ne!(lines[3], "1");
    assert_eq!(&lines[5..], ["/tmp", "hi there"], "{text}");
    assert_eq!(boxed.output(boxed.main()), "main\n");
    boxed.link.forget(id).await.unwrap();
    boxed.link.destroy().await.unwrap();
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn they_are_mapped_and_limited_like_the_first() {
    let rig = Rig::new().await;
    let mut plan = rig.plan("mapped", sh("sleep 100"));
    plan.limits.pids = 6;
    let mut boxed = rig.start("mapped", plan).await;
    let started = boxed
        .link
        .exec(ExecPlan {
            id: ProcessId::from_bytes([1; 16]),
            process: command(&["sleep", "50"]),
        })
        .await
        .unwrap();
    assert!(status_field(started.pid, "Uid").starts_with(&BASE.to_string()));
    assert_eq!(status_field(started.pid, "Seccomp"), "2");
    for name in ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user"] {
        let of = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_eq!(of(started.pid), of(boxed.pid), "{name}");
    }
    let id = boxed
        .exec(
            2,
            sh("for i in 1 2 3 4 5 6 7; do sleep 50 & done; echo survived"),
        )
        .await;
    boxed.events.exit_of(id).await;
    assert!(boxed.output(id).contains("fork"), "{}", boxed.output(id));
    boxed.link.destroy().await.unwrap();
}

#[tokio::test]
async fn killing_one_kills_all_that_it_forked_and_nothing_else() {
    let rig = Rig::new().await;
    let mut boxed = rig.run("tree", "sleep 100").await;
    let id = boxed
        .exec(
            1,
            sh("sh -c 'sleep 90 & sleep 90' & sleep 90 & echo up; wait"),
        )
        .await;
    boxed.wait_output(id, "up").await;
    boxed
        .link
        .signal(id, Signal::KILL, SignalScope::Group)
        .await
        .unwrap();
    assert_eq!(
        boxed.events.exit_of(id).await.0.status,
        ExitStatus::Signal(libc::SIGKILL)
    );
    let look = boxed
        .exec(
            2,
            sh("ps | grep -c 'sleep 9[0]'; ps | grep -c 'sleep 10[0]'"),
        )
        .await;
    boxed.events.exit_of(look).await;
    assert_eq!(boxed.output(look), "0\n1\n");
    boxed.link.destroy().await.unwrap();
}

#[tokio::test]
async fn a_child_left_behind_does_not_hold_up_the_exit() {
    let rig = Rig::new().await;
    let mut boxed = rig.run("daemon", "sleep 100").await;
    let id = boxed.exec(1, sh("sleep 90 & echo started")).await;
    let (exit, _) = boxed.events.exit_of(id).await;
    assert_eq!(exit.status, ExitStatus::Code(0));
    assert_eq!(boxed.output(id), "started\n");
    boxed.link.destroy().await.unwrap();
}

#[tokio::test]
async fn terminal_and_stdin_work() {
    let rig = Rig::new().await;
    let mut boxed = rig.run("xtty", "sleep 100").await;
    let mut process = sh("stty size; read line; echo got $line");
    process.tty = Some(TerminalSize {
        rows: 10,
        columns: 20,
    });
    process.open_stdin = true;
    let id = boxed.exec(1, process).await;
    boxed
        .link
        .stdin(id, Bytes::from_static(b"words\n"), false)
        .await
        .unwrap();
    assert_eq!(boxed.events.exit_of(id).await.0.status, ExitStatus::Code(0));
    let text = boxed.output(id);
    assert!(
        text.contains("10 20\r\n") && text.contains("got words\r\n"),
        "{text:?}"
    );
    boxed.link.destroy().await.unwrap();
}

#[tokio::test]
async fn what_cannot_run_is_refused_and_the_container_goes_on() {
    let rig = Rig::new().await;
    let mut boxed = rig.run("norun", "sleep 100").await;
    let id = ProcessId::from_bytes([1; 16]);
    let error = boxed
        .link
        .exec(ExecPlan {
            id,
            process: command(&["nonesuch"]),
        })
        .await
        .unwrap_err();
    let StartError::Refused(refusal) = error else {
        panic!("{error:?}")
    };
    assert_eq!(
        refusal,
        Refusal::CommandNotFound {
            program: "nonesuch".to_owned()
        }
    );
    let logs = std::fs::read_dir(boxed.dir.join("logs")).unwrap().count();
    assert_eq!(logs, 1, "what did not run leaves no file");
    // The same id may be used again: nothing ran.
    boxed.exec(1, command(&["true"])).await;
    assert_eq!(boxed.events.exit_of(id).await.0.status, ExitStatus::Code(0));
    let again = boxed
        .link
        .exec(ExecPlan {
            id,
            process: command(&["true"]),
        })
        .await
        .unwrap_err();
    assert!(
        matches!(again, StartError::Refused(Refusal::ProcessExists)),
        "{again:?}"
    );
    boxed.link.destroy().await.unwrap();
}

#[tokio::test]
async fn they_end_with_the_container() {
    let rig = Rig::new().await;
    let mut process = sh("read go; exit 0");
    process.open_stdin = true;
    let mut boxed = rig.start("with", rig.plan("with", process)).await;
    let id = boxed.exec(1, command(&["sleep", "100"])).await;
    boxed
        .link
        .stdin(boxed.main(), Bytes::from_static(b"go\n"), true)
        .await
        .unwrap();
    assert_eq!(
        boxed.events.exit_of(id).await.0.status,
        ExitStatus::Signal(libc::SIGKILL)
    );
    assert_eq!(boxed.exit().await.status, ExitStatus::Code(0));
    boxed.events.wait_gone().await;
    eventually("nothing is left", || rig.leftovers().is_empty()).await;
}

#[tokio::test]
async fn a_keeper_forgets_old_ones_and_goes_on() {
    let rig = Rig::new().await;
    let mut boxed = rig.run("many", "sleep 1000").await;
    for number in 0..300u16 {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        let id = ProcessId::from_bytes(bytes);
        boxed
            .link
            .exec(ExecPlan {
                id,
                process: command(&["true"]),
            })
            .await
            .unwrap();
        assert_eq!(boxed.events.exit_of(id).await.0.status, ExitStatus::Code(0));
    }
    boxed.link.destroy().await.unwrap();
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn every_signal_that_a_program_can_handle_is_delivered() {
    let rig = Rig::new().await;
    let script = "for s in $(seq 1 64); do case $s in 9|17|19|32|33) ;; *) trap \"echo got $s\" $s; esac; done
        echo up; while :; do usleep 2000; done";
    let mut boxed = rig.run("signals", script).await;
    boxed.wait_output(boxed.main(), "up").await;
    let further = boxed.exec(1, sh(script)).await;
    boxed.wait_output(further, "up").await;
    for process in [boxed.main(), further] {
        for number in (1..=64_u8).filter(|n| ![9, 17, 19, 32, 33].contains(n)) {
            let signal = Signal::try_from(number).unwrap();
            boxed
                .link
                .signal(process, signal, SignalScope::Leader)
                .await
                .unwrap();
            boxed.wait_output(process, &format!("got {number}\n")).await;
        }
    }
    let last = Signal::real_time(30).unwrap();
    let id = boxed.exec(2, sh("exec sleep 90")).await;
    boxed
        .link
        .signal(id, last, SignalScope::Leader)
        .await
        .unwrap();
    assert_eq!(
        boxed.events.exit_of(id).await.0.status,
        ExitStatus::Signal(64)
    );
    boxed.link.destroy().await.unwrap();
}
