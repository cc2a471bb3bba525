//! What client programs do and what befalls them (and nodes): ask, leave, die, lose their links.

use teu_protocol::{
    ids::{ContainerId, RequestId, StreamId},
    message::{
        ClientToMaster, Lifetime, ProcessSpec, Request, RequestBody, SpawnSpec, StreamEnd,
        StreamFrame,
    },
};

use super::{
    World,
    action::Wish,
    client::{Client, Pending},
    link::{End, Link, Up},
    scenery,
};

/// Client programs over a whole run: enough for some generations.
const CLIENTS: usize = 24;

impl World {
    pub(super) fn start(&mut self, choice: u8) {
        if self.clients.len() < CLIENTS {
            let key = scenery::ACCOUNTS[usize::from(choice & 1)];
            let number = self.clients.len();
            self.clients.push(Client::new(key, number, choice & 6 == 0));
        }
    }

    /// A living client, as the number has it.
    pub(super) fn living(&self, choice: u8) -> Option<usize> {
        let living = self
            .clients
            .iter()
            .enumerate()
            .filter(|(_, client)| client.lives());
        let living: Vec<_> = living.map(|(n, _)| n).collect();
        living
            .get(usize::from(choice).checked_rem(living.len())?)
            .copied()
    }

    pub(super) fn ask(&mut self, choice: u8, wish: Wish, n: u16) {
        let Some(number) = self.living(choice) else {
            return;
        };
        let client = &self.clients[number];
        let (true, Some(session)) = (client.ready, client.session) else {
            return;
        };
        let own = client
            .containers
            .keys()
            .nth(usize::from(n) % client.containers.len().max(1));
        let own = own.copied();
        let others = self
            .owners
            .iter()
            .filter(|(_, (owner, _))| *owner != session);
        let others: Vec<_> = others.map(|(id, _)| *id).collect();
        let foreign = others
            .get(usize::from(n).checked_rem(others.len()).unwrap_or(0))
            .copied();
        let body = match (wish, own, foreign) {
            (Wish::Spawn, ..) => Some(RequestBody::Spawn(Box::new(spec(n)))),
            (Wish::Destroy, Some(id), _) => Some(RequestBody::Destroy(id)),
            (Wish::Exec, Some(container), _) => Some(exec(container)),
            (Wish::Tunnel, Some(container), _) => {
                let client = &mut self.clients[number];
                client.last_stream += 1;
                let stream = StreamId(client.last_stream);
                Some(RequestBody::Tunnel {
                    container,
                    port: 80,
                    stream,
                    window: 1 << 16,
                })
            }
            (Wish::List, ..) => Some(RequestBody::List),
            (Wish::Steal, _, Some(id)) if n & 1 == 0 => Some(RequestBody::Destroy(id)),
            (Wish::Steal, _, Some(id)) => Some(exec(id)),
            (Wish::EndSession, ..) => Some(RequestBody::EndSession(session)),
            _ => None,
        };
        let Some(body) = body else { return };
        self.last_request += 1;
        let mut id = [0; 16];
        id[8..].copy_from_slice(&self.last_request.to_be_bytes());
        let id = RequestId::from_bytes(id);
        let client = &mut self.clients[number];
        if matches!(body, RequestBody::Spawn(_)) {
            let container = ContainerId::derive(&session, &id);
            self.owners.insert(container, (session, client.attachment));
        }
        let theft = matches!(wish, Wish::Steal);
        client.pending.insert(
            id,
            Pending {
                body,
                ask_at: Some(0),
                theft,
            },
        );
        self.ask_again(number);
    }

    /// Sends what is not on its way.
    pub(super) fn ask_again(&mut self, n: usize) {
        let now = self.now;
        let client = &mut self.clients[n];
        let (true, Some(link)) = (client.ready, client.link) else {
            return;
        };
        let Some(link) = self.links.get_mut(&link).filter(|link| link.works()) else {
            return;
        };
        for (id, pending) in &mut client.pending {
            if pending.ask_at.is_some_and(|at| at <= now) {
                pending.ask_at = None;
                let request = Request {
                    id: *id,
                    body: pending.body.clone(),
                };
                link.up
                    .push_back(Up::Client(ClientToMaster::Request(Box::new(request))));
            }
        }
    }

    pub(super) fn close_stream(&mut self, choice: u8) {
        let Some(number) = self.living(choice) else {
            return;
        };
        let client = &mut self.clients[number];
        let (Some(stream), Some(link)) = (client.streams.pop_first(), client.link) else {
            return;
        };
        let close = StreamFrame::Close {
            stream,
            end: StreamEnd::Done,
        };
        if let Some(link) = self.links.get_mut(&link).filter(|link| link.works()) {
            link.up.push_back(Up::Client(ClientToMaster::Stream(close)));
        }
    }

    pub(super) fn goodbye(&mut self, choice: u8) {
        let Some(number) = self.living(choice) else {
            return;
        };
        self.leave(number);
    }

    pub(super) fn leave(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let works = |link: &&mut Link| link.works();
        let link = client
            .link
            .and_then(|id| self.links.get_mut(&id))
            .filter(works);
        match link {
            Some(link) if client.ready => {
                client.dead_since = Some(self.now);
                client.pending.clear();
                link.up.push_back(Up::Client(ClientToMaster::Goodbye));
            }
            _ => self.die(number),
        }
    }

    pub(super) fn kill(&mut self, choice: u8) {
        let Some(number) = self.living(choice) else {
            return;
        };
        self.die(number);
    }

    pub(super) fn die(&mut self, number: usize) {
        let now = self.now;
        let mut known_at = now;
        for link in self
            .links
            .values_mut()
            .filter(|link| link.end == End::Client(number))
        {
            if link.works() {
                link.cut(now + 50);
            }
            known_at = known_at.max(link.noticed_at.unwrap_or(now));
        }
        let client = &mut self.clients[number];
        client.dead_since = Some(known_at);
        client.unlinked(now);
        client.pending.clear();
    }

    pub(super) fn cut(&mut self, choice: u8, ms: u64) {
        let working: Vec<_> = self
            .links
            .iter()
            .filter(|(_, link)| link.works())
            .map(|(id, _)| *id)
            .collect();
        let Some(n) = usize::from(choice).checked_rem(working.len()) else {
            return;
        };
        let Some(link) = self.links.get_mut(&working[n]) else {
            return;
        };
        let noticed_at = self.now + ms;
        link.cut(noticed_at);
        let again = self.now + (ms * 7 % 3_500);
        match link.end {
            End::Client(n) => {
                let client = &mut self.clients[n];
                if let Some(since) = &mut client.dead_since {
                    // Its goodbye may have been lost.
                    *since = noticed_at.max(*since);
                }
                client.unlinked(again);
            }
            End::Node(n) => self.nodes[n].unlinked(again),
        }
    }

    pub(super) fn crash_node(&mut self, choice: u8, down: u64) {
        let n = usize::from(choice) % scenery::NODES;
        if let Some(link) = self.nodes[n].link.and_then(|id| self.links.get_mut(&id)) {
            link.cut(self.now + 50);
        }
        self.nodes[n].crashed(self.now + down);
    }

    pub(super) fn exit(&mut self, choice: u8) {
        let n = usize::from(choice) % scenery::NODES;
        if let Some(event) = self.nodes[n].exit(choice / 2, self.now) {
            self.node_says(n, vec![event]);
        }
    }
}

fn spec(n: u16) -> SpawnSpec {
    SpawnSpec {
        node: (n & 4 != 0).then(|| scenery::node_id(usize::from(n & 1))),
        lifetime: match n % 3 {
            0 => Lifetime::Session,
            1 => Lifetime::Attachment,
            _ => Lifetime::FirstProcess,
        },
        ..SpawnSpec::of(scenery::image().id, "app")
    }
}

fn exec(container: ContainerId) -> RequestBody {
    let process = ProcessSpec {
        args: Some(vec!["work".into()]),
        ..ProcessSpec::default()
    };
    RequestBody::Exec {
        container,
        process,
        bound: true,
    }
}
