//! Streams: opened by a request, routed by the daemon, closed by whoever goes first.
//!
//! ```text
//! request ─▶ entered, ordered ─▶ Opened ─▶ Route, then the reply ─▶ Close from either side
//!                 └── refused, node lost, too late ─▶ removed; a late Opened is closed at the node
//! ```
//! Invariant: no route outlives its client's connection, its node's link or its container.
//! An export or import ends with its node's word.

use teu_protocol::{
    ids::{ContainerId, NodeId, StreamId},
    message::{
        MasterToNode, NodeRequestBody, Refusal, RefusalCode, RequestBody, StreamEnd, StreamFrame,
    },
};

use crate::{
    ConnectionId, Core, Effect,
    connections::Caller,
    containers::Owned,
    effect::StreamEndpoint,
    exec, limits,
    orders::Purpose,
    refusals,
    request::Step,
    streams::{ClientStream, End, Stream, Use},
};

/// A stream to open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening {
    pub(crate) node: NodeId,
    pub(crate) end: End,
    /// The client's number and the credit that it grants.
    pub(crate) stream: StreamId,
    pub(crate) window: u64,
}

impl Core {
    pub(crate) fn open(&mut self, caller: &Caller, body: RequestBody) -> Step {
        match body {
            RequestBody::Attach {
                container,
                process,
                from,
                lossless,
                place,
                stream,
                window,
            } => {
                let owned = self.owned(caller, &container)?;
                exec::is_made(&owned)?;
                let owner = place.map(|_| caller.attachment);
                self.has_readers(&container, owner);
                let process = process.unwrap_or(container.main_process());
                self.open_on(caller, &owned, (stream, window), |stream| {
                    NodeRequestBody::Attach {
                        container,
                        process,
                        from,
                        lossless,
                        place,
                        owner,
                        follow: true,
                        input: true,
                        stream,
                        window,
                    }
                })
            }
            RequestBody::Logs {
                container,
                from,
                follow,
                stream,
                window,
            } => {
                let owned = self.owned(caller, &container)?;
                exec::is_made(&owned)?;
                self.open_on(caller, &owned, (stream, window), |stream| {
                    NodeRequestBody::Attach {
                        container,
                        process: container.main_process(),
                        from,
                        lossless: false,
                        place: None,
                        owner: None,
                        follow,
                        input: false,
                        stream,
                        window,
                    }
                })
            }
            RequestBody::Tunnel {
                container,
                port,
                stream,
                window,
            } => {
                let owned = self.owned(caller, &container)?;
                exec::is_running(&owned)?;
                if port == 0 {
                    return Err(refusals::bad("a port is a number from 1 to 65535"));
                }
                self.open_on(caller, &owned, (stream, window), |stream| {
                    NodeRequestBody::Tunnel {
                        container,
                        port,
                        stream,
                        window,
                    }
                })
            }
            _ => Err(refusals::bad("this request opens no stream")),
        }
    }

    fn open_on(
        &mut self,
        caller: &Caller,
        owned: &Owned,
        (stream, window): (StreamId, u64),
        body: impl FnOnce(StreamId) -> NodeRequestBody,
    ) -> Step {
        let opening = Opening {
            node: owned.node(),
            end: End::Container(owned.id()),
            stream,
            window,
        };
        self.open_at(caller, opening, body, |client, number| Purpose::Open {
            client,
            number,
        })
    }

    /// Enters the stream and orders the node to open its side.
    pub(crate) fn open_at(
        &mut self,
        caller: &Caller,
        opening: Opening,
        body: impl FnOnce(StreamId) -> NodeRequestBody,
        purpose: impl FnOnce(ClientStream, StreamId) -> Purpose,
    ) -> Step {
        let Opening {
            node,
            end,
            stream,
            window,
        } = opening;
        self.up(&node)?;
        let link = self
            .nodes
            .get(&node)
            .and_then(|node| node.link.connection());
        let link = link.ok_or_else(refusals::no_container)?;
        let client = (caller.connection, stream);
        let number = self.streams.next_number();
        let used = Use::Routed {
            end,
            at: (link, number),
            open: false,
        };
        self.streams.add(client, Stream { window, used })?;
        let purpose = purpose(client, number);
        let step = self.forward(caller, node, body(number), purpose, limits::ORDER_MS);
        if step.is_err() {
            self.streams.remove(&client);
        }
        step
    }

    /// The node has opened its side.
    pub(crate) fn opened(
        &mut self,
        node: NodeId,
        (client, number): (ClientStream, StreamId),
        node_window: u64,
    ) -> Result<(), Refusal> {
        let link = self
            .nodes
            .get(&node)
            .and_then(|node| node.link.connection());
        let link = link.ok_or_else(refusals::no_container)?;
        let Some(window) = self.is_waiting(&client, number) else {
            // Its client went, gave up waiting, or has another stream of that number by now.
            let end = StreamEnd::Failed(refusals::no_container());
            let close = StreamFrame::Close {
                stream: number,
                end,
            };
            self.send_node(link, MasterToNode::Stream(close), Vec::new());
            return Err(refusals::no_container());
        };
        self.streams.opened(&client);
        self.effects.push(Effect::Route {
            client: StreamEndpoint {
                connection: client.0,
                stream: client.1,
                window,
            },
            node: StreamEndpoint {
                connection: link,
                stream: number,
                window: node_window,
            },
        });
        Ok(())
    }

    /// The window of the stream if it still waits for this number to be opened.
    fn is_waiting(&self, client: &ClientStream, number: StreamId) -> Option<u64> {
        let stream = self.streams.get(client)?;
        match stream.used {
            Use::Routed {
                at, open: false, ..
            } if at.1 == number => Some(stream.window),
            _ => None,
        }
    }

    /// The stream could not be opened: its number is free again.
    pub(crate) fn not_opened(&mut self, client: &ClientStream, number: StreamId) {
        if self.is_waiting(client, number).is_some() {
            let removed = self.streams.remove(client);
            if let Some(Use::Routed {
                end: End::Volume(id),
                ..
            }) = removed.map(|stream| stream.used)
            {
                self.drop_unmade(&id);
            }
        }
    }

    /// A stream to it ended.
    fn stream_ended(&mut self, end: End) {
        match end {
            End::Container(id) => self.end_lingering(&id),
            End::Volume(id) => self.drop_unmade(&id),
        }
    }

    /// The daemon says that a route is gone.
    pub(crate) fn stream_closed(&mut self, connection: ConnectionId, stream: StreamId) {
        let Some(key) = self.streams.by_either(connection, stream) else {
            return;
        };
        let Some(Stream {
            used: Use::Routed { end, .. },
            ..
        }) = self.streams.get(&key)
        else {
            return; // An upload ends by `UploadEnded`.
        };
        let end = *end;
        self.streams.remove(&key);
        self.stream_ended(end);
    }

    /// A client's connection is gone.
    pub(crate) fn close_streams_of(&mut self, connection: ConnectionId) {
        self.uploads.retain(|(of, _), _| *of != connection);
        for key in self.streams.of_client(connection) {
            self.unroute(&key, refusals::wrong_state("the client is gone"));
        }
    }

    /// A container is gone.
    pub(crate) fn close_streams_to(&mut self, container: &ContainerId) {
        for key in self.streams.of_container(container) {
            let reason = Refusal::new(RefusalCode::NotFound, "the container was destroyed");
            self.unroute(&key, reason);
        }
    }

    /// A node's link is gone.
    pub(crate) fn close_streams_on(&mut self, link: ConnectionId, reason: &Refusal) {
        for key in self.streams.of_node(link) {
            self.unroute(&key, reason.clone());
        }
    }

    fn unroute(&mut self, key: &ClientStream, reason: Refusal) {
        let Some(Stream {
            used: Use::Routed { open, end, .. },
            ..
        }) = self.streams.remove(key)
        else {
            return;
        };
        if open {
            self.effects.push(Effect::Unroute {
                connection: key.0,
                stream: key.1,
                reason,
            });
        }
        self.stream_ended(end);
    }
}
