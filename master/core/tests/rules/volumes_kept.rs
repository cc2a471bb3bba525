//! Volumes over lost links, restarts and reports: nothing is made twice, nothing is forgotten.

use teu_master_core::record::{StoreOp, Volume};
use teu_protocol::{
    ids::{RequestId, VolumeId},
    message::{
        EventBody, NodeEvent, NodeReplyBody, NodeRequestBody, NodeToMaster, NodeVolume, Refusal,
        RefusalCode, ReplyBody, RequestBody, SessionAsk, VolumeOrder, VolumeRecord, VolumeState,
    },
};

use crate::{house::*, volumes::*};

const ID: RequestId = RequestId::from_bytes([0xaa; 16]);

fn kept(record: &VolumeRecord, destroying: bool) -> Volume {
    Volume {
        node: NODES[0],
        record: record.clone(),
        destroying,
    }
}

fn ordered(order: VolumeOrder) -> VolumeRecord {
    match order {
        VolumeOrder::Create(record) => record,
        other => panic!("not a creation: {other:?}"),
    }
}

fn reports(volumes: Vec<NodeVolume>) -> teu_protocol::message::NodeReport {
    teu_protocol::message::NodeReport {
        volumes: Some(volumes),
        ..report(Vec::new())
    }
}

fn record_of(id: u8, tag: Option<&str>) -> VolumeRecord {
    VolumeRecord {
        id: VolumeId::from_bytes([id; 16]),
        account: ALICE,
        created_ms: 7,
        spec: tag.map(tagged).unwrap_or_default(),
        origin: None,
    }
}

fn anywhere() -> RequestBody {
    RequestBody::CreateVolume {
        node: None,
        spec: tagged("data"),
        ensure: false,
    }
}

#[test]
fn a_retry_over_a_restart_of_the_master_makes_nothing_twice() {
    let (mut house, [node, _]) = House::open();
    let (client, ready) = house.client(ALICE, named("default"), attachment(1));
    let effects = house.ask_as(client, ID, anywhere());
    let record = ordered(volume_order(&effects, node).1);
    // The node made it; the master died before it heard.
    house.restart(vec![record_session(&ready)]);
    let (client, effects) = house.connect(
        ALICE,
        teu_protocol::message::Role::Client,
        resume(&ready),
        attachment(1),
    );
    assert_eq!(crate::house::ready(&effects, client), None, "held");
    // Another node with room must not get it before the first has told.
    house.node(1, Vec::new());
    let early = house.ask_as(client, ID, anywhere());
    assert_eq!(refusal(&early, client).code, RefusalCode::Unavailable);
    let (node, effects) = house.node_that_reports(0, reports(vec![is_there(record.clone())]));
    assert_eq!(
        persisted(&effects),
        [StoreOp::PutVolume(kept(&record, false))]
    );
    let again = house.ask_as(client, ID, anywhere());
    assert_eq!(info(&again, client).id, record.id);
    assert_eq!(orders(&again, node), []);
}

fn record_session(ready: &teu_protocol::message::Ready) -> teu_master_core::record::Session {
    crate::house::record(ready.session, Some("default"))
}

#[test]
fn a_node_lost_while_creating_settles_it_by_its_report() {
    for was_made in [true, false] {
        let (mut house, [node, _]) = House::open();
        let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
        let effects = house.ask_as(client, ID, create(tagged("data")));
        let record = ordered(volume_order(&effects, node).1);
        let lost = refusal(&house.disconnect(node), client);
        assert_eq!((lost.code, lost.retryable), (RefusalCode::NodeLost, true));
        let down = refusal(&house.ask_as(client, ID, create(tagged("data"))), client);
        assert_eq!(down.code, RefusalCode::NodeLost);
        let there = was_made.then(|| is_there(record.clone()));
        let (node, effects) = house.node_that_reports(0, reports(there.into_iter().collect()));
        assert_eq!(told_volumes(&effects, client).len(), usize::from(was_made));
        let again = house.ask_as(client, ID, create(tagged("data")));
        if was_made {
            assert_eq!(info(&again, client).id, record.id);
        } else {
            let (id, asked) = volume_order(&again, node);
            assert_eq!(ordered(asked).id, record.id, "the same volume");
            let effects = house.node_replies(node, id, made(record));
            assert_eq!(persisted(&effects).len(), 1);
        }
    }
}

#[test]
fn a_lost_nodes_volumes_are_listed_as_lost_and_come_back_with_it() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let record = created(&mut house, client, node, create(tagged("data"))).1;
    let told = told_volumes(&house.disconnect(node), client);
    assert_eq!(told[0].state, VolumeState::NodeLost);
    let refused = refusal(
        &house.ask(client, RequestBody::VolumeUsage(record.id)),
        client,
    );
    assert_eq!(refused.code, RefusalCode::NodeLost);
    let (_, effects) = house.node_that_reports(0, reports(vec![is_there(record)]));
    assert_eq!(told_volumes(&effects, client)[0].state, VolumeState::Ready);
    assert_eq!(persisted(&effects), [], "nothing is new");
}

#[test]
fn what_the_store_has_is_known_before_its_node_is_back() {
    let record = record_of(5, Some("data"));
    let mut house = House::start(stored());
    house.restart_with(Vec::new(), vec![kept(&record, false)]);
    let (_, ready) = house.client(ALICE, SessionAsk::New, attachment(1));
    assert_eq!(ready.offer.volumes[0].id, record.id);
    assert_eq!(ready.offer.volumes[0].state, VolumeState::NodeLost);
}

#[test]
fn unknown_volumes_are_adopted_whoever_has_the_tag_keeps_it() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let mine = created(&mut house, client, node, create(tagged("data"))).1;
    house.disconnect(node);
    let found = record_of(9, Some("data"));
    let (_, effects) = house.node_that_reports(
        0,
        reports(vec![is_there(found.clone()), is_there(mine.clone())]),
    );
    let adopted = record_of(9, None);
    assert_eq!(
        persisted(&effects),
        [StoreOp::PutVolume(kept(&adopted, false))]
    );
    let by_tag = house.ask(client, RequestBody::FindVolume("data".into()));
    assert_eq!(info(&by_tag, client).id, mine.id);
    let by_id = house.ask(client, RequestBody::FindVolume(found.id.to_string()));
    assert_eq!(info(&by_id, client).spec.tag, None);
}

#[test]
fn a_second_node_cannot_take_over_a_volume_unless_it_is_missing_at_the_first() {
    let (mut house, [first, second]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let record = created(&mut house, client, first, create(tagged("data"))).1;
    house.disconnect(second);
    let there = || reports(vec![is_there(record.clone())]);
    let (second, effects) = house.node_that_reports(1, there());
    assert_eq!(orders(&effects, second), [], "nothing is destroyed");
    let found = house.ask(client, RequestBody::FindVolume("data".into()));
    assert_eq!(info(&found, client).node, NODES[0]);
    house.disconnect(first);
    house.node_that_reports(0, reports(Vec::new()));
    house.disconnect(second);
    house.node_that_reports(1, there());
    let found = house.ask(client, RequestBody::FindVolume("data".into()));
    let found = info(&found, client);
    assert_eq!((found.node, found.state), (NODES[1], VolumeState::Ready));
}

#[test]
fn what_was_removed_by_hand_is_missing_told_by_the_doctor_and_forgotten_by_destroying() {
    let (mut house, [node, second]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let record = created(&mut house, client, node, create(tagged("data"))).1;
    house.disconnect(node);
    let (node, effects) = house.node_that_reports(0, reports(Vec::new()));
    assert_eq!(
        told_volumes(&effects, client)[0].state,
        VolumeState::Missing
    );
    let refused = refusal(
        &house.ask(client, RequestBody::Snapshots(record.id)),
        client,
    );
    assert_eq!(refused.code, RefusalCode::Faulted);
    house.disconnect(second);
    let effects = house.ask(client, RequestBody::Doctor);
    let asked = order(&effects, node);
    assert_eq!(asked.body, NodeRequestBody::Doctor);
    let effects = house.node_replies(node, asked.id, Ok(NodeReplyBody::Findings(Vec::new())));
    let Ok(ReplyBody::Doctor(said)) = reply(&effects, client).result else {
        panic!()
    };
    let finding = said.findings.iter().find(|f| f.subject == "volume data");
    assert!(finding.unwrap().message.contains("removed it by hand"));
    let effects = house.ask(client, RequestBody::DestroyVolume(record.id));
    let asked = order(&effects, node);
    let destroy = VolumeOrder::Destroy(record.id);
    assert_eq!(asked.body, NodeRequestBody::Volume(Box::new(destroy)));
    let effects = house.node_replies(node, asked.id, Ok(NodeReplyBody::Done));
    assert_eq!(reply(&effects, client).result, Ok(ReplyBody::Done));
    assert_eq!(persisted(&effects), [StoreOp::RemoveVolume(record.id)]);
    assert_eq!(events(&effects, client), [EventBody::VolumeGone(record.id)]);
}

#[test]
fn what_is_removed_by_hand_while_its_node_is_connected_is_missing_until_it_is_back() {
    let (mut house, [node, second]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let record = created(&mut house, client, node, create(tagged("data"))).1;
    let says = |house: &mut House, node, state| {
        let found = NodeVolume {
            record: record.clone(),
            state,
        };
        let event = NodeEvent::Volume(Box::new(found));
        let effects = house.node_says(node, NodeToMaster::Event(Box::new(event)));
        let told = told_volumes(&effects, client);
        told.first().map(|info| (info.node, info.state))
    };
    let other = says(&mut house, second, VolumeState::Missing);
    assert_eq!(other, None, "it never had it");
    for state in [VolumeState::Missing, VolumeState::Ready] {
        assert_eq!(says(&mut house, node, state), Some((NODES[0], state)));
    }
}

#[test]
fn a_pool_that_cannot_be_read_faults_its_volumes_and_an_event_cures_them() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let record = created(&mut house, client, node, create(tagged("data"))).1;
    house.disconnect(node);
    let unreadable = teu_protocol::message::NodeReport {
        volumes: None,
        ..report(Vec::new())
    };
    let (node, effects) = house.node_that_reports(0, unreadable);
    assert_eq!(
        told_volumes(&effects, client)[0].state,
        VolumeState::Faulted
    );
    let cured = NodeEvent::Volume(Box::new(is_there(record)));
    let effects = house.node_says(node, NodeToMaster::Event(Box::new(cured)));
    assert_eq!(told_volumes(&effects, client)[0].state, VolumeState::Ready);
}

#[test]
fn the_mark_of_a_destruction_is_durable_first_and_is_followed_after_restarts() {
    for is_left in [true, false] {
        let (mut house, [node, _]) = House::open();
        let (client, ready) = house.client(ALICE, named("default"), attachment(1));
        let record = created(&mut house, client, node, create(tagged("data"))).1;
        let effects = house.ask(client, RequestBody::DestroyVolume(record.id));
        assert_eq!(
            persisted(&effects),
            [StoreOp::PutVolume(kept(&record, true))]
        );
        assert!(matches!(effects[0], teu_master_core::Effect::Persist(_)));
        let clone = RequestBody::CloneVolume {
            volume: record.id,
            snapshot: "s".parse().unwrap(),
            spec: tagged("copy"),
        };
        let refused = refusal(&house.ask(client, clone), client);
        assert_eq!(refused.code, RefusalCode::WrongState);

        house.restart_with(vec![record_session(&ready)], vec![kept(&record, true)]);
        let there = is_left.then(|| is_there(record.clone()));
        let (node, effects) = house.node_that_reports(0, reports(there.into_iter().collect()));
        if is_left {
            let (id, asked) = volume_order(&effects, node);
            assert_eq!(asked, VolumeOrder::Destroy(record.id));
            let effects = house.node_replies(node, id, Ok(NodeReplyBody::Done));
            assert_eq!(persisted(&effects), [StoreOp::RemoveVolume(record.id)]);
        } else {
            assert_eq!(persisted(&effects), [StoreOp::RemoveVolume(record.id)]);
        }
    }
}

#[test]
fn a_destruction_repeated_over_a_restart_is_done_and_not_unknown() {
    let (mut house, [node, _]) = House::open();
    let (client, ready) = house.client(ALICE, named("default"), attachment(1));
    let record = created(&mut house, client, node, create(tagged("data"))).1;
    let destroy = || RequestBody::DestroyVolume(record.id);
    let (id, _) = volume_order(&house.ask_as(client, ID, destroy()), node);
    let effects = house.node_replies(node, id, Ok(NodeReplyBody::Done));
    let destroyed = effects.iter().filter_map(|effect| match effect {
        teu_master_core::Effect::Persist(StoreOp::PutDestroyed(one)) => Some(one.clone()),
        _ => None,
    });
    // All of that was written down, and the master died before it answered.
    house.restart_as(teu_master_core::record::Restored {
        destroyed: destroyed.collect(),
        sessions: vec![record_session(&ready)],
        ..stored()
    });
    house.node_that_reports(0, reports(Vec::new()));
    house.node_that_reports(1, reports(Vec::new()));
    let role = teu_protocol::message::Role::Client;
    let (client, _) = house.connect(ALICE, role, resume(&ready), attachment(1));
    let again = house.ask_as(client, ID, destroy());
    assert_eq!(reply(&again, client).result, Ok(ReplyBody::Done));
    let (stranger, _) = house.client(BOB, SessionAsk::New, attachment(2));
    let refused = refusal(&house.ask(stranger, destroy()), stranger);
    assert_eq!(refused.code, RefusalCode::NotFound);
}

#[test]
fn a_destruction_that_the_node_refuses_is_taken_back() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let record = created(&mut house, client, node, create(tagged("data"))).1;
    let (id, _) = volume_order(
        &house.ask(client, RequestBody::DestroyVolume(record.id)),
        node,
    );
    let busy = Refusal::new(RefusalCode::Busy, "busy");
    let effects = house.node_replies(node, id, Err(busy));
    assert_eq!(refusal(&effects, client).code, RefusalCode::Busy);
    assert_eq!(
        persisted(&effects),
        [StoreOp::PutVolume(kept(&record, false))]
    );
    let usage = house.ask(client, RequestBody::VolumeUsage(record.id));
    assert_eq!(orders(&usage, node).len(), 1, "it can be used");
}

#[test]
fn what_is_mounted_in_what_is_being_removed_is_worth_another_try() {
    let (mut house, [node, _]) = House::open();
    let (one, _) = house.client(ALICE, named("one"), attachment(1));
    let (two, _) = house.client(ALICE, named("two"), attachment(2));
    let volume = created(&mut house, one, node, create(tagged("data"))).1.id;
    let (info, _) = house.spawned(one, node, with(&[volume], None), 2);
    let container = info.id;
    let busy = refusal(&house.ask(two, RequestBody::DestroyVolume(volume)), two);
    assert_eq!((busy.code, busy.retryable), (RefusalCode::Busy, false));
    let removal = order(&house.ask(one, RequestBody::Destroy(container)), node);
    let going = refusal(&house.ask(two, RequestBody::DestroyVolume(volume)), two);
    assert_eq!(going.code, RefusalCode::Unavailable);
    assert!(going.retryable);
    house.node_replies(node, removal.id, Ok(NodeReplyBody::Done));
    let again = house.ask(two, RequestBody::DestroyVolume(volume));
    assert_eq!(volume_order(&again, node).1, VolumeOrder::Destroy(volume));
}

#[test]
fn a_revoked_accounts_volumes_stay_and_are_its_again() {
    let (mut house, [node, _]) = House::open();
    let (alice, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (bob, _) = house.client(BOB, SessionAsk::New, attachment(2));
    let record = created(&mut house, bob, node, create(tagged("data"))).1;
    let effects = house.ask(alice, RequestBody::RevokeAccount(BOB));
    assert_eq!(persisted(&effects), []);
    assert!(is_closed(&effects, bob));
    house.disconnect(node);
    house.node_that_reports(0, reports(vec![is_there(record.clone())]));
    house.ask(
        alice,
        RequestBody::EnrolAccount(teu_protocol::message::EnrolledAccount {
            key: BOB,
            name: "bob".into(),
            admin: false,
        }),
    );
    let (_, ready) = house.client(BOB, SessionAsk::New, attachment(3));
    assert_eq!(ready.offer.volumes[0].id, record.id);
}
