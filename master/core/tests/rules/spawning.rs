//! Spawns: placed, named, addressed; refused with a reason.

use bytes::Bytes;
use teu_protocol::{
    ids::{Digest, NodeId},
    message::{
        ContainerState, EventBody, Lifetime, NodeReplyBody, PreBootFile, RefusalCode, ReplyBody,
        RequestBody, ResourceLimits, SessionAsk, SpawnSpec,
    },
};

use crate::house::*;

#[test]
fn a_spawn_is_entered_ordered_and_answered_with_its_address() {
    let (mut house, [node, _]) = House::open();
    let (client, ready) = house.client(ALICE, SessionAsk::New, attachment(1));
    let effects = house.ask(client, RequestBody::Spawn(Box::new(spec())));
    let [EventBody::Container(info)] = &events(&effects, client)[..] else {
        panic!()
    };
    assert_eq!(info.state, ContainerState::Requested);
    assert_eq!(info.ip, None);
    let order = order(&effects, node);
    let result = NodeReplyBody::Spawned {
        ip: ip(0, 2),
        state: RUNNING,
        command: vec!["x".into()],
    };
    let effects = house.node_replies(node, order.id, Ok(result));
    let Ok(ReplyBody::Spawned(info)) = reply(&effects, client).result else {
        panic!()
    };
    assert_eq!((info.ip, info.state), (Some(ip(0, 2)), RUNNING));
    let (_, again) = house.client(ALICE, resume(&ready), attachment(2));
    assert_eq!(again.containers, [*info]);
}

#[test]
fn what_cannot_be_spawned_is_refused_for_its_reason() {
    let (mut house, _) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let huge = ResourceLimits {
        memory_bytes: Some(9 << 30),
        ..ResourceLimits::default()
    };
    let table = [
        (
            SpawnSpec {
                image: Digest::of(b"?"),
                ..spec()
            },
            RefusalCode::ImageMissing,
        ),
        (
            SpawnSpec {
                node: Some(NodeId::from_bytes([9; 16])),
                ..spec()
            },
            RefusalCode::NotFound,
        ),
        (
            SpawnSpec {
                node: None,
                limits: huge,
                ..spec()
            },
            RefusalCode::NoCapacity,
        ),
        (
            SpawnSpec {
                hostname: Some(" ".into()),
                ..spec()
            },
            RefusalCode::BadRequest,
        ),
    ];
    for (spec, code) in table {
        let effects = house.ask(client, RequestBody::Spawn(Box::new(spec)));
        assert_eq!(refusal(&effects, client).code, code);
    }
    let effects = house.ask(client, RequestBody::List);
    assert_eq!(
        reply(&effects, client).result,
        Ok(ReplyBody::Containers(Vec::new()))
    );
}

#[test]
fn a_tag_is_an_accounts_own_and_free_again_once_its_container_is_condemned() {
    let (mut house, [node, _]) = House::open();
    let (alice, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let web = SpawnSpec {
        tag: Some("web".parse().unwrap()),
        ..spec()
    };
    let (first, _) = house.spawned(alice, node, web.clone(), 2);
    let (other, _) = house.client(ALICE, SessionAsk::New, attachment(2));
    let effects = house.ask(other, RequestBody::Spawn(Box::new(web.clone())));
    assert_eq!(refusal(&effects, other).code, RefusalCode::TagTaken);
    let (bob, _) = house.client(BOB, SessionAsk::New, attachment(3));
    house.spawned(bob, node, web.clone(), 3);
    house.ask(alice, RequestBody::Destroy(first.id));
    house.spawned(other, node, web, 4);
}

#[test]
fn an_address_that_is_foreign_or_taken_is_not_accepted() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    house.spawned(client, node, spec(), 2);
    for wrong in [ip(0, 2), ip(1, 2), ip(0, 1), ip(0, 255)] {
        let effects = house.ask(client, RequestBody::Spawn(Box::new(spec())));
        let order = order(&effects, node);
        let result = NodeReplyBody::Spawned {
            ip: wrong,
            state: RUNNING,
            command: Vec::new(),
        };
        let effects = house.node_replies(node, order.id, Ok(result));
        assert_eq!(
            refusal(&effects, client).code,
            RefusalCode::Internal,
            "{wrong}"
        );
        assert_eq!(destroyed(&effects, node).len(), 1, "{wrong}");
    }
}

#[test]
fn spawns_in_flight_count_so_that_nodes_are_filled_evenly() {
    let (mut house, nodes) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let anywhere = SpawnSpec {
        node: None,
        ..spec()
    };
    let mut counts = [0, 0];
    for _ in 0..10 {
        let effects = house.ask(client, RequestBody::Spawn(Box::new(anywhere.clone())));
        for (count, node) in counts.iter_mut().zip(nodes) {
            *count += orders(&effects, node).len();
        }
    }
    assert_eq!(counts, [5, 5]);
}

#[test]
fn a_container_is_found_by_id_prefix_tag_and_both() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let web = SpawnSpec {
        tag: Some("web".parse().unwrap()),
        ..spec()
    };
    let (info, _) = house.spawned(client, node, web, 2);
    let id = info.id.to_string();
    for what in [
        id.clone(),
        id[..4].to_owned(),
        "web".into(),
        format!("{}:web", &id[..6]),
    ] {
        let effects = house.ask(client, RequestBody::Find(what.clone()));
        assert_eq!(orders(&effects, node).len(), 1, "{what}");
    }
    for what in [
        id[..3].to_owned(),
        "we".into(),
        format!("{id}:other"),
        String::new(),
    ] {
        let effects = house.ask(client, RequestBody::Find(what.clone()));
        assert_eq!(
            refusal(&effects, client).code,
            RefusalCode::NotFound,
            "{what}"
        );
    }
}

#[test]
fn a_first_process_container_goes_with_its_first_process() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let once = SpawnSpec {
        lifetime: Lifetime::FirstProcess,
        ..spec()
    };
    let (info, _) = house.spawned(client, node, once, 2);
    let effects = house.node_says(node, exited(info.id));
    assert_eq!(destroyed(&effects, node), [info.id]);
}

pub(crate) fn exited(
    container: teu_protocol::ids::ContainerId,
) -> teu_protocol::message::NodeToMaster {
    use teu_protocol::message::{Cause, ExitStatus, NodeEvent, NodeToMaster, Termination};
    let termination = Termination {
        status: ExitStatus::Code(0),
        cause: Cause::Exited,
    };
    let state = ContainerState::Exited {
        termination,
        at_ms: 6,
    };
    NodeToMaster::Event(Box::new(NodeEvent::Container { container, state }))
}

#[test]
fn files_on_their_way_to_a_node_are_bounded() {
    const FILE: usize = 4 << 20;
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let mut with_file = spec();
    with_file.node = Some(NODES[0]);
    with_file.files = vec![PreBootFile {
        path: "/file".into(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        secret: false,
        size: FILE as u64,
    }];
    let content = Bytes::from(vec![0; FILE]);
    let spawn = |house: &mut House| {
        let body = RequestBody::Spawn(Box::new(with_file.clone()));
        let id = house.next_id();
        house.ask_with(client, id, body, vec![content.clone()])
    };
    let first = order(&spawn(&mut house), node);
    for _ in 1..16 {
        order(&spawn(&mut house), node);
    }
    let refused = spawn(&mut house);
    assert_eq!(refusal(&refused, client).code, RefusalCode::Unavailable);
    assert!(orders(&refused, node).is_empty() && events(&refused, client).is_empty());
    // Without files there is room, and an answer makes room for files again.
    order(
        &house.ask(client, RequestBody::Spawn(Box::new(spec()))),
        node,
    );
    let result = NodeReplyBody::Spawned {
        ip: ip(0, 2),
        state: RUNNING,
        command: vec!["x".into()],
    };
    house.node_replies(node, first.id, Ok(result));
    order(&spawn(&mut house), node);
}

/// An agent's restart takes a second: what only its node can take is refused in a way that passes, and
/// then succeeds; after the node's grace it is refused for good.
#[test]
fn spawns_wait_for_a_node_that_was_lost_a_moment_ago() {
    let (mut house, nodes) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let anywhere = || {
        RequestBody::Spawn(Box::new(SpawnSpec {
            node: None,
            ..spec()
        }))
    };
    house.disconnect(nodes[0]);
    house.disconnect(nodes[1]);
    let refused = refusal(&house.ask(client, anywhere()), client);
    assert_eq!(
        (refused.code, refused.retryable),
        (RefusalCode::NodeLost, true),
        "{refused}"
    );
    // The only one that is up is full; the other may come back.
    let mut full = report(Vec::new());
    full.usage.disk_free_bytes = 0;
    house.node_that_reports(1, full);
    let refused = refusal(&house.ask(client, anywhere()), client);
    assert!(refused.retryable, "{refused}");
    house.pass(30_000);
    let refused = refusal(&house.ask(client, anywhere()), client);
    assert_eq!(
        (refused.code, refused.retryable),
        (RefusalCode::NoCapacity, false),
        "{refused}"
    );
    let first = house.node(0, Vec::new());
    let effects = house.ask(client, anywhere());
    order(&effects, first);
}
