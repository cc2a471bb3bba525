//! What a program is told during a cut, and after one that its containers did not outlive.

use super::*;

/// The default session is a persistent one: it outlives the cut, and what this program started does not.
#[tokio::test(start_paused = true)]
async fn a_container_that_ended_in_a_cut_is_told_with_the_cut() {
    let (handle, mut master, far) = FakeMaster::connected(ready()).await;
    let container = container(&handle);
    let waiting = container.clone();
    let waiting = tokio::spawn(async move { waiting.wait_exit().await });
    drop(far);
    tokio::time::sleep(Duration::from_secs(131)).await;
    let mut without = ready();
    without.containers.clear();
    let (_, mut far) = master.accept(without).await;
    let ended = waiting.await.unwrap().unwrap_err();
    assert!(matches!(ended, Error::EndedByCut { .. }), "{ended:?}");
    let id = container.id();
    let asked = tokio::spawn(async move {
        let body = RequestBody::Wake(id);
        handle
            .request("wake the container", body, Patience::USUAL)
            .await
    });
    let request = far.request().await;
    far.refuse(request.id, RefusalCode::NotFound);
    let refused = asked.await.unwrap().unwrap_err();
    for error in [ended.to_string(), refused.to_string()] {
        assert!(error.contains("was lost for 2 min 11 s"), "{error}");
    }
    assert_eq!(refused.code(), Some(RefusalCode::NotFound));
}

#[tokio::test(start_paused = true)]
async fn a_location_that_does_not_answer_is_told_while_something_waits() {
    let (handle, _master, mut far) = FakeMaster::connected(ready()).await;
    let mut state = handle.link_state().clone();
    *far.silence.lock().unwrap() = Some(Duration::from_secs(2));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(*state.borrow(), LinkState::Connected, "nothing is expected");
    let asked = list(&handle);
    let request = far.request().await;
    let begun = tokio::time::Instant::now();
    state
        .wait_for(|state| matches!(state, LinkState::Unanswered { .. }))
        .await
        .unwrap();
    assert!(
        begun.elapsed() <= Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    far.reply(request.id, Ok(ReplyBody::Containers(Vec::new())));
    asked.await.unwrap().unwrap();
    assert_eq!(*state.borrow(), LinkState::Connected);
}

#[tokio::test(start_paused = true)]
async fn streams_die_with_their_link_and_opening_goes_on_with_the_next() {
    let (handle, mut master, mut far) = FakeMaster::connected(ready()).await;
    let opened = open(&handle);
    let (_, first, _) = far.open(10).await;
    let mut stream = opened.await.unwrap().unwrap();
    let half_open = open(&handle);
    let asked = far.request().await;
    drop(far);
    assert!(matches!(stream.reader.next().await, StreamItem::Lost));
    let mut parts = vec![Bytes::from_static(b"x")].into();
    let sent = stream.writer.send(Channel::Main, &mut parts).await;
    assert_eq!(sent, Err(StreamOver::Lost));
    let (_, mut far) = master.accept(ready()).await;
    let again = far.request().await;
    assert_ne!(again.id, asked.id, "a stream is opened anew");
    let RequestBody::Tunnel { stream: second, .. } = again.body else {
        panic!()
    };
    assert!(second > first, "stream numbers are not used twice");
    far.reply(
        again.id,
        Ok(ReplyBody::Opened {
            window: 1,
            input: None,
        }),
    );
    half_open.await.unwrap().unwrap();
    drop(stream);
    // The old stream's drop says nothing on the new connection.
    let (frame, _) = far.next_frame().await;
    assert_eq!(frame.stream(), second);
}
