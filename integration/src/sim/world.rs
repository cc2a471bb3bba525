//! The simulated world: what there is, and how each [`Action`] changes it.

use std::collections::BTreeMap;

use bytes::Bytes;
use teu_master_core::{ConnectionId, Effect, Input, Outbound, effect::StreamEndpoint};
use teu_protocol::{
    ids::{AttachmentId, ContainerId, RequestId, SessionId, StreamId},
    message::{
        ClientToMaster, Initiate, Lifetime, MasterToClient, MasterToNode, NodeToMaster,
        ProcessSpec, Request, RequestBody, ResourceLimits, Role, SessionAsk, SpawnSpec, StreamEnd,
        StreamFrame,
    },
};

use super::{
    Action,
    action::Wish,
    client::{Client, Pending},
    daemon::{Daemon, Store},
    link::{Down, End, Link, Up},
    node::Node,
    scenery,
};

/// Messages that were on the way arrive within this time.
const LATENCY_MS: u64 = 50;
/// Client programs over a whole run: enough for some generations.
const CLIENTS: usize = 24;

/// Everything.
#[derive(Debug)]
pub struct World {
    pub(super) now: u64,
    pub(super) store: Store,
    pub(super) daemon: Option<Daemon>,
    start_master_at: u64,
    /// How often the master was started.
    pub(super) runs: u64,
    /// The master dies after so many further effects.
    dies_after: Option<(u8, u16)>,
    pub(super) links: BTreeMap<ConnectionId, Link>,
    last_link: u64,
    pub(super) clients: Vec<Client>,
    pub(super) nodes: Vec<Node>,
    last_request: u64,
    /// Whose each container is: by the session and program that asked for it.
    pub(super) owners: BTreeMap<ContainerId, (SessionId, AttachmentId)>,
    /// Rules that were broken while messages were delivered.
    pub(super) broken: Vec<String>,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// A location that has just been set up.
    #[must_use]
    pub fn new() -> Self {
        let store = Store::default();
        let daemon = Some(Daemon::start(&store, 0));
        Self {
            now: 0,
            store,
            daemon,
            start_master_at: 0,
            runs: 1,
            dies_after: None,
            links: BTreeMap::new(),
            last_link: 0,
            clients: Vec::new(),
            nodes: (0..scenery::NODES).map(Node::new).collect(),
            last_request: 0,
            owners: BTreeMap::new(),
            broken: Vec::new(),
        }
    }

    /// Lets one thing happen. An error is a broken rule.
    ///
    /// # Errors
    /// What rule was broken, and how.
    pub fn act(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Deliver(n) => self.deliver_one(n),
            Action::Pass(ms) => self.pass(u64::from(ms))?,
            Action::Start(n) => self.start(n),
            Action::Ask(client, wish, n) => self.ask(client, wish, n),
            Action::CloseStream(n) => self.close_stream(n),
            Action::Goodbye(n) => self.goodbye(n),
            Action::Kill(n) => self.kill(n),
            Action::Cut(n, ms) => self.cut(n, u64::from(ms)),
            Action::CrashMaster(after, down) => self.dies_after = Some((after % 4, down)),
            Action::CrashNode(n, down) => self.crash_node(n, u64::from(down)),
            Action::Exit(n) => self.exit(n),
            Action::Stubborn(n) => self.nodes[usize::from(n) % scenery::NODES].stubborn = n % 3,
            Action::SameAddress(n) => {
                self.nodes[usize::from(n) % scenery::NODES].same_address = true;
            }
        }
        self.check()
    }

    /// No more faults: everything has the time to settle.
    ///
    /// # Errors
    /// What rule was broken, and how.
    pub fn settle(&mut self, ms: u64) -> Result<(), String> {
        self.dies_after = None;
        for node in &mut self.nodes {
            (node.stubborn, node.same_address) = (0, false);
        }
        self.pass(ms)
    }

    /// Time passes; what was on the way arrives, in the order of each link.
    pub(super) fn pass(&mut self, ms: u64) -> Result<(), String> {
        let until = self.now + ms;
        while self.now < until {
            self.now = (self.now + LATENCY_MS).min(until);
            self.wake_parts();
            let ids: Vec<_> = self.links.keys().copied().collect();
            for id in ids {
                let Some(link) = self.links.get(&id) else {
                    continue;
                };
                for _ in 0..link.up.len() {
                    self.deliver_up(id);
                }
                let waiting = self.links.get(&id).map_or(0, |link| link.down.len());
                for _ in 0..waiting {
                    self.deliver_down(id);
                }
            }
            self.check()?;
        }
        Ok(())
    }

    /// All that time alone brings about.
    fn wake_parts(&mut self) {
        let now = self.now;
        if self.daemon.is_none() && self.start_master_at <= now {
            self.daemon = Some(Daemon::start(&self.store, now));
            self.runs += 1;
        }
        if self
            .daemon
            .as_ref()
            .is_some_and(|daemon| daemon.next_tick <= now)
        {
            self.input(Input::Tick);
            if let Some(daemon) = &mut self.daemon {
                daemon.next_tick = now + 250;
            }
        }
        let noticed = self
            .links
            .iter()
            .filter(|(_, link)| link.master_has_it && link.noticed_at.is_some_and(|at| at <= now));
        let noticed: Vec<_> = noticed.map(|(id, _)| *id).collect();
        for id in noticed {
            self.master_drops(id);
        }
        for n in 0..self.nodes.len() {
            if self.nodes[n].link.is_none() && self.nodes[n].dial_at <= now {
                self.dial_node(n);
            }
            let said = self.nodes[n].make(now);
            self.node_says(n, said);
        }
        for n in 0..self.clients.len() {
            if self.clients[n].dial_at.is_some_and(|at| at <= now) {
                self.dial_client(n);
            }
            self.ask_again(n);
        }
        self.links.retain(|_, link| !link.is_dead());
    }

    fn dial(
        &mut self,
        end: End,
        key: teu_protocol::ids::PublicKey,
        initiate: Initiate,
    ) -> Option<ConnectionId> {
        self.daemon.as_ref()?;
        self.last_link += 1;
        let id = ConnectionId(self.last_link);
        self.links.insert(id, Link::dialled(end, key, initiate));
        Some(id)
    }

    fn dial_node(&mut self, n: usize) {
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

    fn dial_client(&mut self, n: usize) {
        let (key, initiate) = (self.clients[n].key, self.clients[n].initiate());
        let link = self.dial(End::Client(n), key, initiate);
        let client = &mut self.clients[n];
        client.link = link;
        client.dial_at = link.is_none().then_some(self.now + 500);
    }

    fn deliver_one(&mut self, choice: u8) {
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

    fn deliver_up(&mut self, id: ConnectionId) {
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
    fn close_route(&mut self, connection: ConnectionId, frame: &StreamFrame) {
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

    fn send_close(&mut self, to: StreamEndpoint) {
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

    fn send_down(&mut self, to: ConnectionId, message: Down) {
        if let Some(link) = self.links.get_mut(&to).filter(|link| link.works()) {
            link.down.push_back(message);
        }
    }

    fn deliver_down(&mut self, id: ConnectionId) {
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
                let over = reason.code == teu_protocol::message::RefusalCode::NotFound;
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

    fn peer_drops(&mut self, id: ConnectionId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.peer_has_it = false;
        }
    }

    fn client_hears(&mut self, n: usize, message: MasterToClient) {
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

    fn node_says(&mut self, n: usize, said: Vec<NodeToMaster>) {
        let Some(id) = self.nodes[n].link else { return };
        if let Some(link) = self.links.get_mut(&id).filter(|link| link.works()) {
            link.up.extend(said.into_iter().map(Up::Node));
        }
    }

    /// Gives the core an input and performs its effects, unless the master dies over them.
    fn input(&mut self, input: Input) {
        let Some(daemon) = &mut self.daemon else {
            return;
        };
        let now = daemon.now(self.now);
        let effects = daemon.core.handle(input, now);
        for effect in effects {
            if let Some((left, down)) = &mut self.dies_after {
                if *left == 0 {
                    let down = u64::from(*down);
                    self.dies_after = None;
                    self.crash_master(down);
                    return;
                }
                *left -= 1;
            }
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(op) => self.store.persist(op, self.now),
            Effect::Send {
                connection,
                message,
                ..
            } => {
                self.must_be_durable(&message);
                self.send_down(connection, Down::Message(message));
            }
            Effect::Reject { connection } => self.send_down(connection, Down::Rejected),
            Effect::Close { connection, reason } => {
                self.send_down(connection, Down::Closing(reason));
                self.master_drops(connection);
            }
            Effect::Route { client, node } => {
                if let Some(daemon) = &mut self.daemon {
                    daemon.routes.push((client, node));
                }
            }
            Effect::Unroute {
                connection, stream, ..
            } => {
                let route = self
                    .daemon
                    .as_mut()
                    .and_then(|daemon| daemon.take_route(connection, stream));
                match route {
                    Some((a, b)) => {
                        self.send_close(a);
                        self.send_close(b);
                    }
                    None => self
                        .broken
                        .push(format!("no route to take: {connection:?} {stream}")),
                }
            }
            Effect::ReceiveLayer { .. } | Effect::SendLayer { .. } | Effect::DeleteLayer(_) => {
                self.broken
                    .push(format!("nobody asked for layers: {effect:?}"));
            }
        }
    }

    /// What a client is told of its session survives the master.
    fn must_be_durable(&mut self, message: &Outbound) {
        if let Outbound::Client(MasterToClient::Ready(ready)) = message
            && !self.store.sessions.contains_key(&ready.session)
        {
            self.broken
                .push("READY for a session that is not durable".into());
        }
    }

    /// The master sees that the connection is gone.
    fn master_drops(&mut self, id: ConnectionId) {
        let Some(link) = self.links.get_mut(&id).filter(|link| link.master_has_it) else {
            return;
        };
        link.master_has_it = false;
        link.up.clear();
        self.input(Input::Disconnected { connection: id });
    }

    fn start(&mut self, choice: u8) {
        if self.clients.len() < CLIENTS {
            let key = scenery::ACCOUNTS[usize::from(choice & 1)];
            let number = self.clients.len();
            self.clients.push(Client::new(key, number, choice & 6 == 0));
        }
    }

    /// A living client, as the number has it.
    fn living(&self, choice: u8) -> Option<usize> {
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

    fn ask(&mut self, choice: u8, wish: Wish, n: u16) {
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
    fn ask_again(&mut self, n: usize) {
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

    fn close_stream(&mut self, choice: u8) {
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

    fn goodbye(&mut self, choice: u8) {
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

    fn kill(&mut self, choice: u8) {
        let Some(number) = self.living(choice) else {
            return;
        };
        self.die(number);
    }

    fn die(&mut self, number: usize) {
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

    fn cut(&mut self, choice: u8, ms: u64) {
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

    fn crash_master(&mut self, down: u64) {
        self.daemon = None;
        self.start_master_at = self.now + down;
        let again = self.now + 200;
        for link in std::mem::take(&mut self.links)
            .into_values()
            .filter(|link| link.peer_has_it)
        {
            match link.end {
                End::Client(n) => self.clients[n].unlinked(again),
                End::Node(n) => self.nodes[n].unlinked(again),
            }
        }
    }

    fn crash_node(&mut self, choice: u8, down: u64) {
        let n = usize::from(choice) % scenery::NODES;
        if let Some(link) = self.nodes[n].link.and_then(|id| self.links.get_mut(&id)) {
            link.cut(self.now + 50);
        }
        self.nodes[n].crashed(self.now + down);
    }

    fn exit(&mut self, choice: u8) {
        let n = usize::from(choice) % scenery::NODES;
        if let Some(event) = self.nodes[n].exit(choice / 2, self.now) {
            self.node_says(n, vec![event]);
        }
    }

    /// Everybody goes, and every session is ended: afterwards nothing may be left anywhere.
    ///
    /// # Errors
    /// What rule was broken, and how.
    pub fn close(&mut self) -> Result<(), String> {
        for n in 0..self.clients.len() {
            if self.clients[n].lives() {
                self.leave(n);
            }
        }
        let first = self.clients.len();
        for key in scenery::ACCOUNTS {
            let number = self.clients.len();
            let last = true;
            self.clients.push(Client {
                last,
                ..Client::new(key, number, true)
            });
        }
        self.pass(8_000)?;
        for number in first..self.clients.len() {
            let living = self.clients[..number]
                .iter()
                .filter(|client| client.lives())
                .count();
            self.ask(u8::try_from(living).unwrap_or(0), Wish::EndSession, 0);
        }
        self.pass(8_000)
    }
}

fn spec(n: u16) -> SpawnSpec {
    SpawnSpec {
        image: scenery::image().id,
        node: (n & 4 != 0).then(|| scenery::node_id(usize::from(n & 1))),
        tag: None,
        labels: BTreeMap::new(),
        process: ProcessSpec::default(),
        entrypoint: None,
        files: Vec::new(),
        limits: ResourceLimits::default(),
        asleep: false,
        lifetime: match n % 3 {
            0 => Lifetime::Session,
            1 => Lifetime::Attachment,
            _ => Lifetime::FirstProcess,
        },
        hostname: None,
        image_name: "app".into(),
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
