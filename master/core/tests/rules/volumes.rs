//! Volumes: made, found, refused, placed, in use, told to every session of their account.

use teu_master_core::{ConnectionId, Effect, record::StoreOp};
use teu_protocol::{
    ids::{ContainerId, NodeId, RequestId, VolumeId},
    message::{
        ContainerState, EventBody, NodeReplyBody, NodeRequestBody, NodeVolume, Refusal,
        RefusalCode, ReplyBody, RequestBody, SessionAsk, SnapshotSchedule, SpawnSpec, VolumeInfo,
        VolumeMount, VolumeOrder, VolumeRecord, VolumeSpec, VolumeState,
    },
};

use crate::house::*;

pub(crate) fn tagged(tag: &str) -> VolumeSpec {
    VolumeSpec {
        tag: Some(tag.parse().unwrap()),
        ..VolumeSpec::default()
    }
}

/// On the first node.
pub(crate) fn create(spec: VolumeSpec) -> RequestBody {
    RequestBody::CreateVolume {
        node: Some(NODES[0]),
        spec,
        ensure: false,
    }
}

fn ensure(tag: &str) -> RequestBody {
    RequestBody::CreateVolume {
        node: Some(NODES[0]),
        spec: tagged(tag),
        ensure: true,
    }
}

/// The one order about a volume.
pub(crate) fn volume_order(effects: &[Effect], node: ConnectionId) -> (RequestId, VolumeOrder) {
    let found = order(effects, node);
    match found.body {
        NodeRequestBody::Volume(asked) => (found.id, *asked),
        other => panic!("not about a volume: {other:?}"),
    }
}

pub(crate) fn is_there(record: VolumeRecord) -> NodeVolume {
    NodeVolume {
        record,
        state: VolumeState::Ready,
    }
}

pub(crate) fn made(record: VolumeRecord) -> Result<NodeReplyBody, Refusal> {
    Ok(NodeReplyBody::Volume(Box::new(is_there(record))))
}

/// Creates, and plays the node: the effects of its answer, and the record.
pub(crate) fn created(
    house: &mut House,
    client: ConnectionId,
    node: ConnectionId,
    body: RequestBody,
) -> (Vec<Effect>, VolumeRecord) {
    let (id, asked) = volume_order(&house.ask(client, body), node);
    let (VolumeOrder::Create(record) | VolumeOrder::Clone(record)) = asked else {
        panic!("not made: {asked:?}")
    };
    let effects = house.node_replies(node, id, made(record.clone()));
    (effects, record)
}

pub(crate) fn info(effects: &[Effect], client: ConnectionId) -> VolumeInfo {
    match reply(effects, client).result {
        Ok(ReplyBody::Volume(info)) => *info,
        other => panic!("not a volume: {other:?}"),
    }
}

/// What is persisted of volumes.
pub(crate) fn persisted(effects: &[Effect]) -> Vec<StoreOp> {
    let ops = effects.iter().filter_map(|effect| match effect {
        Effect::Persist(op @ (StoreOp::PutVolume(_) | StoreOp::RemoveVolume(_))) => {
            Some(op.clone())
        }
        _ => None,
    });
    ops.collect()
}

/// Volumes that the client is told of by events.
pub(crate) fn told_volumes(effects: &[Effect], client: ConnectionId) -> Vec<VolumeInfo> {
    let told = events(effects, client)
        .into_iter()
        .filter_map(|event| match event {
            EventBody::Volume(info) => Some(*info),
            _ => None,
        });
    told.collect()
}

pub(crate) fn with(volumes: &[VolumeId], node: Option<NodeId>) -> SpawnSpec {
    let mount = |(n, volume): (usize, &VolumeId)| VolumeMount {
        volume: *volume,
        path: format!("/data/{n}"),
        read_only: false,
    };
    SpawnSpec {
        node,
        volumes: volumes.iter().enumerate().map(mount).collect(),
        ..spec()
    }
}

fn spawn(spec: SpawnSpec) -> RequestBody {
    RequestBody::Spawn(Box::new(spec))
}

#[test]
fn a_volume_is_durable_before_it_is_answered_and_every_session_of_the_account_hears() {
    let (mut house, [node, _]) = House::open();
    let (one, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (two, _) = house.client(ALICE, named("other"), attachment(2));
    let (bob, _) = house.client(BOB, SessionAsk::New, attachment(3));
    let effects = house.ask(one, create(tagged("data")));
    assert_eq!(persisted(&effects), [], "the node has to say so first");
    let (id, asked) = volume_order(&effects, node);
    let VolumeOrder::Create(record) = asked else {
        panic!()
    };
    assert_eq!(record.account, ALICE);
    let effects = house.node_replies(node, id, made(record.clone()));
    let kept = effects
        .iter()
        .position(|e| matches!(e, Effect::Persist(StoreOp::PutVolume(v)) if v.record == record));
    let told = effects
        .iter()
        .position(|e| matches!(e, Effect::Send { .. }));
    assert!(kept.unwrap() < told.unwrap(), "{effects:?}");
    let volume = info(&effects, one);
    assert_eq!((volume.node, volume.state), (NODES[0], VolumeState::Ready));
    for client in [one, two] {
        assert_eq!(
            told_volumes(&effects, client),
            std::slice::from_ref(&volume)
        );
    }
    assert_eq!(events(&effects, bob), []);
    let (_, ready) = house.client(ALICE, SessionAsk::New, attachment(4));
    assert_eq!(ready.offer.volumes, [volume]);
    assert_eq!(ready.limits.volumes, 4_096);
    let (_, ready) = house.client(BOB, SessionAsk::New, attachment(5));
    assert_eq!(ready.offer.volumes, []);
}

#[test]
fn it_is_found_by_id_prefix_tag_and_both() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (effects, _) = created(&mut house, client, node, create(tagged("data")));
    let volume = info(&effects, client);
    let id = volume.id.to_string();
    for what in [
        id.clone(),
        id[..6].to_owned(),
        id[..6].to_uppercase(),
        "data".into(),
        format!("{id}:data"),
    ] {
        let found = house.ask(client, RequestBody::FindVolume(what.clone()));
        assert_eq!(info(&found, client), volume, "{what}");
    }
    for what in [id[..3].to_owned(), "dat".into(), format!("{id}:other")] {
        let found = house.ask(client, RequestBody::FindVolume(what.clone()));
        assert_eq!(
            refusal(&found, client).code,
            RefusalCode::NotFound,
            "{what}"
        );
    }
    let listed = house.ask(client, RequestBody::Volumes);
    assert_eq!(
        reply(&listed, client).result,
        Ok(ReplyBody::Volumes(vec![volume]))
    );
}

#[test]
fn another_accounts_volume_is_as_unknown_as_none() {
    let (mut house, [node, _]) = House::open();
    let (alice, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (bob, _) = house.client(BOB, SessionAsk::New, attachment(2));
    let (effects, _) = created(&mut house, alice, node, create(tagged("data")));
    let theirs = info(&effects, alice).id;
    let none = VolumeId::from_bytes([0xee; 16]);
    let name = || "s".parse().unwrap();
    let asks = |volume: VolumeId| {
        let order = teu_protocol::message::RollBack {
            volume,
            snapshot: name(),
            discard_later: true,
            force: true,
        };
        vec![
            RequestBody::FindVolume(volume.to_string()),
            RequestBody::DestroyVolume(volume),
            RequestBody::Snapshots(volume),
            RequestBody::Snapshot {
                volume,
                name: name(),
            },
            RequestBody::DestroySnapshot {
                volume,
                name: name(),
            },
            RequestBody::RollBack(order),
            RequestBody::CloneVolume {
                volume,
                snapshot: name(),
                spec: VolumeSpec::default(),
            },
            RequestBody::VolumeUsage(volume),
            RequestBody::SetQuota {
                volume,
                quota_bytes: None,
            },
            RequestBody::SetSchedule {
                volume,
                schedule: None,
            },
            RequestBody::ExportVolume {
                volume,
                snapshot: name(),
                base: None,
                stream: teu_protocol::ids::StreamId(1),
                window: 10,
            },
            RequestBody::ImportVolume {
                target: teu_protocol::message::ImportTarget::Into(volume),
                stream: teu_protocol::ids::StreamId(1),
            },
            spawn(with(&[volume], None)),
        ]
    };
    for (foreign, unknown) in asks(theirs).into_iter().zip(asks(none)) {
        let text = format!("{foreign:?}");
        let one = refusal(&house.ask(bob, foreign), bob);
        assert_eq!(one.code, RefusalCode::NotFound, "{text}");
        assert_eq!(one, refusal(&house.ask(bob, unknown), bob), "{text}");
    }
    // The tag is free for another account.
    let (effects, _) = created(&mut house, bob, node, create(tagged("data")));
    assert_ne!(info(&effects, bob).id, theirs);
}

#[test]
fn a_tag_is_taken_while_it_is_being_made_too_and_ensure_answers_the_one_that_is_there() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (other, _) = house.client(ALICE, SessionAsk::New, attachment(2));
    let (id, asked) = volume_order(&house.ask(client, create(tagged("data"))), node);
    let refused = house.ask(other, create(tagged("data")));
    assert_eq!(refusal(&refused, other).code, RefusalCode::TagTaken);
    let early = refusal(&house.ask(other, ensure("data")), other);
    assert_eq!(early.code, RefusalCode::Unavailable);
    assert!(early.retryable, "the SDK asks again");
    let VolumeOrder::Create(record) = asked else {
        panic!()
    };
    let effects = house.node_replies(node, id, made(record));
    let volume = info(&effects, client);
    let effects = house.ask(other, ensure("data"));
    assert_eq!(info(&effects, other), volume);
    assert_eq!(orders(&effects, node), []);
    let refused = house.ask(other, create(tagged("data")));
    assert_eq!(refusal(&refused, other).code, RefusalCode::TagTaken);
}

#[test]
fn a_making_that_the_node_refuses_leaves_nothing() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (id, _) = volume_order(&house.ask(client, create(tagged("data"))), node);
    let full = Refusal::new(RefusalCode::NoSpace, "full");
    let effects = house.node_replies(node, id, Err(full));
    assert_eq!(refusal(&effects, client).code, RefusalCode::NoSpace);
    assert_eq!(
        (persisted(&effects), events(&effects, client)),
        (vec![], vec![])
    );
    created(&mut house, client, node, create(tagged("data")));
}

#[test]
fn what_contradicts_the_bounds_is_refused_before_the_node_hears() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (effects, _) = created(&mut house, client, node, create(tagged("data")));
    let volume = info(&effects, client).id;
    let schedule = |every_s, keep| Some(SnapshotSchedule { every_s, keep });
    let small = VolumeSpec {
        quota_bytes: Some((1 << 20) - 1),
        ..VolumeSpec::default()
    };
    let labels = (0..65).map(|n| (n.to_string(), String::new())).collect();
    let many = VolumeSpec {
        labels,
        ..VolumeSpec::default()
    };
    let at = |path: &str| {
        let mut spec = with(&[volume], None);
        path.clone_into(&mut spec.volumes[0].path);
        spawn(spec)
    };
    let mut twice = with(&[volume, volume], None);
    twice.volumes[1].path = "/data/0/".into();
    let mut asks = vec![
        create(small),
        create(many),
        RequestBody::Snapshot {
            volume,
            name: "auto-mine".parse().unwrap(),
        },
        RequestBody::SetQuota {
            volume,
            quota_bytes: Some(1),
        },
        RequestBody::CreateVolume {
            node: None,
            spec: VolumeSpec::default(),
            ensure: true,
        },
        spawn(twice),
        spawn(with(&[volume; 33], None)),
    ];
    asks.extend(
        [(9, 1), (10, 0), (10, 1_001)].map(|(every_s, keep)| RequestBody::SetSchedule {
            volume,
            schedule: schedule(every_s, keep),
        }),
    );
    asks.extend(
        [
            "data",
            "/",
            "//./",
            "/a/../b",
            "/proc/x",
            "/sys",
            "//dev/shm",
        ]
        .map(at),
    );
    for body in asks {
        let text = format!("{body:?}");
        let effects = house.ask(client, body);
        assert_eq!(
            refusal(&effects, client).code,
            RefusalCode::BadRequest,
            "{text}"
        );
        assert_eq!(orders(&effects, node), [], "{text}");
    }
}

#[test]
fn it_goes_where_most_room_is_and_nowhere_without_a_pool() {
    let mut house = House::start(stored());
    let mut roomy = report(Vec::new());
    roomy.usage.pool_free_bytes += 1;
    house.node(0, Vec::new());
    let (second, _) = house.node_that_reports(1, roomy);
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let anywhere = || RequestBody::CreateVolume {
        node: None,
        spec: VolumeSpec::default(),
        ensure: false,
    };
    let (effects, _) = created(&mut house, client, second, anywhere());
    assert_eq!(info(&effects, client).node, NODES[1]);

    let mut house = House::start(stored());
    for n in [0, 1] {
        let mut none = report(Vec::new());
        none.capacity.pool_bytes = 0;
        none.volumes = None;
        house.node_that_reports(n, none);
    }
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    for body in [anywhere(), create(VolumeSpec::default())] {
        let refused = refusal(&house.ask(client, body), client);
        assert_eq!(refused.code, RefusalCode::NoCapacity);
        assert!(refused.message.contains("teu doctor"), "{refused}");
    }
}

#[test]
fn a_container_follows_its_volumes() {
    let (mut house, [first, second]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let here = created(&mut house, client, first, create(tagged("here")))
        .1
        .id;
    let on_second = RequestBody::CreateVolume {
        node: Some(NODES[1]),
        spec: tagged("there"),
        ensure: false,
    };
    let there = created(&mut house, client, second, on_second).1.id;
    let effects = house.ask(client, spawn(with(&[there], None)));
    let NodeRequestBody::Spawn(spawned) = order(&effects, second).body else {
        panic!()
    };
    assert_eq!(spawned.spec.volumes[0].volume, there);
    let refused = refusal(
        &house.ask(client, spawn(with(&[there], Some(NODES[0])))),
        client,
    );
    assert_eq!(refused.code, RefusalCode::BadRequest);
    assert!(refused.message.contains("is on node `node1`"), "{refused}");
    let refused = refusal(
        &house.ask(client, spawn(with(&[here, there], None))),
        client,
    );
    assert_eq!(refused.code, RefusalCode::BadRequest);
}

#[test]
fn what_is_mounted_is_in_use_until_the_container_ends_and_all_sessions_see_it() {
    let (mut house, [node, _]) = House::open();
    let (one, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (two, _) = house.client(ALICE, SessionAsk::New, attachment(2));
    let volume = created(&mut house, one, node, create(tagged("data"))).1.id;
    let web = SpawnSpec {
        tag: "web".parse().ok(),
        ..with(&[volume], None)
    };
    let effects = house.ask(one, spawn(web));
    let NodeRequestBody::Spawn(spawned) = order(&effects, node).body else {
        panic!()
    };
    let container: ContainerId = spawned.container;
    for client in [one, two] {
        assert_eq!(told_volumes(&effects, client)[0].used_by, [container]);
    }
    let refused = refusal(&house.ask(two, RequestBody::DestroyVolume(volume)), two);
    assert_eq!(refused.code, RefusalCode::Busy);
    assert!(refused.message.contains("web"), "{refused}");
    let into = RequestBody::ImportVolume {
        target: teu_protocol::message::ImportTarget::Into(volume),
        stream: teu_protocol::ids::StreamId(1),
    };
    assert_eq!(refusal(&house.ask(two, into), two).code, RefusalCode::Busy);
    // Rolling back is for the node to decide.
    let back = RequestBody::RollBack(teu_protocol::message::RollBack {
        volume,
        snapshot: "s".parse().unwrap(),
        discard_later: false,
        force: false,
    });
    assert_eq!(orders(&house.ask(two, back), node).len(), 1);

    let ended = teu_protocol::message::NodeEvent::Container {
        container,
        state: ContainerState::Exited {
            termination: teu_protocol::message::Termination {
                status: teu_protocol::message::ExitStatus::Code(0),
                cause: teu_protocol::message::Cause::Exited,
            },
            at_ms: 1,
        },
    };
    let event = teu_protocol::message::NodeToMaster::Event(Box::new(ended));
    let effects = house.node_says(node, event);
    for client in [one, two] {
        let told = told_volumes(&effects, client);
        assert_eq!(told.len(), 1);
        assert!(told[0].used_by.is_empty());
    }
    let (id, asked) = volume_order(&house.ask(two, RequestBody::DestroyVolume(volume)), node);
    assert_eq!(asked, VolumeOrder::Destroy(volume));
    let effects = house.node_replies(node, id, Ok(NodeReplyBody::Done));
    assert_eq!(reply(&effects, two).result, Ok(ReplyBody::Done));
    assert_eq!(persisted(&effects), [StoreOp::RemoveVolume(volume)]);
    for client in [one, two] {
        assert_eq!(events(&effects, client), [EventBody::VolumeGone(volume)]);
    }
    let again = house.ask(one, RequestBody::DestroyVolume(volume));
    assert_eq!(reply(&again, one).result, Ok(ReplyBody::Done));
}
