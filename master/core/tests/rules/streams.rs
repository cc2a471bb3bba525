//! Streams: routed before the reply, unrouted with whatever they depend on.

use teu_master_core::{ConnectionId, Effect, Input, Outbound};
use teu_protocol::{
    ids::{ContainerId, RequestId, StreamId},
    message::{
        MasterToNode, NodeReplyBody, NodeRequestBody, RefusalCode, ReplyBody, RequestBody,
        SessionAsk, StreamFrame,
    },
};

use crate::house::*;

fn tunnel(container: ContainerId, stream: u64) -> RequestBody {
    RequestBody::Tunnel {
        container,
        port: 80,
        stream: StreamId(stream),
        window: 1_000,
    }
}

/// Opens a tunnel up to the node's side: the order's id and the stream's number there.
fn ordered(
    house: &mut House,
    client: ConnectionId,
    node: ConnectionId,
    body: RequestBody,
) -> (RequestId, StreamId) {
    let order = order(&house.ask(client, body), node);
    let NodeRequestBody::Tunnel {
        stream,
        window: 1_000,
        ..
    } = order.body
    else {
        panic!()
    };
    (order.id, stream)
}

const OPENED: NodeReplyBody = NodeReplyBody::Opened {
    window: 2_000,
    input: None,
};

fn unrouted(effects: &[Effect], client: ConnectionId, stream: u64) -> bool {
    effects.iter().any(|effect| {
        matches!(effect, Effect::Unroute { connection, stream: s, .. }
            if *connection == client && *s == StreamId(stream))
    })
}

fn closed_at_node(effects: &[Effect], node: ConnectionId, number: StreamId) -> bool {
    effects.iter().any(|effect| {
        matches!(effect, Effect::Send { connection, message: Outbound::Node(
            MasterToNode::Stream(StreamFrame::Close { stream, .. })), .. }
            if *connection == node && *stream == number)
    })
}

#[test]
fn the_route_comes_before_the_reply_with_both_windows() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (info, _) = house.spawned(client, node, spec(), 2);
    let (id, number) = ordered(&mut house, client, node, tunnel(info.id, 1));
    let effects = house.node_replies(node, id, Ok(OPENED));
    let Effect::Route { client: c, node: n } = &effects[0] else {
        panic!("{effects:?}")
    };
    assert_eq!(
        (c.connection, c.stream, c.window),
        (client, StreamId(1), 1_000)
    );
    assert_eq!((n.connection, n.stream, n.window), (node, number, 2_000));
    assert_eq!(
        reply(&effects[1..], client).result,
        Ok(ReplyBody::Opened {
            window: 2_000,
            input: None
        })
    );
}

#[test]
fn a_number_is_taken_until_its_stream_is_closed() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (info, _) = house.spawned(client, node, spec(), 2);
    let (id, number) = ordered(&mut house, client, node, tunnel(info.id, 1));
    house.node_replies(node, id, Ok(OPENED));
    let effects = house.ask(client, tunnel(info.id, 1));
    assert_eq!(refusal(&effects, client).code, RefusalCode::BadRequest);
    // The node's side closes; either side names the stream.
    house.input(Input::StreamClosed {
        connection: node,
        stream: number,
    });
    ordered(&mut house, client, node, tunnel(info.id, 1));
}

#[test]
fn no_route_outlives_client_node_or_container() {
    for end in 0..4 {
        let (mut house, [node, _]) = House::open();
        let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
        let (info, _) = house.spawned(client, node, spec(), 2);
        let (id, _) = ordered(&mut house, client, node, tunnel(info.id, 1));
        house.node_replies(node, id, Ok(OPENED));
        let effects = match end {
            0 => house.disconnect(client),
            1 => house.disconnect(node),
            2 => house.goodbye(client),
            _ => {
                let destroy = order(&house.ask(client, RequestBody::Destroy(info.id)), node);
                house.node_replies(node, destroy.id, Ok(NodeReplyBody::Done))
            }
        };
        assert!(unrouted(&effects, client, 1), "{end}: {effects:?}");
    }
}

#[test]
fn what_opens_for_a_client_that_went_is_closed_at_the_node() {
    let (mut house, [node, _]) = House::open();
    let (client, ready) = house.client(ALICE, named("x"), attachment(1));
    let (info, _) = house.spawned(client, node, spec(), 2);
    let (id, number) = ordered(&mut house, client, node, tunnel(info.id, 1));
    house.disconnect(client);
    let effects = house.node_replies(node, id, Ok(OPENED));
    assert!(closed_at_node(&effects, node, number));
    assert!(
        !effects
            .iter()
            .any(|effect| matches!(effect, Effect::Route { .. }))
    );
    let _ = ready;
}

#[test]
fn a_late_opening_does_not_take_the_place_of_a_newer_one() {
    let (mut house, [node, _]) = House::open();
    let (client, _) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (info, _) = house.spawned(client, node, spec(), 2);
    let (late, old) = ordered(&mut house, client, node, tunnel(info.id, 1));
    assert_eq!(
        refusal(&house.pass(30_000), client).code,
        RefusalCode::Timeout
    );
    let (id, _) = ordered(&mut house, client, node, tunnel(info.id, 1));
    let effects = house.node_replies(node, late, Ok(OPENED));
    assert!(closed_at_node(&effects, node, old));
    let effects = house.node_replies(node, id, Ok(OPENED));
    assert!(matches!(effects[0], Effect::Route { .. }));
}

#[test]
fn windows_beyond_the_connections_share_are_refused() {
    let (mut house, [node, _]) = House::open();
    let (client, ready) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (info, _) = house.spawned(client, node, spec(), 2);
    let window = ready.limits.window_bytes + 1;
    let body = RequestBody::Tunnel {
        container: info.id,
        port: 80,
        stream: StreamId(1),
        window,
    };
    assert_eq!(
        refusal(&house.ask(client, body), client).code,
        RefusalCode::LimitReached
    );
}
