//! The same request again has its effect once: in flight, answered, after lost links and restarts.

use teu_protocol::{
    ids::RequestId,
    message::{
        NodeReplyBody, NodeRequestBody, RefusalCode, ReplyBody, RequestBody, SessionAsk, SpawnSpec,
    },
};

use crate::house::*;

fn spawn() -> RequestBody {
    RequestBody::Spawn(Box::new(spec()))
}

fn spawned_at(host: u8) -> Result<NodeReplyBody, teu_protocol::message::Refusal> {
    Ok(NodeReplyBody::Spawned {
        ip: ip(0, host),
        state: RUNNING,
        command: Vec::new(),
    })
}

const ID: RequestId = RequestId::from_bytes([0xaa; 16]);

#[test]
fn a_retry_joins_the_one_in_flight_and_both_connections_are_answered() {
    let (mut house, [node, _]) = House::open();
    let (first, ready) = house.client(ALICE, SessionAsk::New, attachment(1));
    let order = order(&house.ask_as(first, ID, spawn()), node);
    house.disconnect(first);
    let (second, _) = house.client(ALICE, resume(&ready), attachment(1));
    assert_eq!(house.ask_as(second, ID, spawn()), [], "it waits");
    let effects = house.node_replies(node, order.id, spawned_at(2));
    assert_eq!(reply(&effects, second).id, ID);
    assert_eq!(replies(&effects, first), []);
    let again = house.ask_as(second, ID, spawn());
    assert_eq!(
        reply(&again, second).result,
        reply(&effects, second).result,
        "replayed"
    );
    assert_eq!(orders(&again, node), []);
}

#[test]
fn two_sessions_that_choose_one_id_do_not_meet() {
    let (mut house, [node, _]) = House::open();
    let (a, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (b, _) = house.client(ALICE, SessionAsk::New, attachment(2));
    let one = order(&house.ask_as(a, ID, spawn()), node);
    let two = order(&house.ask_as(b, ID, spawn()), node);
    assert_ne!(one.id, two.id);
    let effects = house.node_replies(node, one.id, spawned_at(2));
    assert_eq!(
        (replies(&effects, a).len(), replies(&effects, b).len()),
        (1, 0)
    );
}

#[test]
fn a_lost_node_is_told_and_the_retry_is_placed_elsewhere() {
    let (mut house, [node, other]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let anywhere = RequestBody::Spawn(Box::new(SpawnSpec {
        node: None,
        ..spec()
    }));
    let first = order(&house.ask_as(client, ID, anywhere.clone()), node);
    let NodeRequestBody::Spawn(there) = first.body else {
        panic!()
    };
    let effects = house.disconnect(node);
    let refused = refusal(&effects, client);
    assert!(refused.code == RefusalCode::NodeLost && refused.retryable);
    let second = order(&house.ask_as(client, ID, anywhere), other);
    let NodeRequestBody::Spawn(here) = second.body else {
        panic!()
    };
    assert_eq!(here.container, there.container, "one container, one id");
    // The lost node had made it after all: there it must go.
    let (node, effects) = house.node_with_effects(0, vec![as_reported(&there, ip(0, 2))]);
    assert_eq!(destroyed(&effects, node), [there.container]);
}

#[test]
fn a_spawn_that_took_too_long_is_found_by_its_retry() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let order = order(&house.ask_as(client, ID, spawn()), node);
    let effects = house.pass(120_000);
    assert_eq!(refusal(&effects, client).code, RefusalCode::Timeout);
    assert_eq!(
        replies(&house.node_replies(node, order.id, spawned_at(2)), client),
        []
    );
    let effects = house.ask_as(client, ID, spawn());
    assert!(matches!(
        reply(&effects, client).result,
        Ok(ReplyBody::Spawned(_))
    ));
    assert_eq!(orders(&effects, node), []);
}

#[test]
fn a_spawn_is_the_same_over_a_restart_of_the_master() {
    let (mut house, [node, _]) = House::open();
    let (client, ready) = house.client(ALICE, named("default"), attachment(1));
    let order = order(&house.ask_as(client, ID, spawn()), node);
    let NodeRequestBody::Spawn(there) = order.body else {
        panic!()
    };
    house.restart(vec![record(ready.session, Some("default"))]);
    let (client, _) = house.connect(
        ALICE,
        teu_protocol::message::Role::Client,
        named("default"),
        attachment(1),
    );
    let effects = house.ask_as(client, ID, spawn());
    assert_eq!(
        refusal(&effects, client).code,
        RefusalCode::Unavailable,
        "nobody knows yet"
    );
    let list = RequestBody::Destroy(there.container);
    let effects = house.ask(client, list);
    assert_eq!(refusal(&effects, client).code, RefusalCode::Unavailable);
    house.node(0, vec![as_reported(&there, ip(0, 2))]);
    let node = house.node(1, Vec::new());
    let effects = house.ask_as(client, ID, spawn());
    let Ok(ReplyBody::Spawned(info)) = reply(&effects, client).result else {
        panic!()
    };
    assert_eq!(info.id, there.container);
    assert_eq!(orders(&effects, node), []);
}

#[test]
fn destroying_twice_is_harmless() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (info, _) = house.spawned(client, node, spec(), 2);
    for _ in 0..2 {
        let effects = house.ask(client, RequestBody::Destroy(info.id));
        for order in orders(&effects, node) {
            let effects = house.node_replies(node, order.id, Ok(NodeReplyBody::Done));
            assert_eq!(reply(&effects, client).result, Ok(ReplyBody::Done));
        }
    }
    let effects = house.ask(client, RequestBody::Destroy(info.id));
    assert_eq!(reply(&effects, client).result, Ok(ReplyBody::Done));
}

#[test]
fn a_replayed_answer_tells_todays_news() {
    let (mut house, [node, _]) = House::open();
    let (client, ready) = house.client(ALICE, SessionAsk::New, attachment(1));
    let order = order(&house.ask_as(client, ID, spawn()), node);
    let effects = house.node_replies(node, order.id, spawned_at(2));
    let Ok(ReplyBody::Spawned(info)) = reply(&effects, client).result else {
        panic!()
    };
    house.node_says(node, crate::spawning::exited(info.id));
    let (again, _) = house.client(ALICE, resume(&ready), attachment(1));
    let effects = house.ask_as(again, ID, spawn());
    let Ok(ReplyBody::Spawned(info)) = reply(&effects, again).result else {
        panic!()
    };
    assert!(matches!(
        info.state,
        teu_protocol::message::ContainerState::Exited { .. }
    ));
    // Gone in the meantime: the answer is followed by that news.
    let destroy = house.ask(again, RequestBody::Destroy(info.id));
    let id = orders(&destroy, node)[0].id;
    house.node_replies(node, id, Ok(NodeReplyBody::Done));
    let effects = house.ask_as(again, ID, spawn());
    assert!(reply(&effects, again).result.is_ok());
    let gone = teu_protocol::message::EventBody::ContainerGone(info.id);
    assert_eq!(events(&effects, again), [gone]);
}
