//! Nodes come, go, and tell what they have.

use teu_master_core::Effect;
use teu_protocol::{
    ids::{AttachmentId, SessionId},
    message::{
        Cause, ContainerState, EventBody, Lifetime, NodeEvent, NodeReplyBody, NodeRequestBody,
        NodeState, NodeToMaster, NodeUsage, RefusalCode, ReplyBody, RequestBody, Role, SessionAsk,
        Severity, SpawnSpec,
    },
};

use crate::house::*;

#[test]
fn a_node_is_told_its_subnet() {
    let mut house = House::start(stored());
    let (node, effects) = house.connect(NODE_KEYS[1], Role::Node, SessionAsk::New, attachment(0));
    let [
        Effect::Send {
            connection,
            message,
            ..
        },
    ] = &effects[..]
    else {
        panic!()
    };
    assert_eq!(*connection, node);
    let message = format!("{message:?}");
    assert!(message.contains("10.20.1.0, 24"), "{message}");
}

#[test]
fn nobodys_containers_are_destroyed_and_missing_ones_are_told() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (kept, spawn) = house.spawned(client, node, spec(), 2);
    let (missing, _) = house.spawned(client, node, spec(), 3);
    house.disconnect(node);
    let mut stray = as_reported(&spawn, ip(0, 9));
    stray.session = SessionId::from_bytes([9; 16]);
    stray.container = teu_protocol::ids::ContainerId::from_bytes([9; 16]);
    let found = vec![as_reported(&spawn, ip(0, 2)), stray.clone()];
    let (node, effects) = house.node_with_effects(0, found);
    assert_eq!(destroyed(&effects, node), [stray.container]);
    let told: Vec<_> = events(&effects, client);
    let lost = told.iter().any(|event| match event {
        EventBody::Container(info) => {
            info.id == missing.id
                && matches!(info.state, ContainerState::Exited { termination, .. }
                    if termination.cause == Cause::NodeLost)
        }
        _ => false,
    });
    assert!(lost, "{told:?}");
    let effects = house.ask(
        client,
        RequestBody::Signal {
            container: kept.id,
            process: None,
            signal: teu_protocol::image_config::signal::Signal::HUP,
        },
    );
    assert_eq!(orders(&effects, node).len(), 1);
}

#[test]
fn a_forged_account_in_a_report_adopts_nothing() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (_, spawn) = house.spawned(client, node, spec(), 2);
    let mut forged = as_reported(&spawn, ip(1, 2));
    forged.container = teu_protocol::ids::ContainerId::from_bytes([9; 16]);
    forged.account = BOB;
    let (other, effects) = house.node_with_effects(1, vec![forged.clone()]);
    assert_eq!(destroyed(&effects, other), [forged.container]);
}

#[test]
fn while_a_node_is_lost_its_containers_stay_and_requests_say_so() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (info, _) = house.spawned(client, node, spec(), 2);
    house.disconnect(node);
    let effects = house.pass(250);
    let offered = |event: &EventBody| matches!(event, EventBody::Node(node) if node.id == NODES[0] && node.state == NodeState::Lost);
    assert!(events(&effects, client).iter().any(offered));
    let effects = house.ask(
        client,
        RequestBody::Stop {
            container: info.id,
            signal: None,
            grace_ms: 0,
        },
    );
    assert_eq!(refusal(&effects, client).code, RefusalCode::NodeLost);
    let effects = house.ask(client, RequestBody::Find(info.id.to_string()));
    assert!(matches!(
        reply(&effects, client).result,
        Ok(ReplyBody::Detail(_))
    ));
}

#[test]
fn after_a_restart_an_attachment_is_expected_back_and_then_given_up() {
    let (mut house, [node, _]) = House::open();
    let (client, ready) = house.client(ALICE, named("default"), attachment(1));
    let attached = SpawnSpec {
        lifetime: Lifetime::Attachment,
        ..spec()
    };
    let (info, spawn) = house.spawned(client, node, attached, 2);
    house.restart(vec![record(ready.session, Some("default"))]);
    let (node, effects) = house.node_with_effects(0, vec![as_reported(&spawn, ip(0, 2))]);
    assert_eq!(destroyed(&effects, node), []);
    let effects = house.pass(29_750);
    assert_eq!(destroyed(&effects, node), []);
    assert_eq!(destroyed(&house.pass(500), node), [info.id]);
}

#[test]
fn an_attachment_that_ended_while_its_node_was_away_takes_its_container_along() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, named("default"), attachment(1));
    let attached = SpawnSpec {
        lifetime: Lifetime::Attachment,
        ..spec()
    };
    let (info, spawn) = house.spawned(client, node, attached, 2);
    house.disconnect(node);
    house.goodbye(client);
    let (node, effects) = house.node_with_effects(0, vec![as_reported(&spawn, ip(0, 2))]);
    assert_eq!(destroyed(&effects, node), [info.id]);
}

#[test]
fn a_process_bound_to_nobody_is_killed_when_the_node_comes_back() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, named("default"), attachment(1));
    let (info, spawn) = house.spawned(client, node, spec(), 2);
    let mut found = as_reported(&spawn, ip(0, 2));
    let id = teu_protocol::ids::ProcessId::from_bytes([4; 16]);
    let process = teu_protocol::message::ProcessInfo {
        id,
        container: info.id,
        command: Vec::new(),
        state: teu_protocol::message::ProcessState::Running,
    };
    let of = |n| Some(AttachmentId::from_bytes([n; 16]));
    let other = teu_protocol::ids::ProcessId::from_bytes([5; 16]);
    found.processes = vec![
        (process.clone(), of(7)),
        (
            teu_protocol::message::ProcessInfo {
                id: other,
                ..process
            },
            of(1),
        ),
    ];
    let (node, effects) = house.node_with_effects(0, vec![found]);
    let killed: Vec<_> = orders(&effects, node)
        .into_iter()
        .map(|order| order.body)
        .collect();
    let kill = NodeRequestBody::Signal {
        container: info.id,
        process: Some(id),
        signal: teu_protocol::image_config::signal::Signal::KILL,
    };
    assert_eq!(killed, [kill]);
}

#[test]
fn measurements_are_pushed_at_most_every_quarter_second() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    house.pass(250);
    for n in 0..10 {
        let usage = NodeUsage {
            cpu_used_millis: n,
            ..NodeUsage::default()
        };
        let message = NodeToMaster::Event(Box::new(NodeEvent::Usage(usage)));
        assert_eq!(house.node_says(node, message), []);
        assert_eq!(house.input(teu_master_core::Input::Tick), [], "too early");
    }
    let events = events(&house.pass(250), client);
    let [EventBody::Node(offer)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(offer.usage.cpu_used_millis, 9);
    assert_eq!(house.pass(1_000), [], "nothing changed");
}

#[test]
fn the_doctor_asks_all_nodes_and_does_not_wait_for_the_silent() {
    let (mut house, [node, silent]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let effects = house.ask(client, RequestBody::Doctor);
    let asked = order(&effects, node);
    assert_eq!(orders(&effects, silent).len(), 1);
    let findings = NodeReplyBody::Findings(Vec::new());
    assert_eq!(house.node_replies(node, asked.id, Ok(findings)), []);
    let effects = house.pass(3_000);
    let Ok(ReplyBody::Doctor(report)) = reply(&effects, client).result else {
        panic!()
    };
    let bad: Vec<_> = report
        .findings
        .iter()
        .filter(|f| f.severity == Severity::Bad)
        .collect();
    assert!(bad.len() == 1 && bad[0].subject == "node node1", "{bad:?}");
}

#[test]
fn a_nodes_second_connection_replaces_the_first() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let effects = house.ask(client, RequestBody::Spawn(Box::new(spec())));
    let id = order(&effects, node).id;
    let (second, effects) = house.node_with_effects(0, Vec::new());
    assert!(is_closed(&effects, node));
    assert_eq!(refusal(&effects, client).code, RefusalCode::NodeLost);
    // What the earlier one still says counts no more, and its end takes nothing down.
    let spawned = NodeReplyBody::Spawned {
        ip: ip(0, 2),
        state: RUNNING,
        command: Vec::new(),
    };
    assert_eq!(house.node_replies(node, id, Ok(spawned)), []);
    assert_eq!(house.disconnect(node), []);
    let effects = house.ask(client, RequestBody::Spawn(Box::new(spec())));
    assert_eq!(orders(&effects, second).len(), 1);
}
