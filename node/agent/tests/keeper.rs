//! Keepers against the real kernel, as root: what runs, what is refused, what is left.
//!
//! Each test has an instance of its own, so they run side by side. They need `/bin/busybox`
//! (package busybox-static) and fail with a clear message without it.

#[path = "keeper/rig.rs"]
mod rig;

use rig::{Rig, command, sh};
use teu_node::keeper::{ExitStatus, Refusal, StartError};

#[tokio::test]
async fn output_and_exit_code_are_told() {
    let rig = Rig::new().await;
    let mut box_ = rig.run("out", "echo hello; echo oops >&2; exit 7").await;
    let (exit, text) = box_.finish().await;
    assert_eq!(exit.status, ExitStatus::Code(7));
    assert!(!exit.oom);
    assert!(text.contains("hello\n") && text.contains("oops\n"), "{text}");
    assert_eq!(box_.exit_record().exit, exit);
    box_.events.wait_gone().await;
    assert_eq!(rig.leftovers(), Vec::<String>::new());
}
