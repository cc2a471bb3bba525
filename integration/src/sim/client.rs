//! A model client: keeps what it was told, asks, asks again after a lost link, dies.

use std::collections::{BTreeMap, BTreeSet};

use teu_master_core::ConnectionId;
use teu_protocol::{
    ids::{AttachmentId, ContainerId, PublicKey, RequestId, SessionId, StreamId},
    message::{
        ContainerInfo, Event, EventBody, Initiate, Ready, Reply, ReplyBody, RequestBody, Role,
        SessionAsk,
    },
};

/// A client program, living or dead.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) key: PublicKey,
    pub(super) attachment: AttachmentId,
    pub(super) persistent: bool,
    /// It does not come back after its session was ended.
    pub(super) last: bool,
    pub(super) session: Option<SessionId>,
    pub(super) link: Option<ConnectionId>,
    pub(super) ready: bool,
    pub(super) dial_at: Option<u64>,
    /// Asked and not answered for good; when to ask again, unless it is on its way.
    pub(super) pending: BTreeMap<RequestId, Pending>,
    pub(super) containers: BTreeMap<ContainerId, ContainerInfo>,
    pub(super) streams: BTreeSet<StreamId>,
    pub(super) last_stream: u64,
    pub(super) seq: u64,
    /// It said goodbye or was killed; the master could know it from then on.
    pub(super) dead_since: Option<u64>,
    /// The run of the master that it was last attached to.
    pub(super) attached_to: u64,
}

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) body: RequestBody,
    pub(super) ask_at: Option<u64>,
    /// It names another session's container: success would be theft.
    pub(super) theft: bool,
}

impl Client {
    pub(super) fn new(key: PublicKey, number: usize, persistent: bool) -> Self {
        let mut attachment = [0; 16];
        attachment[..8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
        Self {
            key,
            attachment: AttachmentId::from_bytes(attachment),
            persistent,
            last: false,
            session: None,
            link: None,
            ready: false,
            dial_at: Some(0),
            pending: BTreeMap::new(),
            containers: BTreeMap::new(),
            streams: BTreeSet::new(),
            last_stream: 0,
            seq: 0,
            dead_since: None,
            attached_to: 0,
        }
    }

    pub(super) fn initiate(&self) -> Initiate {
        let session = match (self.persistent, self.session) {
            (true, _) => match "default".parse() {
                Ok(name) => SessionAsk::Named(name),
                Err(_) => SessionAsk::New,
            },
            (false, Some(id)) => SessionAsk::Resume(id),
            (false, None) => SessionAsk::New,
        };
        Initiate {
            role: Role::Client,
            features: Vec::new(),
            name: "model".into(),
            session,
            attachment: self.attachment,
        }
    }

    pub(super) fn lives(&self) -> bool {
        self.dead_since.is_none()
    }

    pub(super) fn unlinked(&mut self, dial_at: u64) {
        self.link = None;
        self.ready = false;
        self.streams.clear();
        self.dial_at = self.lives().then_some(dial_at);
        // A stream belongs to its connection.
        self.pending
            .retain(|_, pending| !matches!(pending.body, RequestBody::Tunnel { .. }));
        for pending in self.pending.values_mut() {
            pending.ask_at = Some(0);
        }
    }

    pub(super) fn hear_ready(&mut self, ready: Ready) {
        if self.session.is_some_and(|id| id != ready.session) {
            // The old one was ended; what was asked of it means nothing here.
            self.pending.clear();
        }
        self.session = Some(ready.session);
        self.seq = ready.seq;
        self.containers = ready
            .containers
            .into_iter()
            .map(|info| (info.id, info))
            .collect();
        self.ready = true;
    }

    pub(super) fn hear_event(&mut self, event: Event) -> Result<(), String> {
        if !self.ready {
            return Err("an event came before READY".into());
        }
        if event.seq != self.seq + 1 {
            return Err(format!("event {} after {}", event.seq, self.seq));
        }
        self.seq = event.seq;
        match event.body {
            EventBody::Container(info) => {
                self.containers.insert(info.id, *info);
            }
            EventBody::ContainerGone(id) => {
                self.containers.remove(&id);
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn hear_reply(&mut self, reply: &Reply, now: u64) -> Result<(), String> {
        let Some(pending) = self.pending.get_mut(&reply.id) else {
            return Err(format!("a reply to what was not asked: {reply:?}"));
        };
        if pending.ask_at.is_some() {
            return Err(format!("a second reply: {reply:?}"));
        }
        match &reply.result {
            Err(refusal) if refusal.retryable => {
                if matches!(pending.body, RequestBody::Tunnel { .. }) {
                    self.pending.remove(&reply.id);
                } else {
                    pending.ask_at = Some(now + 500);
                }
                return Ok(());
            }
            Ok(_) if pending.theft => return Err(format!("theft: {pending:?}")),
            Ok(ReplyBody::Opened { .. }) => {
                if let RequestBody::Tunnel { stream, .. } = pending.body {
                    self.streams.insert(stream);
                }
            }
            Ok(ReplyBody::Spawned(info)) => {
                self.containers.insert(info.id, (**info).clone());
            }
            _ => {}
        }
        self.pending.remove(&reply.id);
        Ok(())
    }
}
