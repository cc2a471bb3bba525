//! Blobs: up from clients, resumed and verified; down to nodes.

use bytes::Bytes;
use teu_protocol::{
    ids::{Digest, RequestId, StreamId},
    message::{
        Channel, Compression, ImageManifest, LayerRef, MasterToNode, NodeRequestBody, NodeToMaster,
        RefusalCode, ReplyBody, RequestBody, SpawnSpec, StreamEnd, StreamFrame,
    },
};

use crate::world::{ANN, BOB, Client, NODE, World};

const STREAM: StreamId = StreamId(5);

fn blob(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 7 + n / 251) as u8).collect()
}

/// Asks to upload; answers what is there already.
async fn begin(client: &mut Client, digest: Digest, size: usize) -> usize {
    let body = RequestBody::UploadLayer {
        digest,
        size: size as u64,
        stream: STREAM,
    };
    match client.request(body).await.unwrap() {
        ReplyBody::Upload { offset, .. } => usize::try_from(offset).unwrap(),
        other => panic!("not Upload: {other:?}"),
    }
}

/// Sends within credit, closes, and answers how the master closed.
async fn send(client: &mut Client, bytes: &[u8]) -> StreamEnd {
    let mut credit = 4 << 20;
    let mut rest = bytes;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(100_000).min(credit));
        if now.is_empty() {
            match client.receive_frame().await.0 {
                StreamFrame::Credit { bytes, .. } => credit += usize::try_from(bytes).unwrap(),
                StreamFrame::Close { end, .. } => return end,
                other => panic!("{other:?}"),
            }
            continue;
        }
        rest = later;
        credit -= now.len();
        let frame = StreamFrame::Data {
            stream: STREAM,
            channel: Channel::Main,
            cursor: 0,
            from: None,
        };
        client
            .send_frame(frame, vec![Bytes::copy_from_slice(now)])
            .await;
    }
    let close = StreamFrame::Close {
        stream: STREAM,
        end: StreamEnd::Done,
    };
    client.send_frame(close, vec![]).await;
    loop {
        match client.receive_frame().await.0 {
            StreamFrame::Credit { .. } => {}
            StreamFrame::Close { end, .. } => return end,
            other => panic!("{other:?}"),
        }
    }
}

async fn missing(client: &mut Client, digest: Digest) -> bool {
    match client
        .request(RequestBody::MissingLayers(vec![digest]))
        .await
        .unwrap()
    {
        ReplyBody::Layers(layers) => !layers.is_empty(),
        other => panic!("not Layers: {other:?}"),
    }
}

/// Adds an image of that one layer and asks for a container of it.
async fn spawn_with_layer(client: &mut Client, digest: Digest, size: usize) {
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/x"]}},
            "rootfs":{{"type":"layers","diff_ids":["{digest}"]}}}}"#
    );
    let layer = LayerRef {
        digest,
        diff_id: digest,
        size: size as u64,
        compression: Compression::None,
    };
    let image = Digest::of(config.as_bytes());
    let manifest = ImageManifest {
        id: image,
        config: config.into_bytes(),
        layers: vec![layer],
    };
    let names = vec!["test:latest".to_owned()];
    client
        .request(RequestBody::AddImage { manifest, names })
        .await
        .unwrap();
    let spec = SpawnSpec::of(image, "test");
    client.ask(RequestBody::Spawn(Box::new(spec))).await;
}

#[tokio::test]
async fn a_blob_arrives_and_a_node_gets_it_from_an_offset_on() {
    let mut world = World::start().await;
    let bytes = blob(10_000_000);
    let digest = Digest::of(&bytes);
    let mut client = world.client(ANN).await;
    assert!(missing(&mut client, digest).await);
    assert_eq!(begin(&mut client, digest, bytes.len()).await, 0);
    assert_eq!(send(&mut client, &bytes).await, StreamEnd::Done);
    assert!(!missing(&mut client, digest).await);
    assert!(
        missing(&mut world.client(BOB).await, digest).await,
        "knowing is not possessing"
    );

    world.stop_master().await;
    world.start_master().await;
    assert!(!missing(&mut world.client(ANN).await, digest).await);
    let mut node = world.try_node(NODE).await.unwrap();
    node.report(Vec::new()).await;
    // A node gets only what it was ordered to run.
    let mut client = world.client(ANN).await;
    spawn_with_layer(&mut client, digest, bytes.len()).await;
    assert!(matches!(
        node.receive_order().await.body,
        NodeRequestBody::Spawn(_)
    ));
    let (id, stream) = (RequestId::from_bytes([1; 16]), StreamId(1 << 63));
    let (offset, window) = (1_000_000, 500_000);
    node.send(
        NodeToMaster::FetchLayer {
            id,
            digest,
            offset,
            stream,
            window,
        },
        vec![],
    )
    .await;
    let mut got = Vec::new();
    loop {
        match node.receive().await {
            (
                MasterToNode::LayerReply {
                    id: answered,
                    result,
                },
                _,
            ) => {
                assert_eq!((answered, result), (id, Ok(())));
            }
            (MasterToNode::Stream(StreamFrame::Data { .. }), bulk) => {
                let received: usize = bulk.iter().map(Bytes::len).sum();
                bulk.iter().for_each(|bytes| got.extend_from_slice(bytes));
                let bytes = received as u64;
                node.send_frame(StreamFrame::Credit { stream, bytes }, vec![])
                    .await;
            }
            (MasterToNode::Stream(StreamFrame::Close { end, .. }), _) => {
                assert_eq!(end, StreamEnd::Done);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(got == bytes[1_000_000..]);
}

#[tokio::test]
async fn an_upload_goes_on_where_its_connection_was_lost() {
    let world = World::start().await;
    let bytes = blob(3_000_000);
    let digest = Digest::of(&bytes);
    let mut first = world.client(ANN).await;
    assert_eq!(begin(&mut first, digest, bytes.len()).await, 0);
    let frame = StreamFrame::Data {
        stream: STREAM,
        channel: Channel::Main,
        cursor: 0,
        from: None,
    };
    first
        .send_frame(frame, vec![Bytes::copy_from_slice(&bytes[..1_100_000])])
        .await;
    assert!(matches!(
        first.receive_frame().await.0,
        StreamFrame::Credit { .. }
    ));

    // The first connection is not closed: the master may not have noticed yet that it is dead.
    let mut second = world.client(ANN).await;
    let offset = begin(&mut second, digest, bytes.len()).await;
    assert_eq!(offset, 1_100_000);
    assert_eq!(send(&mut second, &bytes[offset..]).await, StreamEnd::Done);
    assert!(!missing(&mut second, digest).await);
    assert_eq!(
        std::fs::read_dir(world.layers().join("uploading"))
            .unwrap()
            .count(),
        0
    );
    assert!(std::fs::read(world.layers().join(digest.hex())).unwrap() == bytes);
}

#[tokio::test]
async fn a_wrong_or_short_or_long_blob_is_refused() {
    let world = World::start().await;
    let bytes = blob(200_000);
    let digest = Digest::of(&bytes);
    let mut client = world.client(ANN).await;
    for (sent, code) in [
        (vec![1; 200_000], RefusalCode::DigestMismatch),
        (bytes[..100_000].to_vec(), RefusalCode::BadRequest),
        (blob(300_000), RefusalCode::BadRequest),
    ] {
        let offset = begin(&mut client, digest, bytes.len()).await;
        let end = send(&mut client, &sent[offset.min(sent.len())..]).await;
        let StreamEnd::Failed(refusal) = end else {
            panic!("{end:?}")
        };
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(missing(&mut client, digest).await);
        assert!(!world.layers().join(digest.hex()).exists());
    }
}

#[tokio::test]
async fn what_one_account_has_sent_is_not_anothers() {
    let world = World::start().await;
    let bytes = blob(2_000_000);
    let digest = Digest::of(&bytes);
    let mut ann = world.client(ANN).await;
    begin(&mut ann, digest, bytes.len()).await;
    let frame = StreamFrame::Data {
        stream: STREAM,
        channel: Channel::Main,
        cursor: 0,
        from: None,
    };
    ann.send_frame(frame, vec![Bytes::copy_from_slice(&bytes[..1_100_000])])
        .await;
    assert!(matches!(
        ann.receive_frame().await.0,
        StreamFrame::Credit { .. }
    ));
    let mut bob = world.client(BOB).await;
    assert_eq!(begin(&mut bob, digest, bytes.len()).await, 0);
    assert_eq!(send(&mut bob, &bytes).await, StreamEnd::Done);
    assert_eq!(send(&mut ann, &bytes[1_100_000..]).await, StreamEnd::Done);
}
