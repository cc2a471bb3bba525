//! Keepers against the real kernel, as root: what runs, what is refused, what is left.
//!
//! Each test has an instance of its own, so they run side by side. They need `/bin/busybox`
//! (package busybox-static) and fail with a clear message without it.

// Clippy allows this in test functions only, and most of this program helps them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "keeper/confinement.rs"]
mod confinement;
#[path = "keeper/death.rs"]
mod death;
#[path = "keeper/further.rs"]
mod further;
#[path = "keeper/host.rs"]
mod host;
#[path = "keeper/odd_images.rs"]
mod odd_images;
#[path = "keeper/places.rs"]
mod places;
#[path = "keeper/reaping.rs"]
mod reaping;
#[path = "keeper/rig.rs"]
mod rig;
#[path = "keeper/root.rs"]
mod root;
#[path = "keeper/stdio.rs"]
mod stdio;
#[path = "keeper/unified.rs"]
mod unified;
#[path = "keeper/users.rs"]
mod users;
#[path = "keeper/volume_exchange.rs"]
mod volume_exchange;
#[path = "keeper/volume_lab.rs"]
mod volume_lab;
#[path = "keeper/volume_pool.rs"]
mod volume_pool;
#[path = "keeper/volume_requests.rs"]
mod volume_requests;
#[path = "keeper/volume_worker.rs"]
mod volume_worker;
#[path = "keeper/volumes.rs"]
mod volumes;
#[path = "keeper/working_dirs.rs"]
mod working_dirs;

use rig::{Rig, command, sh};
use teu_node::keeper::{ExitStatus, Refusal, StartError};
use teu_protocol::image_config::signal::Signal;

#[tokio::test]
async fn output_and_exit_code_are_told() {
    let rig = Rig::new().await;
    let mut boxed = rig.run("out", "echo hello; echo oops >&2; exit 7").await;
    let (exit, text) = boxed.finish().await;
    assert_eq!(exit.status, ExitStatus::Code(7));
    assert!(!exit.oom);
    assert!(
        text.contains("hello\n") && text.contains("oops\n"),
        "{text}"
    );
    assert_eq!(boxed.exit_record().exit, exit);
    boxed.events.wait_gone().await;
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_signal_is_told_as_one() {
    let rig = Rig::new().await;
    let mut boxed = rig
        .run(
            "sig",
            "trap 'kill -9 $$' TERM; echo up; while :; do usleep 10000; done",
        )
        .await;
    // The first process of a pid namespace dies of outside signals only.
    boxed.wait_output(boxed.main(), "up").await;
    boxed
        .link
        .signal(
            boxed.main(),
            Signal::KILL,
            teu_node::keeper::SignalScope::Leader,
        )
        .await
        .unwrap();
    assert_eq!(boxed.exit().await.status, ExitStatus::Signal(libc::SIGKILL));
}

#[tokio::test]
async fn sigterm_reaches_a_handler() {
    let rig = Rig::new().await;
    let mut boxed = rig
        .run(
            "term",
            "trap 'echo bye; exit 3' TERM; echo up; while :; do usleep 10000; done",
        )
        .await;
    boxed.wait_output(boxed.main(), "up").await;
    boxed
        .link
        .signal(
            boxed.main(),
            Signal::TERM,
            teu_node::keeper::SignalScope::Leader,
        )
        .await
        .unwrap();
    let (exit, text) = boxed.finish().await;
    assert_eq!(
        (exit.status, text.as_str()),
        (ExitStatus::Code(3), "up\nbye\n")
    );
}

#[tokio::test]
async fn commands_that_cannot_run_say_so_and_leave_nothing() {
    let rig = Rig::new().await;
    let table = [
        ("c0", command(&["nonesuch"]), 127),
        ("c1", command(&["/bin/nonesuch"]), 127),
        ("c2", command(&["/etc/plain"]), 126),
        ("c3", command(&["/etc"]), 126),
        ("c4", command(&[]), 127),
    ];
    for (name, process, code) in table {
        let (_, link) = rig.warm(name).await;
        let mut events = rig::Events::new(&link);
        let error = link.start(rig.plan(name, process)).await.unwrap_err();
        let StartError::Refused(refusal) = error else {
            panic!("{error:?}")
        };
        assert_eq!(refusal.exit_code(), Some(code), "{refusal:?}");
        events.wait_gone().await;
        assert!(events.exits.is_empty(), "it never ran, so it never ended");
    }
    rig::eventually("nothing is left", || rig.leftovers().is_empty()).await;
}

#[tokio::test]
async fn a_script_without_its_interpreter_and_an_unknown_user_are_refused() {
    let rig = Rig::new().await;
    let (_, link) = rig.warm("nouser").await;
    let mut process = sh("true");
    process.user = "nobody-here".to_owned();
    let error = link.start(rig.plan("nouser", process)).await.unwrap_err();
    assert!(
        matches!(error, StartError::Refused(Refusal::UnknownUser(_))),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_slot_starts_one_container_only() {
    let rig = Rig::new().await;
    let boxed = rig.run("once", "sleep 100").await;
    let again = boxed
        .link
        .start(rig.plan("twice", sh("true")))
        .await
        .unwrap_err();
    assert!(
        matches!(again, StartError::Refused(Refusal::NotWarm)),
        "{again:?}"
    );
    boxed.link.destroy().await.unwrap();
    assert_eq!(rig.leftovers(), Vec::<String>::new());
    assert_eq!(
        boxed.exit_record().exit.status,
        ExitStatus::Signal(libc::SIGKILL)
    );
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let rig = Rig::new().await;
    let (slot, link) = rig.warm("same").await;
    assert!(rig.launcher.fork_keeper(&slot).await.is_err());
    link.destroy().await.unwrap();
    assert_eq!(rig.leftovers(), Vec::<String>::new());
    rig.warm("same").await.1.destroy().await.unwrap();
}
