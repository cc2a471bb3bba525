//! The end of things: goodbye, killed clients, bound processes, repeated orders.

use teu_protocol::{
    ids::ProcessId,
    message::{
        EventBody, Lifetime, NodeReplyBody, NodeRequestBody, ProcessSpec, Refusal, RefusalCode,
        RequestBody, SessionAsk, SpawnSpec,
    },
};

use crate::{house::*, spawning::exited};

fn attached() -> SpawnSpec {
    SpawnSpec {
        lifetime: Lifetime::Attachment,
        ..spec()
    }
}

#[test]
fn goodbye_destroys_at_once_what_the_attachment_owns_and_nothing_else() {
    let (mut house, [node, _]) = House::open();
    let (one, _) = house.client(ALICE, named("default"), attachment(1));
    let (two, _) = house.client(ALICE, named("default"), attachment(2));
    let (mine, _) = house.spawned(one, node, attached(), 2);
    house.spawned(two, node, attached(), 3);
    house.spawned(one, node, spec(), 4);
    let effects = house.goodbye(one);
    assert_eq!(destroyed(&effects, node), [mine.id]);
}

#[test]
fn a_killed_clients_containers_are_ordered_destroyed_after_the_grace() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (a, _) = house.spawned(client, node, spec(), 2);
    let (b, _) = house.spawned(client, node, attached(), 3);
    house.disconnect(client);
    assert_eq!(destroyed(&house.pass(2_750), node), []);
    let mut gone = destroyed(&house.pass(500), node);
    gone.sort();
    let mut all = vec![a.id, b.id];
    all.sort();
    assert_eq!(gone, all);
}

#[test]
fn a_spawn_whose_client_died_is_destroyed_as_it_appears() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let spawn = order(
        &house.ask(client, RequestBody::Spawn(Box::new(spec()))),
        node,
    );
    house.disconnect(client);
    let effects = house.pass(3_250);
    let destroy = order(&effects, node);
    let NodeRequestBody::Destroy(id) = destroy.body else {
        panic!()
    };
    let result = NodeReplyBody::Spawned {
        ip: ip(0, 2),
        state: RUNNING,
        command: Vec::new(),
    };
    house.node_replies(node, spawn.id, Ok(result));
    // The node could not: it is asked again, until it can.
    let busy = Refusal::new(RefusalCode::Internal, "busy");
    house.node_replies(node, destroy.id, Err(busy));
    let again = order(&house.pass(2_250), node);
    assert_eq!(again.body, NodeRequestBody::Destroy(id));
    house.node_replies(node, again.id, Ok(NodeReplyBody::Done));
    assert_eq!(house.pass(60_000), []);
}

#[test]
fn a_bound_process_is_killed_until_it_is_gone() {
    let (mut house, [node, _]) = House::open();
    let (owner, _) = house.client(ALICE, named("default"), attachment(1));
    let (guest, _) = house.client(ALICE, named("default"), attachment(2));
    let (info, _) = house.spawned(owner, node, spec(), 2);
    let process = ProcessSpec {
        args: Some(vec!["sleep".into()]),
        ..ProcessSpec::default()
    };
    let exec = RequestBody::Exec {
        container: info.id,
        process,
        bound: true,
    };
    let ordered = order(&house.ask(guest, exec), node);
    let NodeRequestBody::Exec { id, bound, .. } = ordered.body else {
        panic!()
    };
    assert_eq!(bound, Some(attachment(2)));
    let kills = |effects: &[teu_master_core::Effect]| {
        let kill = |body: &NodeRequestBody| matches!(body, NodeRequestBody::Signal { process: Some(p), signal: teu_protocol::image_config::signal::Signal::KILL, .. } if *p == id);
        orders(effects, node)
            .into_iter()
            .filter(|order| kill(&order.body))
            .collect::<Vec<_>>()
    };
    // Its client goes before the node has even started it.
    let effects = house.goodbye(guest);
    let [kill] = &kills(&effects)[..] else {
        panic!("{effects:?}")
    };
    let missing = Refusal::new(RefusalCode::NotFound, "not yet");
    house.node_replies(node, kill.id, Err(missing.clone()));
    house.node_replies(node, ordered.id, Ok(NodeReplyBody::Done));
    let [kill] = &kills(&house.pass(2_250))[..] else {
        panic!("again")
    };
    house.node_replies(node, kill.id, Err(missing));
    assert_eq!(
        kills(&house.pass(10_000)),
        [],
        "the node said that it is gone"
    );
    assert_eq!(events(&house.ask(owner, RequestBody::List), owner), []);
    let _: ProcessId = id;
}

#[test]
fn what_ended_is_let_in_nowhere() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (server, _) = house.spawned(client, node, spec(), 2);
    let (user, _) = house.spawned(client, node, spec(), 3);
    let allow = RequestBody::Allow {
        to: server.id,
        from: user.id,
    };
    let ordered = order(&house.ask(client, allow), node);
    let body = NodeRequestBody::Allow {
        to: server.id,
        from: user.id,
        from_ip: user.ip.unwrap(),
    };
    assert_eq!(ordered.body, body);
    let effects = house.node_replies(node, ordered.id, Ok(NodeReplyBody::Done));
    let [EventBody::Container(info)] = &events(&effects, client)[..] else {
        panic!()
    };
    assert_eq!(info.allowed_from, [user.id]);
    let effects = house.ask(client, RequestBody::Destroy(user.id));
    let bodies: Vec<_> = orders(&effects, node)
        .into_iter()
        .map(|order| order.body)
        .collect();
    let from_ip = user.ip.unwrap();
    let disallow = NodeRequestBody::Disallow {
        to: server.id,
        from: user.id,
        from_ip,
    };
    assert_eq!(
        bodies,
        [disallow, NodeRequestBody::Destroy(user.id)],
        "in this order"
    );
}

#[test]
fn across_nodes_allow_says_what_is_missing() {
    let (mut house, [node, other]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (here, _) = house.spawned(client, node, spec(), 2);
    let there = SpawnSpec {
        node: Some(NODES[1]),
        ..spec()
    };
    let spawn = order(
        &house.ask(client, RequestBody::Spawn(Box::new(there))),
        other,
    );
    let result = NodeReplyBody::Spawned {
        ip: ip(1, 2),
        state: RUNNING,
        command: Vec::new(),
    };
    house.node_replies(other, spawn.id, Ok(result));
    let NodeRequestBody::Spawn(there) = spawn.body else {
        panic!()
    };
    let effects = house.ask(
        client,
        RequestBody::Allow {
            to: here.id,
            from: there.container,
        },
    );
    assert_eq!(refusal(&effects, client).code, RefusalCode::BadRequest);
}

#[test]
fn an_exited_container_stays_until_it_is_destroyed_and_stays_exited() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (info, _) = house.spawned(client, node, spec(), 2);
    house.node_says(node, exited(info.id));
    let exec = ProcessSpec {
        args: Some(vec!["ps".into()]),
        ..ProcessSpec::default()
    };
    let exec = RequestBody::Exec {
        container: info.id,
        process: exec,
        bound: false,
    };
    assert_eq!(
        refusal(&house.ask(client, exec), client).code,
        RefusalCode::WrongState
    );
    assert_eq!(house.pass(60_000), []);
    let effects = house.ask(client, RequestBody::List);
    let reply = reply(&effects, client);
    let Ok(teu_protocol::message::ReplyBody::Containers(list)) = reply.result else {
        panic!()
    };
    assert_eq!(list.len(), 1);
}
