//! The simulated world: what there is, how each [`Action`] changes it, and what time alone does.
//!
//! Owner: one test. Next: `network`, `master`, `program` for the parts'
//! own doings; [`super::check`] for the rules.

use std::collections::BTreeMap;

use teu_master_core::{ConnectionId, Input};
use teu_protocol::ids::{AttachmentId, ContainerId, SessionId};

use super::{
    Action,
    action::Wish,
    client::Client,
    daemon::{Daemon, Store},
    link::Link,
    node::Node,
    scenery,
};

/// Messages that were on the way arrive within this time.
const LATENCY_MS: u64 = 50;
/// Everything.
#[derive(Debug)]
pub struct World {
    pub(super) now: u64,
    pub(super) store: Store,
    pub(super) daemon: Option<Daemon>,
    pub(super) start_master_at: u64,
    /// How often the master was started.
    pub(super) runs: u64,
    /// The master dies after so many further effects.
    pub(super) dies_after: Option<(u8, u16)>,
    pub(super) links: BTreeMap<ConnectionId, Link>,
    pub(super) last_link: u64,
    pub(super) clients: Vec<Client>,
    pub(super) nodes: Vec<Node>,
    pub(super) last_request: u64,
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
}
