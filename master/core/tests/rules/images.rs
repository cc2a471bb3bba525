//! Images and blobs: possession is proved, names point once, nothing is deleted that is needed.

use teu_master_core::{
    Effect, Input,
    record::{Restored, StoreOp},
};
use teu_protocol::{
    ids::{Digest, RequestId, StreamId},
    message::{
        ImageManifest, MasterToNode, NodeReplyBody, NodeToMaster, Refusal, RefusalCode, ReplyBody,
        RequestBody, SessionAsk,
    },
};

use crate::house::*;

/// Accounts without images.
fn empty() -> House {
    let stored = Restored {
        images: Vec::new(),
        possessions: Vec::new(),
        ..stored()
    };
    let mut house = House::start(stored);
    house.node(0, Vec::new());
    house.node(1, Vec::new());
    house
}

fn upload(
    house: &mut House,
    client: teu_master_core::ConnectionId,
    digest: Digest,
    size: u64,
    arrived: Result<u64, Refusal>,
) -> Vec<Effect> {
    let stream = StreamId(1);
    let effects = house.ask(
        client,
        RequestBody::UploadLayer {
            digest,
            size,
            stream,
        },
    );
    let [Effect::ReceiveLayer { request, .. }] = effects[..] else {
        panic!("{effects:?}")
    };
    let result = Ok((0, 1 << 20));
    let effects = house.input(Input::UploadReady {
        connection: client,
        request,
        result,
    });
    let upload = ReplyBody::Upload {
        offset: 0,
        window: 1 << 20,
    };
    assert_eq!(reply(&effects, client).result, Ok(upload));
    house.input(Input::UploadEnded {
        connection: client,
        stream,
        digest,
        result: arrived,
    })
}

fn add(names: &[&str]) -> RequestBody {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    RequestBody::AddImage {
        manifest: image(),
        names,
    }
}

#[test]
fn an_image_is_added_when_its_layers_were_uploaded_by_the_account_itself() {
    let mut house = empty();
    let (alice, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (bob, _) = house.client(BOB, SessionAsk::New, attachment(2));
    let digest = Digest::of(b"blob");
    let effects = house.ask(alice, add(&["app"]));
    assert_eq!(refusal(&effects, alice).code, RefusalCode::LayerMissing);
    let effects = upload(&mut house, alice, digest, 4, Ok(4));
    assert!(matches!(
        effects[..],
        [Effect::Persist(StoreOp::PutPossession(_))]
    ));
    let effects = house.ask(alice, add(&["app"]));
    assert!(
        matches!(effects[0], Effect::Persist(StoreOp::PutImage(_))),
        "durable first"
    );
    let Ok(ReplyBody::Image(info)) = reply(&effects, alice).result else {
        panic!()
    };
    assert_eq!(
        (info.names, info.platform.as_str()),
        (vec!["app:latest".into()], "linux/amd64")
    );
    // Knowing the digest is not possessing the blob, and nobody learns that it is there.
    let effects = house.ask(bob, RequestBody::MissingLayers(vec![digest]));
    assert_eq!(
        reply(&effects, bob).result,
        Ok(ReplyBody::Layers(vec![digest]))
    );
    let effects = house.ask(bob, add(&["app"]));
    assert_eq!(refusal(&effects, bob).code, RefusalCode::LayerMissing);
    let effects = house.ask(bob, RequestBody::FindImage("app".into()));
    assert_eq!(refusal(&effects, bob).code, RefusalCode::ImageMissing);
}

#[test]
fn a_failed_upload_proves_nothing() {
    let mut house = empty();
    let (alice, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let wrong = Refusal::new(RefusalCode::DigestMismatch, "other bytes");
    assert_eq!(
        upload(&mut house, alice, Digest::of(b"blob"), 4, Err(wrong)),
        []
    );
    // The cache says that another length was verified than was announced.
    upload(&mut house, alice, Digest::of(b"blob"), 5, Ok(4));
    let effects = house.ask(alice, add(&["app"]));
    assert_eq!(refusal(&effects, alice).code, RefusalCode::LayerMissing);
}

#[test]
fn a_manifest_that_contradicts_itself_is_refused() {
    let (mut house, _) = House::open();
    let (alice, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let good = image();
    let mut other_config = good.clone();
    other_config.config.push(b' ');
    let mut no_layer = good.clone();
    no_layer.layers.clear();
    let mut other_diff = good.clone();
    other_diff.layers[0].diff_id = Digest::of(b"?");
    let nonsense = ImageManifest {
        id: Digest::of(b"{"),
        config: b"{".to_vec(),
        layers: vec![],
    };
    const LONG: &[u8] = br#"{"os":"linux-linux-linux-linux-linux-linux","architecture":"amd64-amd64-amd64-amd64-amd64"}"#;
    let nowhere = ImageManifest {
        id: Digest::of(LONG),
        config: LONG.to_vec(),
        layers: vec![],
    };
    let mut size = good;
    size.layers[0].size = 5;
    for (manifest, code) in [
        (other_config, RefusalCode::DigestMismatch),
        (no_layer, RefusalCode::BadImage),
        (other_diff, RefusalCode::BadImage),
        (nonsense, RefusalCode::BadImage),
        (nowhere, RefusalCode::BadImage),
        (size, RefusalCode::BadRequest),
    ] {
        let body = RequestBody::AddImage {
            manifest,
            names: vec!["x".into()],
        };
        assert_eq!(refusal(&house.ask(alice, body), alice).code, code);
    }
}

#[test]
fn a_name_moves_to_the_image_that_took_it() {
    let (mut house, _) = House::open();
    let (alice, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let mut newer = image();
    newer.config.extend_from_slice(b"\n");
    newer.id = Digest::of(&newer.config);
    let names = vec!["docker.io/library/app".into()];
    let effects = house.ask(
        alice,
        RequestBody::AddImage {
            manifest: newer.clone(),
            names,
        },
    );
    assert!(reply(&effects, alice).result.is_ok());
    let effects = house.ask(alice, RequestBody::FindImage("app".into()));
    let Ok(ReplyBody::Image(found)) = reply(&effects, alice).result else {
        panic!()
    };
    assert_eq!(found.id, newer.id);
    let effects = house.ask(alice, RequestBody::FindImage(image().id.hex()[..8].into()));
    let Ok(ReplyBody::Image(nameless)) = reply(&effects, alice).result else {
        panic!()
    };
    assert_eq!((nameless.id, nameless.names.len()), (image().id, 0));
}

#[test]
fn a_blob_goes_with_its_last_owner_once_no_container_is_made_of_it() {
    let (mut house, [node, _]) = House::open();
    let (alice, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (bob, _) = house.client(BOB, SessionAsk::New, attachment(2));
    let delete = Effect::DeleteLayer(Digest::of(b"blob"));
    let spawn = order(&house.ask(bob, RequestBody::Spawn(Box::new(spec()))), node);
    assert!(
        !house
            .ask(alice, RequestBody::RemoveImage("app".into()))
            .contains(&delete)
    );
    let effects = house.ask(bob, RequestBody::RemoveImage(image().id.to_string()));
    assert!(reply(&effects, bob).result.is_ok() && !effects.contains(&delete));
    assert!(
        !house.pass(1_000).contains(&delete),
        "a container is being made of it"
    );
    let result = NodeReplyBody::Spawned {
        ip: ip(0, 2),
        state: RUNNING,
        command: Vec::new(),
    };
    house.node_replies(node, spawn.id, Ok(result));
    assert!(house.pass(250).contains(&delete));
}

#[test]
fn a_node_gets_only_layers_that_were_ordered_there() {
    let (mut house, [node, other]) = House::open();
    let (alice, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    house.ask(alice, RequestBody::Spawn(Box::new(spec())));
    let fetch = |digest| NodeToMaster::FetchLayer {
        id: RequestId::from_bytes([3; 16]),
        digest,
        offset: 7,
        stream: StreamId(1 << 63),
        window: 9,
    };
    let blob = Digest::of(b"blob");
    let effects = house.node_says(node, fetch(blob));
    assert!(matches!(
        effects[..],
        [Effect::SendLayer {
            offset: 7,
            window: 9,
            ..
        }]
    ));
    for (from, digest) in [(other, blob), (node, Digest::of(b"secret"))] {
        let effects = house.node_says(from, fetch(digest));
        let refused = matches!(
            &effects[..],
            [Effect::Send {
                message: teu_master_core::Outbound::Node(MasterToNode::LayerReply {
                    result: Err(_),
                    ..
                }),
                ..
            }]
        );
        assert!(refused, "{effects:?}");
    }
}

#[test]
fn a_catalogue_of_huge_configs_is_full_before_memory_is() {
    let mut house = empty();
    let (alice, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (bob, _) = house.client(BOB, SessionAsk::New, attachment(2));
    // No layer has to be uploaded for these.
    let huge = |n: usize| {
        let config = format!(
            r#"{{"os":"linux","architecture":"amd64","rootfs":{{"diff_ids":[]}},"x":"{n}{}"}}"#,
            " ".repeat(1 << 19)
        );
        let manifest = ImageManifest {
            id: Digest::of(config.as_bytes()),
            config: config.into_bytes(),
            layers: Vec::new(),
        };
        RequestBody::AddImage {
            manifest,
            names: Vec::new(),
        }
    };
    let refused = (0..200).find_map(|n| {
        let effects = house.ask(alice, huge(n));
        reply(&effects, alice).result.err().map(|why| (n, why.code))
    });
    assert_eq!(refused, Some((127, RefusalCode::LimitReached)));
    let effects = house.ask(alice, huge(0));
    assert!(reply(&effects, alice).result.is_ok(), "it is there already");
    let effects = house.ask(bob, huge(0));
    assert!(reply(&effects, bob).result.is_ok(), "Bob has his own room");
}
