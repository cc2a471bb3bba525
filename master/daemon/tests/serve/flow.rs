//! Back-pressure: what waits for one peer, or one stream, is in nobody else's way.

use std::time::Duration;

use bytes::Bytes;
use teu_protocol::{
    ids::{ContainerId, StreamId},
    message::{
        Channel, NodeReplyBody, NodeRequestBody, NodeToMaster, ReplyBody, RequestBody, StreamEnd,
        StreamFrame,
    },
};
use tokio::time::timeout;

use crate::world::{Client, Node, World, client_and_container};

/// More than the socket buffers of both sides hold, so that most of it waits in the master.
const FLOOD_BYTES: usize = 48 << 20;

/// What is said at once.
const MESSAGE_BYTES: usize = 256 << 10;

/// Much less than it takes to call a silent node lost.
const PROMPT: Duration = Duration::from_secs(5);

/// Opens a tunnel on `stream`; the node grants `window`. Answers the number at the node.
async fn tunnel(
    client: &mut Client,
    node: &mut Node,
    container: ContainerId,
    stream: StreamId,
    window: u64,
) -> StreamId {
    let body = RequestBody::Tunnel {
        container,
        port: 80,
        stream,
        window: 1 << 16,
    };
    let request = client.ask(body).await;
    let order = node.receive_order().await;
    let NodeRequestBody::Tunnel { stream, .. } = order.body else {
        panic!("not a tunnel: {order:?}");
    };
    let result = Ok(NodeReplyBody::Opened {
        window,
        input: None,
    });
    let reply = NodeToMaster::Reply {
        id: order.id,
        result,
    };
    node.send(reply, Vec::new()).await;
    let opened = Ok(ReplyBody::Opened {
        window,
        input: None,
    });
    assert_eq!(client.reply(request).await, opened);
    stream
}

async fn flood(client: &Client, stream: StreamId) {
    let bytes = Bytes::from(vec![0; MESSAGE_BYTES]);
    for _ in 0..FLOOD_BYTES / MESSAGE_BYTES {
        client.send_frame(data(stream), vec![bytes.clone()]).await;
    }
}

const fn data(stream: StreamId) -> StreamFrame {
    StreamFrame::Data {
        stream,
        channel: Channel::Main,
        cursor: 0,
        from: None,
    }
}

#[tokio::test]
async fn a_node_that_does_not_read_delays_nothing_of_another_node_or_of_the_master() {
    let world = World::with_two_nodes().await;
    let (mut client, mut stopped, container) = client_and_container(&world).await;
    let (mut other, at_other) = world.second_node(&mut client).await;
    let (stuck, free) = (StreamId(1), StreamId(2));
    tunnel(
        &mut client,
        &mut stopped,
        container,
        stuck,
        FLOOD_BYTES as u64,
    )
    .await;
    let there = tunnel(&mut client, &mut other, at_other, free, 1 << 16).await;
    let check = async {
        // From here on nobody reads for the first node.
        flood(&client, stuck).await;
        let hello = Bytes::from_static(b"hello");
        client.send_frame(data(free), vec![hello.clone()]).await;
        assert_eq!(other.receive_frame().await, (data(there), vec![hello]));
        assert!(client.request(RequestBody::List).await.is_ok());
    };
    timeout(PROMPT, check)
        .await
        .expect("held up by the other node");
    drop(stopped);
}

#[tokio::test]
async fn a_key_press_overtakes_what_another_stream_has_waiting() {
    let world = World::start().await;
    let (mut client, mut node, container) = client_and_container(&world).await;
    let (bulk, keys) = (StreamId(1), StreamId(2));
    let window = FLOOD_BYTES as u64;
    let bulk_there = tunnel(&mut client, &mut node, container, bulk, window).await;
    let keys_there = tunnel(&mut client, &mut node, container, keys, 1 << 16).await;
    flood(&client, bulk).await;
    let key = Bytes::from_static(b"q");
    client.send_frame(data(keys), vec![key.clone()]).await;
    let close = StreamFrame::Close {
        stream: bulk,
        end: StreamEnd::Done,
    };
    client.send_frame(close, Vec::new()).await;
    // Answered behind all of that: so all of it waits in the master now, or is further on.
    assert!(client.request(RequestBody::List).await.is_ok());
    let (mut before, mut all, mut pressed) = (0, 0, false);
    loop {
        match node.receive_frame().await {
            (StreamFrame::Close { stream, .. }, _) if stream == bulk_there => break,
            (StreamFrame::Data { stream, .. }, bytes) if stream == keys_there => {
                assert_eq!(bytes, std::slice::from_ref(&key));
                (before, pressed) = (all, true);
            }
            (_, bytes) => all += bytes.iter().map(Bytes::len).sum::<usize>(),
        }
    }
    assert!(pressed);
    assert_eq!(all, FLOOD_BYTES, "nothing of the other stream is lost");
    assert!(before < FLOOD_BYTES / 2, "{before} bytes came before it");
}

/// Many small grants are one sum: a client cannot fill what waits for a node with them.
#[tokio::test]
async fn credit_that_waits_is_told_as_one_sum() {
    let world = World::start().await;
    let (mut client, mut node, container) = client_and_container(&world).await;
    let (bulk, other) = (StreamId(1), StreamId(2));
    let window = FLOOD_BYTES as u64;
    tunnel(&mut client, &mut node, container, bulk, window).await;
    let there = tunnel(&mut client, &mut node, container, other, 1 << 16).await;
    flood(&client, bulk).await;
    for _ in 0..10_000 {
        let credit = StreamFrame::Credit {
            stream: other,
            bytes: 1,
        };
        client.send_frame(credit, Vec::new()).await;
    }
    assert!(client.request(RequestBody::List).await.is_ok());
    let (mut granted, mut frames) = (0, 0);
    while granted < 10_000 {
        if let (StreamFrame::Credit { stream, bytes }, _) = node.receive_frame().await {
            assert_eq!(stream, there);
            granted += bytes;
            frames += 1;
        }
    }
    assert_eq!(granted, 10_000);
    assert!(frames < 100, "{frames} frames");
}
