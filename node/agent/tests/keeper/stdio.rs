//! Standard streams, terminals and logs of real processes.

use bytes::Bytes;
use teu_node::keeper::{
    Channel, ExitStatus, KeeperLink, LogLimits, LogReader, Refusal, STDIN_WINDOW, StartError,
    TerminalSize, socket_path,
};

use crate::rig::{Events, Rig, command, eventually, read_log, sh};

#[tokio::test]
async fn streams_keep_their_channel() {
    let rig = Rig::new().await;
    let mut boxed = rig.run("chan", "echo out; echo err >&2").await;
    boxed.exit().await;
    let records = read_log(&boxed.dir, boxed.main());
    assert!(
        records.contains(&(Channel::Stdout, b"out\n".to_vec())),
        "{records:?}"
    );
    assert!(
        records.contains(&(Channel::Stderr, b"err\n".to_vec())),
        "{records:?}"
    );
}

#[tokio::test]
async fn stdin_goes_round_with_credit_and_end() {
    let rig = Rig::new().await;
    let mut process = command(&["cat"]);
    process.open_stdin = true;
    let mut boxed = rig.start("cat", rig.plan("cat", process)).await;
    let sent: Vec<u8> = (0..2_000_000u32).map(|n| (n % 251) as u8).collect();
    let (id, mut offset) = (boxed.main(), 0);
    while offset < sent.len() {
        let consumed = boxed.events.consumed.get(&id).copied().unwrap_or(0);
        let room = STDIN_WINDOW - (offset as u64 - consumed);
        if room == 0 {
            assert!(boxed.events.next().await);
            continue;
        }
        let end = sent.len().min(offset + room as usize);
        let piece = Bytes::copy_from_slice(&sent[offset..end]);
        boxed
            .link
            .stdin(id, piece, end == sent.len())
            .await
            .unwrap();
        offset = end;
    }
    assert_eq!(boxed.exit().await.status, ExitStatus::Code(0));
    assert_eq!(boxed.bytes(id), sent);
}

#[tokio::test]
async fn stdin_beyond_the_credit_is_refused_and_closed_stdin_is_null() {
    let rig = Rig::new().await;
    let mut process = command(&["sleep", "100"]);
    process.open_stdin = true;
    let boxed = rig.start("over", rig.plan("over", process)).await;
    // The pipe itself takes 64 KiB, the keeper holds a window.
    let too_much = vec![0; STDIN_WINDOW as usize + 1];
    let error = boxed
        .link
        .stdin(boxed.main(), too_much.into(), false)
        .await
        .unwrap_err();
    assert!(
        matches!(error, StartError::Refused(Refusal::StdinOverrun)),
        "{error:?}"
    );
    let mut closed = rig.start("null", rig.plan("null", command(&["cat"]))).await;
    assert_eq!(closed.exit().await.status, ExitStatus::Code(0));
}

#[tokio::test]
async fn a_terminal_has_its_size_from_the_start_and_can_be_resized() {
    let rig = Rig::new().await;
    let mut process =
        sh("trap 'stty size; exit 0' WINCH; stty size; tty; while :; do usleep 10000; done");
    process.tty = Some(TerminalSize {
        rows: 33,
        columns: 101,
    });
    process.open_stdin = true;
    let mut boxed = rig.start("tty", rig.plan("tty", process)).await;
    boxed.wait_output(boxed.main(), "/dev/pts/0").await;
    assert!(boxed.output(boxed.main()).starts_with("33 101\r\n"));
    boxed.link.resize(boxed.main(), 44, 55).await.unwrap();
    let (exit, text) = boxed.finish().await;
    assert_eq!(exit.status, ExitStatus::Code(0));
    assert!(text.ends_with("44 55\r\n"), "{text:?}");
}

#[tokio::test]
async fn ctrl_c_reaches_the_foreground_of_a_terminal() {
    let rig = Rig::new().await;
    let mut process = sh("trap 'echo caught; exit 4' INT; echo up; while :; do usleep 10000; done");
    process.tty = Some(TerminalSize {
        rows: 24,
        columns: 80,
    });
    process.open_stdin = true;
    let mut boxed = rig.start("ctrlc", rig.plan("ctrlc", process)).await;
    boxed.wait_output(boxed.main(), "up").await;
    boxed
        .link
        .stdin(boxed.main(), Bytes::from_static(b"\x03"), false)
        .await
        .unwrap();
    let (exit, text) = boxed.finish().await;
    assert_eq!(exit.status, ExitStatus::Code(4), "{text:?}");
}

#[tokio::test]
async fn the_user_can_reopen_its_own_streams() {
    let rig = Rig::new().await;
    let mut process = sh("echo again > /dev/stdout; echo err > /dev/stderr");
    process.user = "web".to_owned();
    let mut boxed = rig.start("reopen", rig.plan("reopen", process)).await;
    let (exit, text) = boxed.finish().await;
    assert_eq!(exit.status, ExitStatus::Code(0), "{text}");
    assert!(text.contains("again") && text.contains("err"), "{text}");
}

#[tokio::test]
async fn logs_are_bounded_and_tell_what_is_lost() {
    let rig = Rig::new().await;
    let mut plan = rig.plan("bound", sh("seq 1 200000"));
    plan.log = LogLimits {
        segment_bytes: 128 << 10,
        segments: 2,
    };
    let mut boxed = rig.start("bound", plan).await;
    boxed.exit().await;
    let chunk = LogReader::new(&boxed.dir, boxed.main())
        .read(0.into(), 1 << 20)
        .unwrap();
    // The rest is the end of it, and says how much is missing before it.
    let (first, kept) = (&chunk.records[0], boxed.bytes(boxed.main()).len() as u64);
    let all: u64 = (1..=200_000).map(|n| format!("{n}\n").len() as u64).sum();
    assert!(first.start > 0);
    assert_eq!(first.start + kept, all);
    let kept: u64 = std::fs::read_dir(boxed.dir.join("logs"))
        .unwrap()
        .map(|one| one.unwrap().metadata().unwrap().len())
        .sum();
    assert!(kept <= 256 << 10, "{kept}");
    assert!(boxed.output(boxed.main()).ends_with("200000\n"));
}

#[tokio::test]
async fn a_restarted_agent_adopts_and_no_byte_is_lost() {
    let rig = Rig::new().await;
    let mut process = sh("read a; seq 1 50000; read b; echo end");
    process.open_stdin = true;
    let boxed = rig.start("adopt", rig.plan("adopt", process)).await;
    let (id, pid) = (boxed.main(), boxed.pid);
    boxed
        .link
        .stdin(id, Bytes::from_static(b"go\n"), false)
        .await
        .unwrap();
    // The old agent vanishes in the middle of the output, without a word.
    let (dir, container) = (boxed.dir.clone(), boxed.container);
    drop(boxed);
    let (link, hello) =
        KeeperLink::connect(&socket_path(&rig.run_dir(), &"adopt".parse().unwrap()))
            .await
            .unwrap();
    assert_eq!(hello.container, Some(container));
    assert_eq!(hello.processes.len(), 1);
    assert_eq!((hello.processes[0].id, hello.processes[0].pid), (id, pid));
    assert!(hello.processes[0].exit.is_none());
    assert_eq!(hello.processes[0].stdin_consumed, 3);
    let mut events = Events::new(&link);
    link.stdin(id, Bytes::from_static(b"go\n"), false)
        .await
        .unwrap();
    let (exit, end) = events.exit_of(id).await;
    assert_eq!(exit.status, ExitStatus::Code(0));
    let bytes: Vec<u8> = read_log(&dir, id)
        .into_iter()
        .flat_map(|one| one.1)
        .collect();
    let mut expected: String = (1..=50_000).map(|n| format!("{n}\n")).collect();
    expected.push_str("end\n");
    assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    assert_eq!(end, expected.len() as u64);
}

#[tokio::test]
async fn the_newest_agent_is_the_agent() {
    let rig = Rig::new().await;
    let mut boxed = rig.run("newest", "sleep 100").await;
    let path = socket_path(&rig.run_dir(), &boxed.slot);
    let (newer, _) = KeeperLink::connect(&path).await.unwrap();
    boxed.events.wait_gone().await;
    assert!(
        boxed.link.destroy().await.is_err(),
        "the older connection is over"
    );
    newer.destroy().await.unwrap();
    eventually("nothing is left", || rig.leftovers().is_empty()).await;
}
