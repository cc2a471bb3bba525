//! After READY: sealed messages that are repeated, changed, left out or out of order.

use bytes::Bytes;
use teu_integration::attack::{ANN, Honest, RawPeer, Sealed, Target, initiate};
use teu_protocol::{
    header::{Header, MessageType},
    ids::RequestId,
    message::{
        ClientToMaster, MasterToClient, NodeToMaster, Request, RequestBody, Role, SessionAsk,
    },
    noise::Suite,
};

use crate::Attack;

pub(crate) const TRIALS: &[(&str, Attack)] = &[
    ("replayed_data_closes_the_connection", |t| {
        Box::pin(replayed(t))
    }),
    ("changed_data_closes_the_connection", |t| {
        Box::pin(changed(t))
    }),
    ("left_out_or_reordered_data_closes_the_connection", |t| {
        Box::pin(reordered(t))
    }),
    ("data_in_another_shape_closes_the_connection", |t| {
        Box::pin(reshaped(t))
    }),
    ("what_does_not_parse_closes_the_connection", |t| {
        Box::pin(nonsense(t))
    }),
];

async fn client(target: &Target) -> Sealed {
    let peer = RawPeer::greeted(target, 2, b"").await.unwrap();
    let ask = initiate(Role::Client, SessionAsk::New);
    peer.into_sealed(ANN, &ask, target).await.unwrap()
}

fn list(number: u8) -> ClientToMaster {
    let id = RequestId::from_bytes([number; 16]);
    ClientToMaster::Request(Box::new(Request {
        id,
        body: RequestBody::List,
    }))
}

/// The client is answered once more for each of these, then the connection is closed.
async fn closed_after(mut client: Sealed, numbers: &[u8], what: &str) {
    for number in numbers {
        match client.receive().await.unwrap() {
            Some(MasterToClient::Reply(reply)) => {
                assert_eq!(reply.id, RequestId::from_bytes([*number; 16]), "{what}");
            }
            // Closed before the answer was written.
            None => return,
            other => panic!("{what}: {other:?}"),
        }
    }
    let last = client.receive().await.unwrap();
    assert!(last.is_none(), "{what}: {last:?}");
}

async fn replayed(target: &Target) {
    let honest = Honest::begin(target).await;
    let mut client = client(target).await;
    let message = client.seal(&list(1));
    client.peer.send(&message).await.unwrap();
    client.peer.send(&message).await.unwrap();
    closed_after(client, &[1], "replayed").await;
    honest.end().await;
}

async fn changed(target: &Target) {
    let honest = Honest::begin(target).await;
    for part in [0, 1] {
        for byte in [0, 5, 7, usize::MAX] {
            let mut client = client(target).await;
            let mut parts = client.seal(&list(1));
            let mut bytes = parts[part].to_vec();
            let at = byte.min(bytes.len() - 1);
            bytes[at] ^= 1;
            parts[part] = bytes.into();
            client.peer.send(&parts).await.unwrap();
            closed_after(client, &[], "changed").await;
        }
    }
    honest.end().await;
}

async fn reordered(target: &Target) {
    let honest = Honest::begin(target).await;
    let mut left_out = client(target).await;
    left_out.seal(&list(1));
    left_out.send(&list(2)).await.unwrap();
    closed_after(left_out, &[], "left out").await;

    let mut reordered = client(target).await;
    let (first, second) = (reordered.seal(&list(1)), reordered.seal(&list(2)));
    reordered.peer.send(&second).await.unwrap();
    let _ = reordered.peer.send(&first).await;
    closed_after(reordered, &[], "reordered").await;

    // One session's message in another session's connection.
    let mut from = client(target).await;
    let mut into = client(target).await;
    let message = from.seal(&list(1));
    into.peer.send(&message).await.unwrap();
    closed_after(into, &[], "from another session").await;
    honest.end().await;
}

async fn reshaped(target: &Target) {
    let honest = Honest::begin(target).await;
    let header = |kind| Bytes::copy_from_slice(&Header::new(kind, Suite::fastest()).encode());
    let reshape: [fn(Vec<Bytes>) -> Vec<Bytes>; 4] = [
        |parts| parts[..1].to_vec(),
        |parts| [parts.clone(), parts[1..].to_vec()].concat(),
        |parts| [parts, vec![Bytes::new()]].concat(),
        |parts| parts[1..].to_vec(),
    ];
    for reshape in reshape {
        let mut client = client(target).await;
        let parts = reshape(client.seal(&list(1)));
        client.peer.send(&parts).await.unwrap();
        closed_after(client, &[], "reshaped").await;
    }
    for kind in [
        MessageType::Hello,
        MessageType::Initiate,
        MessageType::Ready,
        MessageType::Error,
    ] {
        let mut client = client(target).await;
        let mut parts = client.seal(&list(1));
        parts[0] = header(kind);
        client.peer.send(&parts).await.unwrap();
        closed_after(client, &[], "another type").await;
    }
    honest.end().await;
}

async fn nonsense(target: &Target) {
    let honest = Honest::begin(target).await;
    let mut node_talk = client(target).await;
    node_talk.send(&NodeToMaster::Goodbye).await.unwrap();
    // Goodbye is a client's word too; an event is a node's alone.
    let mut event = client(target).await;
    let warning = teu_protocol::message::NodeEvent::Warning("x".to_owned());
    event
        .send(&NodeToMaster::Event(Box::new(warning)))
        .await
        .unwrap();
    closed_after(event, &[], "a node's message from a client").await;
    let mut number = client(target).await;
    number.send(&42).await.unwrap();
    closed_after(number, &[], "a number").await;
    // An array that claims 2^32 - 1 elements.
    let mut huge = client(target).await;
    huge.send(&std::collections::BTreeMap::from([(
        "Request",
        "\u{dd}\u{ff}\u{ff}",
    )]))
    .await
    .unwrap();
    closed_after(huge, &[], "a claim").await;
    honest.end().await;
}
