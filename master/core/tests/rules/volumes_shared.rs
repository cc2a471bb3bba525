//! Volumes' requests on their way to the node and back: clones, changes, questions, streams.

use teu_master_core::{Effect, Input};
use teu_protocol::{
    ids::StreamId,
    message::{
        ImportTarget, NodeEvent, NodeReplyBody, NodeRequestBody, NodeToMaster, RefusalCode,
        ReplyBody, RequestBody, SessionAsk, VolumeOrder, VolumeOrigin, VolumeSpec, VolumeUsage,
    },
};

use crate::{house::*, volumes::*};

#[test]
fn a_clone_is_on_the_same_node_and_knows_its_origin() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let source = created(&mut house, client, node, create(tagged("data")))
        .1
        .id;
    let snapshot: teu_protocol::ids::Tag = "s".parse().unwrap();
    let clone = RequestBody::CloneVolume {
        volume: source,
        snapshot: snapshot.clone(),
        spec: tagged("copy"),
    };
    let (effects, _) = created(&mut house, client, node, clone);
    let copy = info(&effects, client);
    let origin = VolumeOrigin {
        volume: source,
        snapshot,
    };
    assert_eq!((copy.origin, copy.node), (Some(origin), NODES[0]));
    assert_eq!(persisted(&effects).len(), 1);
}

#[test]
fn a_changed_quota_is_the_nodes_word_kept_and_told() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let mut record = created(&mut house, client, node, create(tagged("data"))).1;
    let ask = RequestBody::SetQuota {
        volume: record.id,
        quota_bytes: Some(1 << 20),
    };
    let (id, _) = volume_order(&house.ask(client, ask), node);
    record.spec.quota_bytes = Some(1 << 20);
    let effects = house.node_replies(node, id, made(record));
    assert_eq!(info(&effects, client).spec.quota_bytes, Some(1 << 20));
    assert_eq!(persisted(&effects).len(), 1);
    assert_eq!(told_volumes(&effects, client).len(), 1);
}

#[test]
fn questions_are_answered_by_the_node_and_an_odd_answer_is_refused() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let volume = created(&mut house, client, node, create(tagged("data")))
        .1
        .id;
    let (id, _) = volume_order(&house.ask(client, RequestBody::VolumeUsage(volume)), node);
    let usage = VolumeUsage {
        referenced_bytes: 1,
        exclusive_bytes: 1,
        snapshots_bytes: 0,
        quota_bytes: None,
        available_bytes: 9,
        snapshots: 0,
    };
    let effects = house.node_replies(node, id, Ok(NodeReplyBody::VolumeUsage(usage)));
    assert_eq!(
        reply(&effects, client).result,
        Ok(ReplyBody::VolumeUsage(usage))
    );
    let (id, _) = volume_order(&house.ask(client, RequestBody::Snapshots(volume)), node);
    let effects = house.node_replies(node, id, Ok(NodeReplyBody::Done));
    assert_eq!(refusal(&effects, client).code, RefusalCode::Internal);
}

#[test]
fn an_export_is_routed_with_the_accounts_own_key() {
    let (mut house, [node, _]) = House::open();
    let mut keys = Vec::new();
    for (account, n) in [(ALICE, 1), (ALICE, 2), (BOB, 3)] {
        let (client, _) = house.client(account, SessionAsk::New, attachment(n));
        let record = created(&mut house, client, node, create(VolumeSpec::default())).1;
        let export = RequestBody::ExportVolume {
            volume: record.id,
            snapshot: "s".parse().unwrap(),
            base: None,
            stream: StreamId(4),
            window: 1_000,
        };
        let (id, asked) = volume_order(&house.ask(client, export), node);
        let VolumeOrder::Export {
            key,
            window: 1_000,
            stream,
            ..
        } = asked
        else {
            panic!("{asked:?}")
        };
        keys.push(key);
        let effects = house.node_replies(
            node,
            id,
            Ok(NodeReplyBody::Opened {
                window: 1,
                input: None,
            }),
        );
        assert!(
            matches!(effects[0], Effect::Route { client: c, node: n }
                if c.connection == client && c.stream == StreamId(4) && c.window == 1_000
                    && n.stream == stream),
            "{effects:?}"
        );
        assert_eq!(
            reply(&effects, client).result,
            Ok(ReplyBody::Opened {
                window: 1,
                input: None
            })
        );
    }
    assert!(keys[0] == keys[1] && keys[0] != keys[2]);
}

fn import() -> RequestBody {
    RequestBody::ImportVolume {
        target: ImportTarget::New {
            node: Some(NODES[0]),
            spec: tagged("data"),
        },
        stream: StreamId(1),
    }
}

#[test]
fn an_import_is_a_volume_once_its_node_says_so() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (id, asked) = volume_order(&house.ask(client, import()), node);
    let VolumeOrder::Import {
        record,
        into: false,
        ..
    } = asked
    else {
        panic!("{asked:?}")
    };
    let effects = house.node_replies(
        node,
        id,
        Ok(NodeReplyBody::Opened {
            window: 64,
            input: None,
        }),
    );
    let importing = ReplyBody::Importing {
        volume: record.id,
        window: 64,
    };
    assert_eq!(reply(&effects, client).result, Ok(importing));
    let listed = house.ask(client, RequestBody::Volumes);
    assert_eq!(
        reply(&listed, client).result,
        Ok(ReplyBody::Volumes(Vec::new()))
    );
    let came = NodeEvent::Volume(Box::new(is_there(record.clone())));
    let effects = house.node_says(node, NodeToMaster::Event(Box::new(came)));
    assert_eq!(persisted(&effects).len(), 1);
    assert_eq!(told_volumes(&effects, client).len(), 1);
    house.input(Input::StreamClosed {
        connection: client,
        stream: StreamId(1),
    });
    let found = house.ask(client, RequestBody::FindVolume("data".into()));
    assert_eq!(info(&found, client).id, record.id, "it stays");
}

#[test]
fn an_import_that_is_cut_off_leaves_the_name_free() {
    let (mut house, [node, _]) = House::open();
    let (client, ready) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (id, _) = volume_order(&house.ask(client, import()), node);
    house.node_replies(
        node,
        id,
        Ok(NodeReplyBody::Opened {
            window: 64,
            input: None,
        }),
    );
    let taken = house.ask(client, create(tagged("data")));
    assert_eq!(refusal(&taken, client).code, RefusalCode::TagTaken);
    house.input(Input::StreamClosed {
        connection: client,
        stream: StreamId(1),
    });
    let (id, _) = volume_order(&house.ask(client, import()), node);
    // Refused by the node, and then the client is lost.
    let full = teu_protocol::message::Refusal::new(RefusalCode::NoSpace, "full");
    house.node_replies(node, id, Err(full));
    let (id, _) = volume_order(&house.ask(client, import()), node);
    house.node_replies(
        node,
        id,
        Ok(NodeReplyBody::Opened {
            window: 64,
            input: None,
        }),
    );
    house.disconnect(client);
    let (client, _) = house.client(ALICE, resume(&ready), attachment(1));
    created(&mut house, client, node, create(tagged("data")));
}

#[test]
fn orders_about_volumes_carry_no_other_sessions_ids() {
    let (mut house, [node, _]) = House::open();
    let (a, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (b, _) = house.client(BOB, SessionAsk::New, attachment(2));
    let id = house.next_id();
    let one = order(&house.ask_as(a, id, create(tagged("x"))), node);
    let two = order(&house.ask_as(b, id, create(tagged("x"))), node);
    assert_ne!(one.id, two.id);
    let volume = |body: &NodeRequestBody| match body {
        NodeRequestBody::Volume(order) => order.volume(),
        other => panic!("{other:?}"),
    };
    assert_ne!(volume(&one.body), volume(&two.body));
}
