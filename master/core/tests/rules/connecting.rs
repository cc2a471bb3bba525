//! Who gets in, to which session, and how sessions end.

use teu_master_core::{Effect, record::StoreOp};
use teu_protocol::{
    ids::{AttachmentId, PublicKey},
    message::{MasterToClient, RefusalCode, RequestBody, Role, SessionAsk},
};

use crate::house::*;

#[test]
fn every_key_that_is_not_enrolled_for_the_role_is_rejected_the_same_way() {
    let (mut house, _) = House::open();
    let stranger = PublicKey::from_bytes([99; 32]);
    for (key, role) in [
        (stranger, Role::Client),
        (stranger, Role::Node),
        (ALICE, Role::Node),
        (NODE_KEYS[0], Role::Client),
    ] {
        let (connection, effects) = house.connect(key, role, SessionAsk::New, attachment(1));
        assert_eq!(effects, [Effect::Reject { connection }], "{role:?}");
    }
}

#[test]
fn a_session_is_durable_before_its_ready() {
    let (mut house, _) = House::open();
    let (connection, effects) = house.connect(ALICE, Role::Client, SessionAsk::New, attachment(1));
    assert!(matches!(
        effects[0],
        Effect::Persist(StoreOp::PutSession(_))
    ));
    let ready = ready(&effects[1..], connection).unwrap();
    assert_eq!(ready.offer.nodes.len(), 2);
}

#[test]
fn another_accounts_session_is_as_unknown_as_none() {
    let (mut house, _) = House::open();
    let (_, ready) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (bob, effects) = house.connect(BOB, Role::Client, resume(&ready), attachment(2));
    let none = SessionAsk::Resume(teu_protocol::ids::SessionId::from_bytes([9; 16]));
    let (carol, nothing) = house.connect(BOB, Role::Client, none, attachment(3));
    let reason = |effects: &[Effect], connection| match &effects {
        [
            Effect::Close {
                connection: c,
                reason,
            },
        ] if *c == connection => reason.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(&effects, bob).code, RefusalCode::NotFound);
    assert_eq!(reason(&effects, bob), reason(&nothing, carol));
}

#[test]
fn a_fast_reconnect_replaces_the_earlier_connection() {
    let (mut house, _) = House::open();
    let (first, ready) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (second, effects) = house.connect(ALICE, Role::Client, resume(&ready), attachment(1));
    assert!(is_closed(&effects, first) && !is_closed(&effects, second));
    // The earlier one's end, seen late, does not end the attachment.
    house.disconnect(first);
    house.pass(10_000);
    let effects = house.ask(second, RequestBody::List);
    assert!(reply(&effects, second).result.is_ok());
}

#[test]
fn an_ephemeral_session_ends_after_its_grace_and_not_before() {
    let (mut house, _) = House::open();
    let (connection, ready) = house.client(ALICE, SessionAsk::New, attachment(1));
    house.disconnect(connection);
    let ended = Effect::Persist(StoreOp::RemoveSession(ready.session));
    assert!(!house.pass(2_750).contains(&ended));
    let (again, _) = house.client(ALICE, resume(&ready), attachment(1));
    assert!(!house.pass(60_000).contains(&ended), "it came back in time");
    house.disconnect(again);
    assert!(house.pass(3_000).contains(&ended));
}

#[test]
fn a_persistent_session_ends_only_when_told() {
    let (mut house, _) = House::open();
    let (connection, ready) = house.client(ALICE, named("default"), attachment(1));
    house.goodbye(connection);
    house.pass(60_000);
    let (connection, again) = house.client(ALICE, named("default"), attachment(2));
    assert_eq!(again.session, ready.session);
    let (bobs, other) = house.client(BOB, named("default"), attachment(3));
    assert_ne!(other.session, ready.session, "names are an account's own");
    let effects = house.ask(bobs, RequestBody::EndSession(ready.session));
    assert_eq!(refusal(&effects, bobs).code, RefusalCode::NotFound);
    let effects = house.ask(connection, RequestBody::EndSession(ready.session));
    assert!(effects.contains(&Effect::Persist(StoreOp::RemoveSession(ready.session))));
    assert!(reply(&effects, connection).result.is_ok() && is_closed(&effects, connection));
}

#[test]
fn only_administrators_enrol_and_a_revoked_account_is_out_at_once() {
    let (mut house, _) = House::open();
    let (alice, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (bob, bobs) = house.client(BOB, SessionAsk::New, attachment(2));
    let effects = house.ask(bob, RequestBody::RevokeAccount(ALICE));
    assert_eq!(refusal(&effects, bob).code, RefusalCode::Forbidden);
    let effects = house.ask(alice, RequestBody::RevokeAccount(BOB));
    assert!(reply(&effects, alice).result.is_ok() && is_closed(&effects, bob));
    assert!(effects.contains(&Effect::Persist(StoreOp::RemoveSession(bobs.session))));
    let (_, effects) = house.connect(BOB, Role::Client, SessionAsk::New, attachment(2));
    assert!(matches!(effects[..], [Effect::Reject { .. }]));
}

#[test]
fn a_restored_sessions_ready_waits_for_the_nodes_but_not_for_ever() {
    for node_comes in [true, false] {
        let mut house = House::start(stored());
        let id = teu_protocol::ids::SessionId::from_bytes([7; 16]);
        house.restart(vec![record(id, Some("default"))]);
        let (client, effects) = house.connect(ALICE, Role::Client, named("default"), attachment(1));
        assert_eq!(effects, [], "held");
        let effects = if node_comes {
            house.node(0, Vec::new());
            house.node_with_effects(1, Vec::new()).1
        } else {
            house.pass(5_000)
        };
        let messages = told(&effects, client);
        assert!(
            matches!(messages[0], MasterToClient::Ready(_)),
            "{messages:?}"
        );
    }
}

#[test]
fn a_restored_ephemeral_session_waits_thirty_seconds_for_its_client() {
    let mut house = House::start(stored());
    let id = teu_protocol::ids::SessionId::from_bytes([7; 16]);
    house.restart(vec![record(id, None)]);
    let ended = Effect::Persist(StoreOp::RemoveSession(id));
    assert!(!house.pass(29_500).contains(&ended));
    assert!(house.pass(750).contains(&ended));
}

/// 256 programs in each of four sessions: all that one account may connect.
#[test]
fn an_account_has_a_share_of_the_connections_and_a_fast_reconnect_needs_no_further_one() {
    let (mut house, _) = House::open();
    let named = |n: u32| SessionAsk::Named(format!("session-{n}").parse().unwrap());
    let program = |n: u32| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        AttachmentId::from_bytes(bytes)
    };
    let connections: Vec<_> = (0..1_024)
        .map(|n| house.client(ALICE, named(n / 256), program(n)).0)
        .collect();
    let (further, effects) = house.connect(ALICE, Role::Client, SessionAsk::New, attachment(1));
    let [Effect::Close { connection, reason }] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(
        (*connection, reason.code),
        (further, RefusalCode::LimitReached)
    );
    house.client(ALICE, named(0), program(7));
    house.client(BOB, SessionAsk::New, attachment(1));
    house.disconnect(connections[300]);
    house.client(ALICE, SessionAsk::New, attachment(1));
}
