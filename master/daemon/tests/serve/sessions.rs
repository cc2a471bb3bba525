//! Who gets in, and what survives.

use std::time::{Duration, Instant};

use teu_link::DialError;
use teu_protocol::message::{MasterToClient, RefusalCode, ReplyBody, RequestBody, SessionAsk};

use crate::world::{ANN, BOB, NODE, World};

#[tokio::test]
async fn a_known_key_is_ready_and_is_answered() {
    let world = World::start().await;
    let mut client = world.client(ANN).await;
    assert_eq!(client.ready().name.as_ref().unwrap().as_str(), "default");
    let reply = client.request(RequestBody::List).await;
    assert_eq!(reply, Ok(ReplyBody::Containers(Vec::new())));
}

#[tokio::test]
async fn unknown_keys_and_wrong_roles_get_the_same_code_after_the_same_time() {
    let world = World::start().await;
    let mut times = Vec::new();
    for attempt in 0..3 {
        let begun = Instant::now();
        let error = match attempt {
            0 => world.try_client(77, SessionAsk::New).await.err(),
            1 => world.try_client(NODE, SessionAsk::New).await.err(),
            _ => world.try_node(ANN).await.err(),
        };
        assert!(matches!(error, Some(DialError::Refused(1))), "{error:?}");
        times.push(begun.elapsed());
    }
    let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(*least >= Duration::from_secs(1), "{times:?}");
    assert!(*most - *least < Duration::from_millis(500), "{times:?}");
}

#[tokio::test]
async fn a_persistent_session_survives_the_masters_restart() {
    let mut world = World::start().await;
    let mut client = world.client(ANN).await;
    let session = client.session();
    world.stop_master().await;
    let (last, _) = client.receive_answer().await;
    let MasterToClient::Closing(reason) = last else {
        panic!("not Closing: {last:?}")
    };
    assert!(reason.retryable, "{reason:?}");

    world.start_master().await;
    assert_eq!(world.client(ANN).await.session(), session);
    let resumed = world
        .try_client(ANN, SessionAsk::Resume(session))
        .await
        .unwrap();
    assert_eq!(resumed.session(), session);
    assert_ne!(world.client(BOB).await.session(), session);
}

#[tokio::test]
async fn anothers_session_is_not_found() {
    let world = World::start().await;
    let session = world.client(ANN).await.session();
    let mut codes = Vec::new();
    for ask in [session, teu_protocol::ids::SessionId::from_bytes([42; 16])] {
        let thief = world
            .try_client(BOB, SessionAsk::Resume(ask))
            .await
            .unwrap();
        let MasterToClient::Closing(reason) = thief.first else {
            panic!("{:?}", thief.first)
        };
        assert_eq!(reason.code, RefusalCode::NotFound);
        codes.push(reason.message);
    }
    assert_eq!(
        codes[0], codes[1],
        "somebody else's looks like one that does not exist"
    );
}
