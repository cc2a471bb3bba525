//! Attached processes over links that come and go.

use std::time::Duration;

use futures::StreamExt as _;
use teu_protocol::{
    ids::StreamId,
    message::{
        Cause, Channel, ExitStatus, LogStart, Place, Refusal, RefusalCode, ReplyBody, RequestBody,
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
    let cursor = |at: usize| 1000 + at as u64;
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
    far.data(stream, Channel::Stdout, 8, b"two");
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
    far.data(stream, Channel::Stdout, 3, b"out");
    far.data(stream, Channel::Stderr, 6, b"err");
    far.frame(StreamFrame::Eof {
        stream,
        channel: Channel::Stdout,
        cursor: 0,
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
    far.data(stream, Channel::Stderr, window, &vec![0; window as usize]);
    let reading = tokio::spawn(async move {
        let mut text = String::new();
        stdout.read_to_string(&mut text).await.map(|_| text)
    });
    let (credit, _) = far.hear().await.unwrap();
    assert!(format!("{credit:?}").contains("Credit"), "{credit:?}");
    far.data(stream, Channel::Stdout, window + 3, b"out");
    far.close(stream, StreamEnd::Exited(ENDED));
    assert_eq!(reading.await.unwrap().unwrap(), "out");
}

#[tokio::test(start_paused = true)]
async fn a_broken_output_is_an_error_for_its_readers() {
    let (session, _master, mut far) = FakeMaster::connected(ready()).await;
    let (mut process, stream, _) = attached(&session, &mut far, 0).await;
    let mut stdout = process.stdout();
    far.data(stream, Channel::Stdout, 4, b"half");
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
        cursor: 6,
    };
    assert_eq!(far.next_frame().await.0, eof);
    far.frame(StreamFrame::Credit { stream, bytes: 3 });
    drive(&mut process).await;
    drop(far);
    let (mut far, stream) = reattached(&mut master, &mut process, 100).await;
    let eof = StreamFrame::Eof {
        stream,
        channel: Channel::Stdin,
        cursor: 6,
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
    let (session, mut master, mut far) = FakeMaster::connected(ready()).await;
    let (mut process, _, _) = attached(&session, &mut far, 100).await;
    let mut stdin = process.stdin().unwrap();
    stdin.write_all(b"perhaps").await.unwrap();
    stdin.shutdown().await.unwrap();
    assert_eq!(far.next_frame().await.1, "perhaps");
    drop(far);
    let reopening = async {
        let (_, mut far) = master.accept(ready()).await;
        far.open(100).await;
        far
    };
    let (outcome, _far) = tokio::join!(process.wait(), reopening);
    assert!(matches!(outcome, Err(Error::InputLost)));
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
    let reader = process.reader.expect("a place from the first byte on");
    assert_eq!(
        process.args.as_deref(),
        Some(&["ps".to_owned(), "-ef".to_owned()][..])
    );
    let id = teu_protocol::ids::ProcessId::from_bytes([3; 16]);
    far.reply(request.id, Ok(ReplyBody::Started(id)));
    let (body, stream, _) = far.open(0).await;
    assert!(matches!(
        body,
        RequestBody::Attach { process: Some(of), from: LogStart::Cursor(0), place: Some(place), .. }
            if of == id && place.reader == reader && place.generation == 1
    ));
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

/// The place that a stream takes over.
fn place(body: &RequestBody) -> Place {
    match body {
        RequestBody::Attach {
            place: Some(place), ..
        } => *place,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn input_arrives_whole_whatever_part_of_it_the_node_had() {
    for has in 0..=6 {
        let (session, mut master, mut far) = FakeMaster::connected(ready()).await;
        let container = container(&session);
        let attaching = tokio::spawn(async move { container.attach().await });
        let (body, _, _) = far.open_with_input(100, Some(0)).await;
        let first = place(&body);
        let mut process = attaching.await.unwrap().unwrap();
        let mut stdin = process.stdin().unwrap();
        stdin.write_all(b"abc").await.unwrap();
        stdin.write_all(b"def").await.unwrap();
        stdin.shutdown().await.unwrap();
        let (frame, bytes) = far.next_frame().await;
        assert!(matches!(frame, StreamFrame::Data { cursor: 0, .. }));
        assert_eq!(bytes, "abc");
        drop(far);
        let reopening = async {
            let (_, mut far) = master.accept(ready()).await;
            let (body, stream, _) = far.open_with_input(100, Some(has)).await;
            let mut rest = Vec::new();
            let end = loop {
                match far.next_frame().await {
                    (StreamFrame::Data { cursor, .. }, bytes) => {
                        assert_eq!(cursor, has + rest.len() as u64);
                        rest.extend(bytes);
                    }
                    (StreamFrame::Eof { cursor, .. }, _) => break cursor,
                    other => panic!("{other:?}"),
                }
            };
            far.close(stream, StreamEnd::Exited(ENDED));
            (place(&body), rest, end)
        };
        // Nobody writes any more: whoever waits says the rest again.
        let (ended, (second, rest, end)) = tokio::join!(process.wait(), reopening);
        assert_eq!(ended.unwrap(), ENDED);
        assert_eq!(rest, &b"abcdef"[has as usize..]);
        assert_eq!(end, 6);
        assert_eq!(second.reader, first.reader);
        assert!(
            second.generation > first.generation,
            "the old stream is fenced"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_less_or_more_input_than_it_can_have_breaks_it() {
    for has in [2, 7] {
        let (session, mut master, mut far) = FakeMaster::connected(ready()).await;
        let (mut process, stream, _) = attached(&session, &mut far, 100).await;
        let mut stdin = process.stdin().unwrap();
        stdin.write_all(b"abcdef").await.unwrap();
        far.next_frame().await;
        far.frame(StreamFrame::Credit { stream, bytes: 3 });
        drive(&mut process).await;
        drop(far);
        let reopening = async {
            let (_, mut far) = master.accept(ready()).await;
            far.open_with_input(100, Some(has)).await;
            far
        };
        let (_, _far) = tokio::join!(drive(&mut process), reopening);
        let error = stdin.write_all(b"more").await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test(start_paused = true)]
async fn a_gap_of_cursors_is_told_in_bytes_and_output_goes_on_behind_it() {
    let (session, _master, mut far) = FakeMaster::connected(ready()).await;
    let (mut process, stream) = exec(&container(&session), &mut far).await;
    far.data(stream, Channel::Stdout, 3, b"one");
    far.data(stream, Channel::Stdout, 1_003, b"two");
    // What is missing at the end is told by a message without bytes.
    far.data(stream, Channel::Stdout, 2_000, b"");
    far.close(stream, StreamEnd::Exited(ENDED));
    let mut next = async || process.next_output().await;
    assert_eq!(next().await.unwrap().unwrap().bytes, "one");
    let lost = next().await.unwrap().unwrap_err();
    assert!(matches!(lost, Error::OutputLost { bytes: 997 }), "{lost}");
    let chunk = next().await.unwrap().unwrap();
    assert_eq!((chunk.start, chunk.bytes.as_ref()), (1_000, &b"two"[..]));
    let lost = next().await.unwrap().unwrap_err();
    assert!(matches!(lost, Error::OutputLost { bytes: 997 }), "{lost}");
    assert!(next().await.is_none());
    assert_eq!(process.wait().await.unwrap(), ENDED);
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_from_the_start_fails_whoever_collects_or_waits() {
    let (session, _master, mut far) = FakeMaster::connected(ready()).await;
    let container = container(&session);
    let (mut process, stream) = exec(&container, &mut far).await;
    far.data(stream, Channel::Stdout, 103, b"end");
    far.close(stream, StreamEnd::Exited(ENDED));
    let waited = process.wait().await;
    assert!(
        matches!(waited, Err(Error::OutputLost { bytes: 100 })),
        "{waited:?}"
    );
    assert_eq!(process.wait().await.unwrap(), ENDED);

    let (mut process, stream) = exec(&container, &mut far).await;
    let mut stdout = process.stdout();
    far.data(stream, Channel::Stdout, 103, b"end");
    far.close(stream, StreamEnd::Exited(ENDED));
    let error = stdout.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("100 bytes"), "{error}");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "end");
}

#[tokio::test(start_paused = true)]
async fn output_that_is_larger_than_the_limit_is_an_error_and_ends_the_process() {
    let (session, _master, mut far) = FakeMaster::connected(ready()).await;
    let run = container(&session).run(["yes"]).output_limit(5);
    let collecting = tokio::spawn(run.output());
    let request = far.request().await;
    let id = teu_protocol::ids::ProcessId::from_bytes([3; 16]);
    far.reply(request.id, Ok(ReplyBody::Started(id)));
    let (_, stream, _) = far.open(0).await;
    far.data(stream, Channel::Stdout, 6, b"yyyyyy");
    let request = far.request().await;
    assert!(matches!(
        request.body,
        RequestBody::Signal {
            signal: crate::Signal::KILL,
            ..
        }
    ));
    far.reply(request.id, Ok(ReplyBody::Done));
    let outcome = collecting.await.unwrap();
    assert!(
        matches!(outcome, Err(Error::OutputTooLarge { limit: 5 })),
        "{outcome:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_left_while_the_link_is_away_does_not_wait_for_its_reader() {
    let (session, mut master, mut far) = FakeMaster::connected(ready()).await;
    let (mut process, stream, _) = attached(&session, &mut far, 0).await;
    far.data(stream, Channel::Stdout, 3, b"one");
    assert_eq!(process.next_output().await.unwrap().unwrap().bytes, "one");
    drop(far);
    drive(&mut process).await;
    drop(process);
    let (_, mut far) = master.accept(ready()).await;
    let (body, stream, _) = far.open(0).await;
    assert!(place(&body).generation > 1);
    let (frame, _) = far.next_frame().await;
    let end = StreamEnd::Done;
    assert_eq!(frame, StreamFrame::Close { stream, end });
}
