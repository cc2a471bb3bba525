//! The data plane: frames from a client to a node and back, within credit.

use bytes::Bytes;
use teu_protocol::{
    ids::{ContainerId, StreamId},
    message::{
        Channel, NodeReplyBody, NodeRequestBody, NodeToMaster, ReplyBody, RequestBody, StreamEnd,
        StreamFrame,
    },
};

use crate::world::{Client, Node, World, client_and_container};

const STREAM: StreamId = StreamId(1);

fn data(stream: StreamId) -> StreamFrame {
    StreamFrame::Data {
        stream,
        channel: Channel::Main,
        cursor: 0,
        from: None,
    }
}

/// Opens a tunnel; the node sends `early` right behind its answer. Answers the node's stream number.
async fn tunnel(
    client: &mut Client,
    node: &mut Node,
    container: ContainerId,
    (client_window, node_window): (u64, u64),
    early: Option<Bytes>,
) -> StreamId {
    let body = RequestBody::Tunnel {
        container,
        port: 80,
        stream: STREAM,
        window: client_window,
    };
    let request = client.ask(body).await;
    let order = node.receive_order().await;
    let NodeRequestBody::Tunnel {
        stream,
        window,
        port: 80,
        ..
    } = order.body
    else {
        panic!("not a tunnel: {order:?}");
    };
    assert_eq!(window, client_window);
    let result = Ok(NodeReplyBody::Opened {
        window: node_window,
        input: None,
    });
    node.send(
        NodeToMaster::Reply {
            id: order.id,
            result,
        },
        Vec::new(),
    )
    .await;
    if let Some(bytes) = early {
        node.send_frame(data(stream), vec![bytes]).await;
    }
    assert_eq!(
        client.reply(request).await,
        Ok(ReplyBody::Opened {
            window: node_window,
            input: None,
        })
    );
    stream
}

#[tokio::test]
async fn bytes_go_both_ways_renumbered_and_in_order() {
    let world = World::start().await;
    let (mut client, mut node, container) = client_and_container(&world).await;
    let hello = Bytes::from_static(b"right behind the answer");
    let windows = (1 << 20, 1 << 20);
    let at_node = tunnel(
        &mut client,
        &mut node,
        container,
        windows,
        Some(hello.clone()),
    )
    .await;
    assert_eq!(client.receive_frame().await, (data(STREAM), vec![hello]));

    let mut sent = Vec::new();
    for round in 0..64u8 {
        let bytes = Bytes::from(vec![round; 10_000]);
        sent.extend_from_slice(&bytes);
        client.send_frame(data(STREAM), vec![bytes]).await;
    }
    client
        .send_frame(
            StreamFrame::Eof {
                stream: STREAM,
                channel: Channel::Main,
                cursor: 0,
            },
            vec![],
        )
        .await;
    let mut got = Vec::new();
    loop {
        match node.receive_frame().await {
            (StreamFrame::Data { stream, .. }, bulk) => {
                assert_eq!(stream, at_node);
                bulk.iter().for_each(|bytes| got.extend_from_slice(bytes));
            }
            (StreamFrame::Eof { stream, .. }, _) => {
                assert_eq!(stream, at_node);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(got == sent);

    node.send_frame(
        StreamFrame::Credit {
            stream: at_node,
            bytes: 640_000,
        },
        vec![],
    )
    .await;
    let credit = StreamFrame::Credit {
        stream: STREAM,
        bytes: 640_000,
    };
    assert_eq!(client.receive_frame().await.0, credit);
    let last = Bytes::from_static(b"last");
    node.send_frame(data(at_node), vec![last.clone()]).await;
    let close = |stream| StreamFrame::Close {
        stream,
        end: StreamEnd::Done,
    };
    node.send_frame(close(at_node), vec![]).await;
    assert_eq!(client.receive_frame().await, (data(STREAM), vec![last]));
    assert_eq!(client.receive_frame().await.0, close(STREAM));
    // The number is free again: the core has heard of the end.
    tunnel(&mut client, &mut node, container, windows, None).await;
}

#[tokio::test]
async fn who_sends_more_than_was_granted_loses_the_stream_and_nothing_else() {
    let world = World::start().await;
    let (mut client, mut node, container) = client_and_container(&world).await;
    let at_node = tunnel(&mut client, &mut node, container, (1000, 1000), None).await;
    client
        .send_frame(data(STREAM), vec![Bytes::from(vec![0; 1000])])
        .await;
    client
        .send_frame(data(STREAM), vec![Bytes::from_static(b"x")])
        .await;
    let (first, bulk) = node.receive_frame().await;
    assert_eq!((first, bulk[0].len()), (data(at_node), 1000));
    for frame in [node.receive_frame().await.0, client.receive_frame().await.0] {
        assert!(
            matches!(
                frame,
                StreamFrame::Close {
                    end: StreamEnd::Failed(_),
                    ..
                }
            ),
            "{frame:?}"
        );
    }
    assert!(client.request(RequestBody::List).await.is_ok());
}

#[tokio::test]
async fn a_lost_node_ends_its_streams_with_an_error() {
    let world = World::start().await;
    let (mut client, mut node, container) = client_and_container(&world).await;
    tunnel(&mut client, &mut node, container, (1000, 1000), None).await;
    node.sender.close();
    drop(node);
    let (frame, _) = client.receive_frame().await;
    assert!(
        matches!(
            frame,
            StreamFrame::Close {
                stream: STREAM,
                end: StreamEnd::Failed(_)
            }
        ),
        "{frame:?}"
    );
}

#[tokio::test]
async fn a_lost_client_ends_its_streams_at_the_node() {
    let world = World::start().await;
    let (mut client, mut node, container) = client_and_container(&world).await;
    let at_node = tunnel(&mut client, &mut node, container, (1000, 1000), None).await;
    client.sender.close();
    drop(client);
    let (frame, _) = node.receive_frame().await;
    assert!(
        matches!(&frame, StreamFrame::Close { stream, .. } if *stream == at_node),
        "{frame:?}"
    );
}
