//! Limits that all hold at once: as many of everything as each of them allows, on one connection.

use teu_master_core::{ConnectionId, Effect, Input};
use teu_protocol::{
    flow::Shares,
    ids::{ContainerId, Digest, RequestId, StreamId},
    message::{
        LogStart, NodeReplyBody, ProcessSpec, RefusalCode, ReplyBody, RequestBody, SessionAsk,
    },
};

use crate::house::*;

/// A client that opens things, and the node that lets it.
struct Opener {
    house: House,
    client: ConnectionId,
    node: ConnectionId,
    container: ContainerId,
    window: u64,
    opened: u64,
}

/// What can be opened in numbers.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Exec,
    Tunnel,
    Attach,
    Upload,
}

impl Opener {
    fn body(&self, kind: Kind, n: u64) -> RequestBody {
        let (container, window) = (self.container, self.window);
        let stream = StreamId(n + 1);
        match kind {
            Kind::Exec => RequestBody::Exec {
                container,
                process: ProcessSpec {
                    args: Some(vec!["sleep".into()]),
                    ..ProcessSpec::default()
                },
                bound: true,
            },
            Kind::Tunnel => RequestBody::Tunnel {
                container,
                port: 80,
                stream,
                window,
            },
            Kind::Attach => RequestBody::Attach {
                container,
                process: None,
                from: LogStart::Oldest,
                lossless: true,
                place: None,
                stream,
                window,
            },
            Kind::Upload => RequestBody::UploadLayer {
                digest: Digest::of(&n.to_be_bytes()),
                size: 1 << 20,
                stream,
            },
        }
    }

    /// Opens one more, all the way.
    fn open(&mut self, kind: Kind) -> Result<ReplyBody, RefusalCode> {
        self.opened += 1;
        let n = self.opened;
        let mut id = [0xaa; 16];
        id[8..].copy_from_slice(&n.to_be_bytes());
        let id = RequestId::from_bytes(id);
        let effects = self.house.ask_as(self.client, id, self.body(kind, n));
        let answered = match &effects[..] {
            [Effect::ReceiveLayer { request, .. }] => self.house.input(Input::UploadReady {
                connection: self.client,
                request: *request,
                result: Ok((0, 1 << 20)),
            }),
            effects => match &orders(effects, self.node)[..] {
                [] => effects.to_vec(),
                [order] => {
                    let reply = match kind {
                        Kind::Exec => NodeReplyBody::Done,
                        _ => NodeReplyBody::Opened {
                            window: 1 << 15,
                            input: None,
                        },
                    };
                    self.house.node_replies(self.node, order.id, Ok(reply))
                }
                other => panic!("{other:?}"),
            },
        };
        let result = reply(&answered, self.client).result;
        result.map_err(|refusal| refusal.code)
    }
}

#[test]
fn as_many_of_everything_as_each_limit_allows_are_open_at_once() {
    let (mut house, [node, _]) = House::open();
    let (client, ready) = house.client(ALICE, SessionAsk::New, attachment(1));
    let (info, _) = house.spawned(client, node, spec(), 2);
    let shares = Shares::of(&ready.limits);
    let mut opener = Opener {
        house,
        client,
        node,
        container: info.id,
        window: shares.base,
        opened: 0,
    };
    // A container's further processes; then streams: a full tunnel, all those processes attached, and
    // uploads on the rest.
    let streams = u64::from(ready.limits.streams);
    let table = [
        (Kind::Exec, 256),
        (Kind::Tunnel, 512),
        (Kind::Attach, 256),
        (Kind::Upload, streams - 512 - 256),
    ];
    for (kind, count) in table {
        for n in 0..count {
            let opened = opener.open(kind);
            assert!(opened.is_ok(), "{kind:?} {n}: {opened:?}");
        }
    }
    for (kind, _) in table {
        let one_more = opener.open(kind);
        assert_eq!(one_more, Err(RefusalCode::LimitReached), "{kind:?}");
    }
    // What all of them may grow to is still within what the connection was allowed to grant.
    assert!(shares.base * streams + shares.growth <= ready.limits.window_bytes);
    assert!(shares.growth > 0);
}
