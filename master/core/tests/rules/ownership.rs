//! A command about another session's container is told what one about none is told.

use teu_protocol::{
    ids::{ContainerId, StreamId},
    message::{
        LogStart, NodeReplyBody, NodeRequestBody, ProcessSpec, Refusal, RefusalCode, RequestBody,
        SessionAsk, TermSize,
    },
};

use crate::house::*;

fn everything_about(container: ContainerId) -> Vec<RequestBody> {
    let (stream, window) = (StreamId(1), 1_024);
    let process = ProcessSpec {
        args: Some(vec!["ps".into()]),
        ..ProcessSpec::default()
    };
    vec![
        RequestBody::Wake(container),
        RequestBody::Stop {
            container,
            signal: None,
            grace_ms: 0,
        },
        RequestBody::Signal {
            container,
            process: None,
            signal: teu_protocol::image_config::signal::Signal::KILL,
        },
        RequestBody::Destroy(container),
        RequestBody::Find(container.to_string()),
        RequestBody::Exec {
            container,
            process,
            bound: false,
        },
        RequestBody::Attach {
            container,
            process: None,
            from: LogStart::Oldest,
            lossless: true,
            place: None,
            stream,
            window,
        },
        RequestBody::Logs {
            container,
            from: LogStart::Oldest,
            follow: false,
            stream,
            window,
        },
        RequestBody::Resize {
            container,
            process: None,
            size: TermSize { rows: 1, cols: 1 },
        },
        RequestBody::Tunnel {
            container,
            port: 80,
            stream,
            window,
        },
        RequestBody::Allow {
            to: container,
            from: ContainerId::from_bytes([8; 16]),
        },
        RequestBody::Allow {
            to: ContainerId::from_bytes([8; 16]),
            from: container,
        },
        RequestBody::Disallow {
            to: container,
            from: container,
        },
    ]
}

#[test]
fn foreign_and_missing_containers_are_refused_alike_and_reach_no_node() {
    let (mut house, [node, _]) = House::open();
    let (alice, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (container, _) = house.spawned(alice, node, spec(), 9);
    // Another account, and another session of the same account.
    for key in [BOB, ALICE] {
        let (other, _) = house.client(key, SessionAsk::New, attachment(2));
        let missing = everything_about(ContainerId::from_bytes([9; 16]));
        for (foreign, missing) in everything_about(container.id).into_iter().zip(missing) {
            let effects = house.ask(other, foreign.clone());
            let refused: Refusal = refusal(&effects, other);
            assert_eq!(refused.code, RefusalCode::NotFound, "{foreign:?}");
            assert_eq!(orders(&effects, node), [], "{foreign:?}");
            assert_eq!(
                refused,
                refusal(&house.ask(other, missing), other),
                "{foreign:?}"
            );
        }
    }
}

#[test]
fn a_reply_is_taken_only_from_the_node_that_was_asked() {
    let (mut house, [asked, other]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let effects = house.ask(client, RequestBody::Spawn(Box::new(spec())));
    let order = order(&effects, asked);
    assert!(matches!(order.body, NodeRequestBody::Spawn(_)));
    let spawned = NodeReplyBody::Spawned {
        ip: ip(0, 9),
        state: RUNNING,
        command: Vec::new(),
    };
    assert_eq!(house.node_replies(other, order.id, Ok(spawned.clone())), []);
    assert_eq!(
        replies(&house.node_replies(asked, order.id, Ok(spawned)), client).len(),
        1
    );
}

#[test]
fn a_node_speaks_only_of_its_own_containers() {
    let (mut house, [node, other]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (container, _) = house.spawned(client, node, spec(), 9);
    let event = teu_protocol::message::NodeEvent::Container {
        container: container.id,
        state: teu_protocol::message::ContainerState::Asleep,
    };
    let message = teu_protocol::message::NodeToMaster::Event(Box::new(event));
    assert_eq!(house.node_says(other, message.clone()), []);
    assert_eq!(events(&house.node_says(node, message), client).len(), 1);
}
