//! Peers with a key of their own, who ask for what is not theirs.

use std::time::{Duration, Instant};

use teu_integration::attack::{
    ANN, BOB, Honest, LinkedClient, LinkedNode, NODE_1, NODE_2, RawPeer, STRANGER, Target,
    initiate, key,
};
use teu_protocol::{
    ids::{ContainerId, SessionId, StreamId},
    message::{
        Channel, MasterToClient, NodeReplyBody, NodeToMaster, RefusalCode, ReplyBody, RequestBody,
        Role, SessionAsk, StreamFrame,
    },
    noise::{Suite, read_refusal},
};

use crate::Attack;

pub(crate) const TRIALS: &[(&str, Attack)] = &[
    (
        "a_node_role_asked_for_by_a_user_key_looks_like_an_unknown_key",
        |t| Box::pin(roles(t)),
    ),
    ("another_accounts_session_is_one_that_does_not_exist", |t| {
        Box::pin(sessions(t))
    }),
    (
        "another_sessions_container_is_one_that_does_not_exist",
        |t| Box::pin(containers(t)),
    ),
    ("a_reply_from_the_wrong_node_is_not_believed", |t| {
        Box::pin(wrong_node(t))
    }),
    ("a_node_cannot_speak_on_anothers_stream", |t| {
        Box::pin(wrong_stream(t))
    }),
];

async fn refusal(target: &Target, who: u8, role: Role) -> (Option<u16>, Duration) {
    let mut peer = RawPeer::greeted(target, 2, b"").await.unwrap();
    let welcomed = peer
        .welcomed(RawPeer::hello(target, &key(who), who))
        .await
        .unwrap();
    let ask = initiate(role, SessionAsk::New);
    let (message, _, _) = welcomed.initiate(&ask, Duration::ZERO).unwrap();
    let begun = Instant::now();
    peer.send(&message).await.unwrap();
    let answer = peer.receive().await.unwrap().unwrap();
    let elapsed = begun.elapsed();
    assert!(peer.is_closed_silently().await);
    (read_refusal(Suite::fastest(), &answer), elapsed)
}

async fn roles(target: &Target) {
    let honest = Honest::begin(target).await;
    let mut times = Vec::new();
    for (who, role) in [
        (STRANGER, Role::Client),
        (STRANGER, Role::Node),
        (ANN, Role::Node),
        (NODE_1, Role::Client),
    ] {
        let (code, time) = refusal(target, who, role).await;
        assert_eq!(code, Some(1), "{who} as {role:?}");
        times.push(time);
    }
    let spread = *times.iter().max().unwrap() - *times.iter().min().unwrap();
    assert!(
        spread < Duration::from_millis(250),
        "the time tells them apart: {times:?}"
    );
    honest.end().await;
}

async fn sessions(target: &Target) {
    let named = SessionAsk::Named("default".parse().unwrap());
    let ann = LinkedClient::dial(target, ANN, named.clone())
        .await
        .unwrap();
    let mut reasons = Vec::new();
    for session in [ann.session(), SessionId::from_bytes([42; 16])] {
        let ask = SessionAsk::Resume(session);
        let thief = LinkedClient::dial(target, BOB, ask).await.unwrap();
        let MasterToClient::Closing(reason) = thief.first else {
            panic!("let in: {:?}", thief.first);
        };
        assert_eq!(reason.code, RefusalCode::NotFound);
        reasons.push(reason);
    }
    assert_eq!(reasons[0], reasons[1]);
    // The same name is another session for another account.
    let mut bob = LinkedClient::dial(target, BOB, named).await.unwrap();
    assert_ne!(bob.session(), ann.session());
    let theirs = bob
        .request(RequestBody::EndSession(ann.session()))
        .await
        .unwrap_err();
    let nobodys = SessionId::from_bytes([42; 16]);
    let nobodys = bob
        .request(RequestBody::EndSession(nobodys))
        .await
        .unwrap_err();
    assert_eq!((theirs.code, theirs), (RefusalCode::NotFound, nobodys));
}

/// Ann's session, and a container of it on node 1.
async fn running(target: &Target) -> (LinkedClient, LinkedNode, ContainerId) {
    let named = SessionAsk::Named("default".parse().unwrap());
    let mut ann = LinkedClient::dial(target, ANN, named).await.unwrap();
    let node = LinkedNode::dial(target, NODE_1).await.unwrap();
    let container = node.report(Some((ann.session(), key(ANN).public()))).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match ann.request(RequestBody::List).await {
            Ok(ReplyBody::Containers(list)) if !list.is_empty() => return (ann, node, container),
            _ => assert!(Instant::now() < deadline, "the container does not appear"),
        }
    }
}

async fn containers(target: &Target) {
    let (mut ann, _node, container) = running(target).await;
    let other_node = LinkedNode::dial(target, NODE_2).await.unwrap();
    other_node.report(None).await;
    let mut bob = LinkedClient::dial(target, BOB, SessionAsk::New)
        .await
        .unwrap();
    let mut sibling = LinkedClient::dial(target, ANN, SessionAsk::New)
        .await
        .unwrap();
    let asks = |id: ContainerId| {
        [
            RequestBody::Find(id.to_string()),
            RequestBody::Wake(id),
            RequestBody::Stop {
                container: id,
                signal: None,
                grace_ms: 0,
            },
            RequestBody::Signal {
                container: id,
                process: None,
                signal: teu_protocol::image_config::signal::Signal::KILL,
            },
            RequestBody::Exec {
                container: id,
                process: Default::default(),
                bound: false,
            },
            RequestBody::Tunnel {
                container: id,
                port: 80,
                stream: StreamId(1),
                window: 1,
            },
            RequestBody::Allow { to: id, from: id },
        ]
    };
    for client in [&mut bob, &mut sibling] {
        let nothing = ContainerId::from_bytes([77; 16]);
        for (theirs, nobodys) in asks(container).into_iter().zip(asks(nothing)) {
            let what = format!("{theirs:?}");
            let theirs = client.request(theirs).await.unwrap_err();
            let nobodys = client.request(nobodys).await.unwrap_err();
            assert_eq!(theirs.code, RefusalCode::NotFound, "{what}");
            let hide = |text: String| {
                text.replace(&container.to_string(), "")
                    .replace(&nothing.to_string(), "")
            };
            assert_eq!(hide(theirs.message), hide(nobodys.message), "{what}");
        }
    }
    let list = ann.request(RequestBody::List).await.unwrap();
    assert!(
        matches!(list, ReplyBody::Containers(list) if list.len() == 1),
        "it is still there"
    );
}

async fn wrong_node(target: &Target) {
    let (mut ann, mut node, container) = running(target).await;
    let wrong = LinkedNode::dial(target, NODE_2).await.unwrap();
    wrong.report(None).await;
    let signal = RequestBody::Signal {
        container,
        process: None,
        signal: teu_protocol::image_config::signal::Signal::HUP,
    };
    let request = ann.ask(signal).await;
    let order = node.order().await;
    let reply = |result| NodeToMaster::Reply {
        id: order.id,
        result,
    };
    wrong.say(reply(Ok(NodeReplyBody::Done)), Vec::new()).await;
    let early = ann.hear(Duration::from_millis(500)).await;
    assert!(early.is_none(), "the wrong node was believed: {early:?}");
    node.say(reply(Ok(NodeReplyBody::Done)), Vec::new()).await;
    assert_eq!(ann.answer(request).await, Ok(ReplyBody::Done));
}

async fn wrong_stream(target: &Target) {
    let (mut ann, mut node, container) = running(target).await;
    let wrong = LinkedNode::dial(target, NODE_2).await.unwrap();
    wrong.report(None).await;
    let tunnel = RequestBody::Tunnel {
        container,
        port: 80,
        stream: StreamId(1),
        window: 1000,
    };
    let request = ann.ask(tunnel).await;
    let order = node.order().await;
    let teu_protocol::message::NodeRequestBody::Tunnel { stream, .. } = order.body else {
        panic!("not a tunnel: {order:?}");
    };
    let result = Ok(NodeReplyBody::Opened {
        window: 1000,
        input: None,
    });
    node.say(
        NodeToMaster::Reply {
            id: order.id,
            result,
        },
        Vec::new(),
    )
    .await;
    assert!(ann.answer(request).await.is_ok());
    for guess in stream.0.saturating_sub(5)..stream.0 + 5 {
        let stream = StreamId(guess);
        let frame = StreamFrame::Data {
            stream,
            channel: Channel::Main,
            cursor: 0,
            from: None,
        };
        let bulk = vec![bytes::Bytes::from_static(b"forged")];
        wrong.say(NodeToMaster::Stream(frame), bulk).await;
    }
    let heard = ann.hear(Duration::from_millis(500)).await;
    assert!(heard.is_none(), "forged bytes arrived: {heard:?}");
    let frame = StreamFrame::Data {
        stream,
        channel: Channel::Main,
        cursor: 0,
        from: None,
    };
    node.say(
        NodeToMaster::Stream(frame),
        vec![bytes::Bytes::from_static(b"real")],
    )
    .await;
    let heard = ann.hear(Duration::from_secs(10)).await;
    assert!(
        matches!(heard, Some(MasterToClient::Stream(_))),
        "{heard:?}"
    );
}
