//! Who dials whom, and what arrives: each link in order, links among each other as chosen.

use bytes::Bytes;
use teu_master_core::{ConnectionId, Input, Outbound, effect::StreamEndpoint};
use teu_protocol::{
    ids::{AttachmentId, PublicKey},
    message::{
        ClientToMaster, Initiate, MasterToClient, MasterToNode, NodeToMaster, RefusalCode, Role,
        SessionAsk, StreamEnd, StreamFrame,
    },
};

use super::{
    World,
    link::{Down, End, Link, Up},
    scenery,
};

impl World {
    pub(super) fn dial(
        &mut self,
        end: End,
        key: PublicKey,
        initiate: Initiate,
    ) -> Option<ConnectionId> {
        self.daemon.as_ref()?;
        self.last_link += 1;
        let id = ConnectionId(self.last_link);
        self.links.insert(id, Link::dialled(end, key, initiate));
        Some(id)
    }

    pub(super) fn dial_node(&mut self, n: usize) {
        let initiate = Initiate {
            role: Role::Node,
            features: Vec::new(),
            name: format!("node{n}"),
            session: SessionAsk::New,
            attachment: AttachmentId::from_bytes([0; 16]),
        };
        self.nodes[n].link = self.dial(End::Node(n), scenery::node_key(n), initiate);
        self.nodes[n].dial_at = self.now + 500;
    }

    pub(super) fn dial_client(&mut self, n: usize) {
        let (key, initiate) = (self.clients[n].key, self.clients[n].initiate());
        let link = self.dial(End::Client(n), key, initiate);
        let client = &mut self.clients[n];
        client.link = link;
        client.dial_at = link.is_none().then_some(self.now + 500);
    }

    pub(super) fn deliver_one(&mut self, choice: u8) {
        let busy = self
            .links
            .iter()
            .filter(|(_, link)| !link.up.is_empty() || !link.down.is_empty());
        let busy: Vec<_> = busy.map(|(id, link)| (*id, link.up.is_empty())).collect();
        if let Some((id, only_down)) =
            busy.get(usize::from(choice).checked_rem(busy.len()).unwrap_or(0))
        {
            if *only_down {
                self.deliver_down(*id)
            } else {
                self.deliver_up(*id)
            }
        }
    }

    pub(super) fn deliver_up(&mut self, id: ConnectionId) {
        let Some(link) = self.links.get_mut(&id).filter(|link| link.master_has_it) else {
            return;
        };
        let (end, Some(message)) = (link.end, link.up.pop_front()) else {
            return;
        };
        match message {
            Up::Hello(key, initiate) => {
                let mut random = [0x77; 16];
                random[..8].copy_from_slice(&id.0.to_be_bytes());
                let initiate = *initiate;
                self.input(Input::Connected {
                    connection: id,
                    key,
                    initiate,
                    random,
                });
            }
            Up::Client(ClientToMaster::Stream(frame)) => self.close_route(id, &frame),
            Up::Node(NodeToMaster::Stream(frame)) => self.close_route(id, &frame),
            Up::Client(message) => {
                self.input(Input::Client {
                    connection: id,
                    message,
                    bulk: Vec::<Bytes>::new(),
                });
            }
            Up::Node(message) => {
                if let (NodeToMaster::Report(_), End::Node(n)) = (&message, end) {
                    self.nodes[n].reported_at = self.now;
                }
                self.input(Input::Node {
                    connection: id,
                    message,
                    bulk: Vec::new(),
                });
            }
        }
    }

    /// A side closed its stream: the daemon tells the other side, then the core.
    pub(super) fn close_route(&mut self, connection: ConnectionId, frame: &StreamFrame) {
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        let Some((_, other)) = daemon.take_route(connection, frame.stream()) else {
            return;
        };
        self.send_close(other);
        self.input(Input::StreamClosed {
            connection,
            stream: frame.stream(),
        });
    }

    pub(super) fn send_close(&mut self, to: StreamEndpoint) {
        let close = StreamFrame::Close {
            stream: to.stream,
            end: StreamEnd::Done,
        };
        let message = match self.links.get(&to.connection).map(|link| link.end) {
            Some(End::Client(_)) => Outbound::Client(MasterToClient::Stream(close)),
            _ => Outbound::Node(MasterToNode::Stream(close)),
        };
        self.send_down(to.connection, Down::Message(message));
    }

    pub(super) fn send_down(&mut self, to: ConnectionId, message: Down) {
        if let Some(link) = self.links.get_mut(&to).filter(|link| link.works()) {
            link.down.push_back(message);
        }
    }

    pub(super) fn deliver_down(&mut self, id: ConnectionId) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let (end, Some(message)) = (link.end, link.down.pop_front()) else {
            return;
        };
        match (end, message) {
            (End::Client(n), Down::Message(Outbound::Client(message))) => {
                self.client_hears(n, message);
            }
            (End::Node(n), Down::Message(Outbound::Node(message))) => {
                let said = self.nodes[n].hear(message, self.now);
                self.node_says(n, said);
            }
            (End::Client(n), Down::Closing(reason)) => {
                self.peer_drops(id);
                let client = &mut self.clients[n];
                let over = reason.code == RefusalCode::NotFound;
                client.unlinked(self.now + 300);
                if over && client.lives() && (!client.persistent || client.last) {
                    // Its session is over: so is the program.
                    client.dead_since = Some(self.now);
                    client.dial_at = None;
                }
            }
            (End::Node(n), Down::Closing(_)) => {
                self.peer_drops(id);
                self.nodes[n].unlinked(self.now + 300);
            }
            (end, down) => self.broken.push(format!("{end:?} was sent {down:?}")),
        }
    }

    pub(super) fn peer_drops(&mut self, id: ConnectionId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.peer_has_it = false;
        }
    }

    pub(super) fn client_hears(&mut self, n: usize, message: MasterToClient) {
        let (now, runs) = (self.now, self.runs);
        let client = &mut self.clients[n];
        if !client.lives() {
            return; // It said goodbye and listens no more.
        }
        let heard = match message {
            MasterToClient::Ready(ready) => {
                client.attached_to = runs;
                if client
                    .session
                    .is_some_and(|id| !client.persistent && id != ready.session)
                {
                    Err(format!(
                        "another session than {:?}: {ready:?}",
                        client.session
                    ))
                } else {
                    client.hear_ready(*ready);
                    Ok(())
                }
            }
            MasterToClient::Event(event) => client.hear_event(event),
            MasterToClient::Reply(reply) => client.hear_reply(&reply, now),
            MasterToClient::Stream(frame) => {
                client.streams.remove(&frame.stream());
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(rule) = heard {
            self.broken.push(format!("client {n}: {rule}"));
        }
        let session = self.clients[n].session;
        let foreign = self.clients[n].containers.keys().find(|id| {
            self.owners
                .get(id)
                .is_some_and(|(owner, _)| Some(*owner) != session)
        });
        if let Some(foreign) = foreign {
            self.broken.push(format!(
                "client {n} was told of another session's {foreign}"
            ));
        }
        self.ask_again(n);
    }

    pub(super) fn node_says(&mut self, n: usize, said: Vec<NodeToMaster>) {
        let Some(id) = self.nodes[n].link else { return };
        if let Some(link) = self.links.get_mut(&id).filter(|link| link.works()) {
            link.up.extend(said.into_iter().map(Up::Node));
        }
    }

    /// The master sees that the connection is gone.
    pub(super) fn master_drops(&mut self, id: ConnectionId) {
        let Some(link) = self.links.get_mut(&id).filter(|link| link.master_has_it) else {
            return;
        };
        link.master_has_it = false;
        link.up.clear();
        self.input(Input::Disconnected { connection: id });
    }
}
