//! The session against a fake master: reconnect, requests, events, credit. No sockets, and time
//! stands still unless something waits for it.

mod cuts;

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use teu_protocol::{
    ids::{StreamId, Tag},
    message::{
        Channel, ClientToMaster, ContainerState, Event, EventBody, ExitStatus, LogStart,
        MasterToClient, Ready, Refusal, RefusalCode, ReplyBody, RequestBody, SessionAsk,
        SessionLimits, StreamEnd, StreamFrame, Termination,
    },
};

use super::{
    LinkState, Patience, StreamAsk,
    fake::{self, CONTAINER, FakeMaster, FarEnd, container, ready},
};
use crate::{
    Events, LocationEvent,
    error::{CloseReason, ConnectError, Error},
    stream::{Stream, StreamItem, StreamOver},
};

const TUNNEL: StreamAsk = StreamAsk::Tunnel {
    container: CONTAINER,
    port: 80,
    proxied: false,
};

fn list(handle: &super::SessionHandle) -> tokio::task::JoinHandle<crate::Result<ReplyBody>> {
    let handle = handle.clone();
    tokio::spawn(async move {
        handle
            .request("list", RequestBody::List, Patience::USUAL)
            .await
    })
}

fn open(handle: &super::SessionHandle) -> tokio::task::JoinHandle<crate::Result<Stream>> {
    let handle = handle.clone();
    tokio::spawn(async move {
        handle
            .open("connect", TUNNEL, Patience::USUAL)
            .await
            .map(|(stream, _)| stream)
    })
}

#[tokio::test(start_paused = true)]
async fn a_request_keeps_its_id_over_a_reconnect_and_the_session_is_resumed() {
    let (handle, mut master, mut far) = FakeMaster::connected(ready()).await;
    let asked = list(&handle);
    let first = far.request().await;
    drop(far);
    let (initiate, mut far) = master.accept(ready()).await;
    assert_eq!(initiate.session, SessionAsk::Resume(fake::SESSION));
    let again = far.request().await;
    assert_eq!(again, first);
    far.reply(again.id, Ok(ReplyBody::Done));
    assert!(matches!(asked.await.unwrap(), Ok(ReplyBody::Done)));
    assert!(far.hear_now().is_none(), "asked once a connection");
}

#[tokio::test(start_paused = true)]
async fn a_persistent_session_is_asked_for_by_name_again() {
    let named = SessionAsk::Named("default".parse::<Tag>().unwrap());
    let (_handle, mut master, far) = FakeMaster::connected_as(named.clone(), ready()).await;
    drop(far);
    let initiate = master
        .refuse(ConnectError::Link {
            reason: "not yet".into(),
        })
        .await;
    assert_eq!(initiate.session, named);
    let (again, _far) = master.accept(ready()).await;
    assert_eq!(again, initiate, "the attachment stays the same");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_may_pass_is_asked_again_with_the_same_id_until_patience_ends() {
    let (handle, _master, mut far) = FakeMaster::connected(ready()).await;
    let asked = list(&handle);
    let first = far.request().await;
    far.refuse(first.id, RefusalCode::Unavailable);
    let second = far.request().await;
    assert_eq!(second, first);
    far.reply(second.id, Ok(ReplyBody::Done));
    assert!(asked.await.unwrap().is_ok());

    let asked = list(&handle);
    let refusing = tokio::spawn(async move {
        loop {
            let request = far.request().await;
            far.refuse(request.id, RefusalCode::Unavailable);
        }
    });
    let error = asked.await.unwrap().unwrap_err();
    assert_eq!(
        error.refusal().map(|refusal| refusal.code),
        Some(RefusalCode::Unavailable)
    );
    refusing.abort();
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_stays_is_told_at_once() {
    let (handle, _master, mut far) = FakeMaster::connected(ready()).await;
    let asked = list(&handle);
    let request = far.request().await;
    far.refuse(request.id, RefusalCode::NotFound);
    assert!(matches!(asked.await.unwrap(), Err(Error::Refused { .. })));
    assert!(far.hear_now().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_gone_ends_everything_with_the_reason() {
    let (handle, mut master, mut far) = FakeMaster::connected(ready()).await;
    let (asked, opened) = (list(&handle), open(&handle));
    far.request().await;
    let container = container(&handle);
    let waiting = tokio::spawn(async move { container.wait_exit().await });
    drop(far);
    let refusal = Refusal::new(RefusalCode::NotFound, "no such session");
    master.refuse(ConnectError::Refused(refusal)).await;
    for error in [
        asked.await.unwrap().unwrap_err(),
        opened.await.unwrap().unwrap_err(),
    ] {
        assert!(
            matches!(error, Error::Closed(CloseReason::Expired { .. })),
            "{error}"
        );
    }
    assert!(matches!(
        waiting.await.unwrap(),
        Err(Error::Closed(CloseReason::Expired { .. }))
    ));
    let late = handle
        .request("list", RequestBody::List, Patience::USUAL)
        .await;
    assert!(matches!(
        late,
        Err(Error::Closed(CloseReason::Expired { .. }))
    ));
    assert!(matches!(
        *handle.link_state().borrow(),
        LinkState::Closed(CloseReason::Expired { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn the_snapshot_replaces_what_was_known_and_handles_stay_valid() {
    let (handle, mut master, far) = FakeMaster::connected(ready()).await;
    let (stays, view) = (container(&handle), handle.view().clone());
    drop(far);
    let termination = Termination {
        status: ExitStatus::Code(3),
        cause: teu_protocol::message::Cause::Exited,
    };
    let mut info = fake::container_info();
    info.state = ContainerState::Exited {
        termination,
        at_ms: 1,
    };
    let (_, far) = master
        .accept(Ready {
            containers: vec![info],
            ..ready()
        })
        .await;
    assert_eq!(stays.wait_exit().await.unwrap(), termination);
    drop(far);
    let (_, _far) = master
        .accept(Ready {
            containers: Vec::new(),
            ..ready()
        })
        .await;
    stays.wait_gone().await;
    assert!(view.containers().is_empty());
    assert!(matches!(
        stays.wait_running().await,
        Err(Error::Ended { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn a_missing_event_makes_the_session_ask_for_the_whole_truth() {
    let (handle, mut master, far) = FakeMaster::connected(ready()).await;
    let mut events = Events::new(handle.view().events().expect("the session lives"));
    let event = |seq| {
        MasterToClient::Event(Event {
            seq,
            body: EventBody::ContainerGone(CONTAINER),
        })
    };
    far.say(event(1), Vec::new());
    far.say(event(1), Vec::new());
    far.say(event(3), Vec::new());
    let (initiate, _far) = master.accept(ready()).await;
    assert_eq!(initiate.session, SessionAsk::Resume(fake::SESSION));
    let gone = LocationEvent::ContainerGone(CONTAINER);
    assert_eq!(events.next().await, Some(gone), "told once");
    assert_eq!(events.next().await, Some(LocationEvent::Resumed));
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_says_goodbye() {
    let (handle, _master, mut far) = FakeMaster::connected(ready()).await;
    let container = container(&handle);
    drop(handle);
    assert!(far.hear_now().is_none());
    drop(container);
    assert!(matches!(
        far.hear().await,
        Some((ClientToMaster::Goodbye, _))
    ));
}

#[tokio::test(start_paused = true)]
async fn close_waits_until_the_goodbye_was_heard() {
    let (handle, _master, mut far) = FakeMaster::connected(ready()).await;
    let closing = tokio::spawn({
        let handle = handle.clone();
        async move { handle.close().await }
    });
    assert!(matches!(
        far.hear().await,
        Some((ClientToMaster::Goodbye, _))
    ));
    assert!(!closing.is_finished());
    drop(far);
    closing.await.unwrap();
    assert_eq!(
        *handle.link_state().borrow(),
        LinkState::Closed(CloseReason::Closed)
    );
}

/// Everything that the client sends on the stream, granting credit by `grants` in turn, which is
/// never exceeded.
async fn receive_all(far: &mut FarEnd, stream: StreamId, first: u64, grants: &[u64]) -> Vec<u8> {
    let (mut credit, mut all) = (first, Vec::new());
    let mut grants = grants.iter().cycle();
    loop {
        match far.next_frame().await {
            (StreamFrame::Data { .. }, bytes) => {
                credit = credit
                    .checked_sub(bytes.len() as u64)
                    .expect("credit was exceeded");
                all.extend_from_slice(&bytes);
            }
            (StreamFrame::Eof { .. }, _) => return all,
            other => panic!("{other:?}"),
        }
        if credit == 0 {
            credit += grants.next().unwrap();
            far.frame(StreamFrame::Credit {
                stream,
                bytes: credit,
            });
        }
    }
}

#[tokio::test(start_paused = true)]
async fn credit_is_used_up_and_never_exceeded() {
    for grants in [&[1_000][..], &[1, 65_519, 3], &[1 << 20], &[65_518, 65_520]] {
        let (handle, _master, mut far) = FakeMaster::connected(ready()).await;
        let opened = open(&handle);
        let (_, id, _) = far.open(10).await;
        let mut stream = opened.await.unwrap().unwrap();
        let content: Vec<u8> = (0..300_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let sent = content.clone();
        let sending = tokio::spawn(async move {
            let mut parts = [
                Bytes::from(sent[..9].to_vec()),
                Bytes::from(sent[9..].to_vec()),
            ]
            .into();
            stream.writer.send(Channel::Main, &mut parts).await.unwrap();
            stream.writer.eof(Channel::Main).await.unwrap();
            stream
        });
        assert!(
            receive_all(&mut far, id, 10, grants).await == content,
            "{grants:?}"
        );
        sending.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_up_nobody_else() {
    let (handle, _master, mut far) = FakeMaster::connected(ready()).await;
    let opened = open(&handle);
    let (_, slow_id, slow_window) = far.open(0).await;
    let slow = opened.await.unwrap().unwrap();
    let opened = open(&handle);
    let (_, id, window) = far.open(0).await;
    let mut fast = opened.await.unwrap().unwrap();
    far.data(slow_id, Channel::Main, 0, &vec![0; slow_window as usize]);
    let mut credit = window;
    for _ in 0..10 {
        // The whole of what is granted, again and again.
        far.data(id, Channel::Main, 0, &vec![0; credit as usize]);
        let StreamItem::Data(chunk) = fast.reader.next().await else {
            panic!()
        };
        drop(chunk);
        let Some((ClientToMaster::Stream(StreamFrame::Credit { stream, bytes }), _)) =
            far.hear().await
        else {
            panic!("credit was expected")
        };
        assert_eq!(stream, id, "only what was consumed is granted anew");
        credit = bytes;
    }
    drop(slow);
}

#[tokio::test(start_paused = true)]
async fn a_master_that_exceeds_the_window_is_not_trusted_any_more() {
    let (handle, _master, mut far) = FakeMaster::connected(ready()).await;
    let opened = open(&handle);
    let (_, id, window) = far.open(0).await;
    let _stream = opened.await.unwrap().unwrap();
    far.data(id, Channel::Main, 0, &vec![0; window as usize + 1]);
    let mut state = handle.link_state().clone();
    let closed = state
        .wait_for(|state| matches!(state, LinkState::Closed(_)))
        .await
        .unwrap();
    assert!(matches!(
        &*closed,
        LinkState::Closed(CloseReason::Protocol(_))
    ));
}

/// What the issue showed: the windows of 73 streams took all that the location allows, so the 74th waited.
#[tokio::test(start_paused = true)]
async fn as_many_streams_as_the_limits_allow_are_open_at_once_within_the_windows_limit() {
    for window_bytes in [256 << 10, 64 << 20, 128 << 20] {
        let limits = SessionLimits {
            window_bytes,
            streams: 1_024,
            requests: 1_024,
            ..fake::LIMITS
        };
        let (handle, _master, mut far) = FakeMaster::connected(Ready { limits, ..ready() }).await;
        let mut streams = Vec::new();
        let mut granted = 0;
        for _ in 0..limits.streams {
            let opened = open(&handle);
            let (_, id, window) = far.open(0).await;
            assert!(window > 0);
            granted += window;
            streams.push((id, opened.await.unwrap().unwrap()));
        }
        assert!(granted <= window_bytes, "{granted} of {window_bytes}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_stream_too_many_waits_unless_somebody_waits_at_its_other_end() {
    let limits = SessionLimits {
        streams: 2,
        ..fake::LIMITS
    };
    let (handle, _master, mut far) = FakeMaster::connected(Ready { limits, ..ready() }).await;
    let mut streams = Vec::new();
    for _ in 0..limits.streams {
        let opened = open(&handle);
        let (_, id, _) = far.open(0).await;
        streams.push((id, opened.await.unwrap().unwrap()));
    }
    let logs = StreamAsk::Logs {
        container: CONTAINER,
        from: LogStart::Oldest,
        follow: false,
    };
    let session = handle.clone();
    let waiting = tokio::spawn(async move { session.open("read", logs, Patience::USUAL).await });
    tokio::task::yield_now().await;
    let began = tokio::time::Instant::now();
    let error = open(&handle).await.unwrap().unwrap_err();
    assert_eq!(began.elapsed(), Duration::ZERO, "no wait behind another");
    let refusal = error.refusal().unwrap();
    assert_eq!(refusal.code, RefusalCode::LimitReached);
    assert!(refusal.message.contains("2 streams"), "{refusal}");
    assert!(far.hear_now().is_none());
    let (id, stream) = streams.pop().unwrap();
    drop(stream);
    let closed = StreamFrame::Close {
        stream: id,
        end: StreamEnd::Done,
    };
    assert_eq!(far.next_frame().await.0, closed);
    far.open(0).await;
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_window_grows_while_its_reader_keeps_up_and_is_never_more_than_was_promised() {
    let (handle, _master, mut far) = FakeMaster::connected(ready()).await;
    let opened = open(&handle);
    let (_, id, window) = far.open(0).await;
    let mut stream = opened.await.unwrap().unwrap();
    let (mut credit, mut largest) = (window, window);
    for _ in 0..40 {
        far.data(id, Channel::Main, 0, &vec![0; credit as usize]);
        let StreamItem::Data(chunk) = stream.reader.next().await else {
            panic!()
        };
        drop(chunk);
        let Some((ClientToMaster::Stream(StreamFrame::Credit { bytes, .. }), _)) = far.hear().await
        else {
            panic!("credit was expected")
        };
        credit = bytes;
        largest = largest.max(credit);
    }
    assert_eq!(largest, 1 << 20);
    assert!(
        fake::LIMITS.window_bytes >= largest + 15 * window,
        "others have their base"
    );
}

#[tokio::test(start_paused = true)]
async fn a_close_comes_behind_the_data_that_was_written_before_it() {
    let (handle, _master, mut far) = FakeMaster::connected(ready()).await;
    let opened = open(&handle);
    far.open(1 << 20).await;
    let mut stream = opened.await.unwrap().unwrap();
    let mut parts = vec![Bytes::from(vec![1; 1 << 20])].into();
    stream.writer.send(Channel::Main, &mut parts).await.unwrap();
    drop(stream);
    let mut bytes = 0;
    loop {
        match far.next_frame().await {
            (StreamFrame::Data { .. }, part) => bytes += part.len(),
            (StreamFrame::Close { .. }, _) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bytes, 1 << 20);
}

#[tokio::test(start_paused = true)]
async fn an_open_that_nobody_waits_for_is_closed_when_it_comes() {
    let (handle, _master, mut far) = FakeMaster::connected(ready()).await;
    let opened = open(&handle);
    let request = far.request().await;
    opened.abort();
    let _ = opened.await;
    far.reply(
        request.id,
        Ok(ReplyBody::Opened {
            window: 1,
            input: None,
        }),
    );
    assert!(matches!(
        far.next_frame().await,
        (StreamFrame::Close { .. }, _)
    ));
}

#[tokio::test(start_paused = true)]
async fn no_answer_is_a_timeout_even_without_a_link() {
    let (handle, master, far) = FakeMaster::connected(ready()).await;
    drop(far);
    let outcome = tokio::time::timeout(Duration::from_secs(60), list(&handle))
        .await
        .unwrap();
    assert!(matches!(outcome.unwrap(), Err(Error::Timeout { .. })));
    drop(master);
}
