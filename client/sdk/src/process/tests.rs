//! Attached processes over links that come and go.

use std::time::Duration;

use futures::StreamExt as _;
use teu_protocol::{
    ids::StreamId,
    message::{
        Cause, Channel, ExitStatus, LogStart, Refusal, RefusalCode, ReplyBody, RequestBody,
        StreamEnd, StreamFrame, Termination,
    },
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    Container, Process,
    error::Error,
    session::{
        SessionHandle,
        fake::{FakeMaster, FarEnd, container, ready},
    },
};

const ENDED: Termination = Termination {
    status: ExitStatus::Code(7),
    cause: Cause::Exited,
};

async fn attached(
    session: &SessionHandle,
    far: &mut FarEnd,
    credit: u64,
) -> (Process, StreamId, u64) {
    let container = container(session);
    let attaching = tokio::spawn(async move { container.attach().await });
    let (body, stream, window) = far.open(credit).await;
    assert!(matches!(
        body,
        RequestBody::Attach {
            process: None,
            from: LogStart::Oldest,
            lossless: true,
            ..
        }
    ));
    (attaching.await.unwrap().unwrap(), stream, window)
}

#[tokio::test(start_paused = true)]
async fn output_resumes_by_cursor_without_loss_or_repetition() {
    let (session, mut master, mut far) = FakeMaster::connected(ready()).await;
    let (mut process, mut stream, _) = attached(&session, &mut far, 0).await;
    let content: Vec<u8> = (0..100u8).collect();
    // The cursor of a log is not the offset of its bytes: records have headers.
    let cursor = |at: usize| 1000 + 2 * at as u64;
    let reading = tokio::spawn(async move {
        let mut read = Vec::new();
        while let Some(chunk) = process.next_output().await {
            read.extend_from_slice(&chunk.unwrap().bytes);
        }
        (read, process.wait().await)
    });
    for (round, block) in content.chunks(10).enumerate() {
        let end = (round + 1) * 10;
        far.data(stream, Channel::Stdout, cursor(end - 5), &block[..5]);
        far.data(stream, Channel::Stdout, cursor(end), &block[5..]);
        drop(far);
        (_, far) = master.accept(ready()).await;
        let (body, next, _) = far.open(0).await;
        let RequestBody::Attach { from, .. } = body else {
            panic!("{body:?}")
        };
        assert_eq!(from, LogStart::Cursor(cursor(end)));
        stream = next;
    }
    far.close(stream, StreamEnd::Exited(ENDED));
    let (read, ended) = reading.await.unwrap();
    assert_eq!(read, content);
    assert_eq!(ended.unwrap(), ENDED);
}

#[tokio::test(start_paused = true)]
async fn output_resumes_when_the_node_comes_back() {
    let (session, _master, mut far) = FakeMaster::connected(ready()).await;
    let (mut process, stream, _) = attached(&session, &mut far, 0).await;
    let reading = tokio::spawn(async move {
        let mut read = Vec::new();
        while let Some(chunk) = process.next_output().await {
            read.extend_from_slice(&chunk.unwrap().bytes);
        }
        (read, process.wait().await)
    });
    far.data(stream, Channel::Stdout, 5, b"one");
    let lost = Refusal::new(RefusalCode::NodeLost, "the link to the node is down");
    far.close(stream, StreamEnd::Failed(lost));
    // The node is still away at the first question.
    let request = far.request().await;
    far.refuse(request.id, RefusalCode::NodeLost);
    let (body, stream, _) = far.open(0).await;
    let RequestBody::Attach { from, .. } = body else {
        panic!("{body:?}")
    };
    assert_eq!(from, LogStart::Cursor(5));
    far.data(stream, Channel::Stdout, 9, b"two");
    far.close(stream, StreamEnd::Exited(ENDED));
    let (read, ended) = reading.await.unwrap();
    assert_eq!(read, b"onetwo");
    assert_eq!(ended.unwrap(), ENDED);
}

#[tokio::test(start_paused = true)]
async fn an_end_without_an_exit_status_is_never_a_success() {
    for end in [
        StreamEnd::Done,
        StreamEnd::Reset,
        StreamEnd::Failed(Refusal::new(RefusalCode::Internal, "broken")),
    ] {
        let (session, _master, mut far) = FakeMaster::connected(ready()).await;
        let (mut process, stream, _) = attached(&session, &mut far, 0).await;
        far.data(stream, Channel::Stdout, 1, b"x");
        far.close(stream, end);
        assert_eq!(process.next_output().await.unwrap().unwrap().bytes, "x");
        assert!(process.next_output().await.unwrap().is_err());
        assert!(process.wait().await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_gone_after_the_reconnect_is_an_error() {
    let (session, mut master, mut far) = FakeMaster::connected(ready()).await;
    let (mut process, _, _) = attached(&session, &mut far, 0).await;
    drop(far);
    let waiting = tokio::spawn(async move { process.wait().await });
    let (_, mut far) = master.accept(ready()).await;
    let request = far.request().await;
    far.refuse(request.id, RefusalCode::NotFound);
    assert!(matches!(waiting.await.unwrap(), Err(Error::Refused { .. })));
}

#[tokio::test(start_paused = true)]
async fn the_channels_can_be_read_apart_and_end_only_with_the_process() {
    let (session, _master, mut far) = FakeMaster::connected(ready()).await;
    let (mut process, stream, _) = attached(&session, &mut far, 0).await;
    let (mut stdout, mut stderr) = (process.stdout(), process.stderr());
    far.data(stream, Channel::Stdout, 1, b"out");
    far.data(stream, Channel::Stderr, 2, b"err");
    far.frame(StreamFrame::Eof {
        stream,
        channel: Channel::Stdout,
    });
    far.close(stream, StreamEnd::Exited(ENDED));
    assert_eq!(process.wait().await.unwrap(), ENDED);
    let mut text = String::new();
    stderr.read_to_string(&mut text).await.unwrap();
    stdout.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "errout");
    let mut again = String::new();
    process.stdout().read_to_string(&mut again).await.unwrap();
    assert_eq!(again, "", "a channel is taken once");
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_nobody_took_does_not_hold_up_the_other() {
    let (session, _master, mut far) = FakeMaster::connected(ready()).await;
    let (mut process, stream, window) = attached(&session, &mut far, 0).await;
    let mut stdout = process.stdout();
    // A whole window of stderr, which nobody reads, then stdout.
    far.data(stream, Channel::Stderr, 1, &vec![0; window as usize]);
    let reading = tokio::spawn(async move {
        let mut text = String::new();
        stdout.read_to_string(&mut text).await.map(|_| text)
    });
    let (credit, _) = far.hear().await.unwrap();
    assert!(format!("{credit:?}").contains("Credit"), "{credit:?}");
    far.data(stream, Channel::Stdout, 2, b"out");
    far.close(stream, StreamEnd::Exited(ENDED));
    assert_eq!(reading.await.unwrap().unwrap(), "out");
}

#[tokio::test(start_paused = true)]
async fn a_broken_output_is_an_error_for_its_readers() {
    let (session, _master, mut far) = FakeMaster::connected(ready()).await;
    let (mut process, stream, _) = attached(&session, &mut far, 0).await;
    let mut stdout = process.stdout();
    far.data(stream, Channel::Stdout, 1, b"half");
    far.close(stream, StreamEnd::Done);
    let mut read = Vec::new();
    assert!(stdout.read_to_end(&mut read).await.is_err());
    assert_eq!(read, b"half");
}

async fn reattached(
    master: &mut FakeMaster,
    process: &mut Process,
    credit: u64,
) -> (FarEnd, StreamId) {
    let reopening = async {
        let (_, mut far) = master.accept(ready()).await;
        let (_, stream, _) = far.open(credit).await;
        (far, stream)
    };
    let (_, reopened) = tokio::join!(drive(process), reopening);
    reopened
}

/// Reads until nothing more happens. (Time only passes when all tasks wait.)
async fn drive(process: &mut Process) {
    let read = tokio::time::timeout(Duration::from_secs(1), process.next_output()).await;
    assert!(read.is_err(), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn input_goes_on_after_a_reconnect_and_its_end_is_said_again() {
    let (session, mut master, mut far) = FakeMaster::connected(ready()).await;
    let (mut process, stream, _) = attached(&session, &mut far, 100).await;
    let mut stdin = process.stdin().unwrap();
    assert!(process.stdin().is_none());
    stdin.write_all(b"one").await.unwrap();
    assert_eq!(far.next_frame().await.1, "one");
    // The process has consumed it, so nothing is uncertain.
    far.frame(StreamFrame::Credit { stream, bytes: 3 });
    drive(&mut process).await;
    drop(far);
    let (mut far, stream) = reattached(&mut master, &mut process, 100).await;
    stdin.write_all(b"two").await.unwrap();
    assert_eq!(far.next_frame().await.1, "two");
    stdin.shutdown().await.unwrap();
    let eof = StreamFrame::Eof {
        stream,
        channel: Channel::Stdin,
    };
    assert_eq!(far.next_frame().await.0, eof);
    far.frame(StreamFrame::Credit { stream, bytes: 3 });
    drive(&mut process).await;
    drop(far);
    let (mut far, stream) = reattached(&mut master, &mut process, 100).await;
    let eof = StreamFrame::Eof {
        stream,
        channel: Channel::Stdin,
    };
    assert_eq!(far.next_frame().await.0, eof);
    assert!(stdin.write_all(b"late").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn input_that_may_be_missing_is_not_passed_over_in_silence() {
    let (session, mut master, mut far) = FakeMaster::connected(ready()).await;
    let (mut process, _, _) = attached(&session, &mut far, 100).await;
    let mut stdin = process.stdin().unwrap();
    stdin.write_all(b"perhaps").await.unwrap();
    assert_eq!(far.next_frame().await.1, "perhaps");
    drop(far);
    let (_far, _) = reattached(&mut master, &mut process, 100).await;
    let error = stdin.write_all(b"more").await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    // With the end of input said already, there is no write left to fail.
    let (session, _master, mut far) = FakeMaster::connected(ready()).await;
    let (mut process, _, _) = attached(&session, &mut far, 100).await;
    let mut stdin = process.stdin().unwrap();
    stdin.write_all(b"perhaps").await.unwrap();
    stdin.shutdown().await.unwrap();
    assert_eq!(far.next_frame().await.1, "perhaps");
    drop(far);
    assert!(matches!(process.wait().await, Err(Error::InputLost)));
}

#[tokio::test(start_paused = true)]
async fn input_to_a_process_that_ended_is_a_broken_pipe_even_if_nobody_reads() {
    let (session, _master, mut far) = FakeMaster::connected(ready()).await;
    let (mut process, stream, _) = attached(&session, &mut far, 3).await;
    let mut stdin = process.stdin().unwrap();
    let writing = tokio::spawn(async move { stdin.write_all(b"too much").await });
    assert_eq!(far.next_frame().await.1, "too");
    far.close(stream, StreamEnd::Exited(ENDED));
    let error = writing.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
}

async fn exec(container: &Container, far: &mut FarEnd) -> (Process, StreamId) {
    let run = container.run(["ps", "-ef"]).env("A", "b").stdin(true);
    let running = tokio::spawn(run.start());
    let request = far.request().await;
    let RequestBody::Exec {
        process,
        bound: true,
        ..
    } = &request.body
    else {
        panic!()
    };
    assert_eq!(
        process.args.as_deref(),
        Some(&["ps".to_owned(), "-ef".to_owned()][..])
    );
    let id = teu_protocol::ids::ProcessId::from_bytes([3; 16]);
    far.reply(request.id, Ok(ReplyBody::Started(id)));
    let (body, stream, _) = far.open(0).await;
    assert!(matches!(body, RequestBody::Attach { process: Some(of), .. } if of == id));
    (running.await.unwrap().unwrap(), stream)
}

#[tokio::test(start_paused = true)]
async fn a_further_process_is_run_and_dropping_it_detaches() {
    let (session, _master, mut far) = FakeMaster::connected(ready()).await;
    let (process, stream) = exec(&container(&session), &mut far).await;
    drop(process);
    let (frame, _) = far.next_frame().await;
    assert_eq!(
        frame,
        StreamFrame::Close {
            stream,
            end: StreamEnd::Done
        }
    );
}

#[tokio::test(start_paused = true)]
async fn followed_logs_resume_and_end_with_the_process() {
    let (session, mut master, mut far) = FakeMaster::connected(ready()).await;
    let container = container(&session);
    let opening = tokio::spawn(async move { container.logs(LogStart::Tail(2), true).await });
    let (body, stream, _) = far.open(0).await;
    assert!(matches!(
        body,
        RequestBody::Logs {
            from: LogStart::Tail(2),
            follow: true,
            ..
        }
    ));
    let mut logs = opening.await.unwrap().unwrap();
    far.data(stream, Channel::Stderr, 42, b"a");
    let chunk = logs.next().await.unwrap().unwrap();
    assert_eq!((chunk.channel, chunk.cursor), (Channel::Stderr, 42));
    drop(far);
    let rest = tokio::spawn(async move { logs.next().await });
    let (_, mut far) = master.accept(ready()).await;
    let (body, stream, _) = far.open(0).await;
    assert!(matches!(
        body,
        RequestBody::Logs {
            from: LogStart::Cursor(42),
            ..
        }
    ));
    far.close(stream, StreamEnd::Exited(ENDED));
    assert!(rest.await.unwrap().is_none());
}
