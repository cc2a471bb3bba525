//! A connection: two queues, in order, that break together and are noticed apart.

use std::collections::VecDeque;

use teu_master_core::Outbound;
use teu_protocol::{
    ids::PublicKey,
    message::{ClientToMaster, Initiate, NodeToMaster, Refusal},
};

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Client(usize),
    Node(usize),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) end: End,
    /// Towards the master.
    pub(super) up: VecDeque<Up>,
    /// Away from it.
    pub(super) down: VecDeque<Down>,
    /// The peer still believes in it.
    pub(super) peer_has_it: bool,
    /// The master still believes in it.
    pub(super) master_has_it: bool,
    /// Broken: the master notices then.
    pub(super) noticed_at: Option<u64>,
}

/// Towards the master.
#[derive(Debug)]
pub(super) enum Up {
    Hello(PublicKey, Box<Initiate>),
    Client(ClientToMaster),
    Node(NodeToMaster),
}

/// Away from it.
#[derive(Debug)]
pub(super) enum Down {
    Message(Outbound),
    Closing(Refusal),
    Rejected,
}

impl Link {
    pub(super) fn dialled(end: End, key: PublicKey, initiate: Initiate) -> Self {
        Self {
            end,
            up: VecDeque::from([Up::Hello(key, Box::new(initiate))]),
            down: VecDeque::new(),
            peer_has_it: true,
            master_has_it: true,
            noticed_at: None,
        }
    }

    /// Breaks: what was on the way is lost.
    pub(super) fn cut(&mut self, noticed_at: u64) {
        self.up.clear();
        self.down.clear();
        self.peer_has_it = false;
        self.noticed_at = Some(noticed_at);
    }

    pub(super) fn works(&self) -> bool {
        self.peer_has_it && self.master_has_it && self.noticed_at.is_none()
    }

    pub(super) fn is_dead(&self) -> bool {
        !self.peer_has_it && !self.master_has_it
    }
}
