//! One session: who is attached, what it was told, what it was answered.
//!
//! ```text
//! attachment:  connected ──lost──▶ in grace ──GRACE_MS──▶ ended
//!                  ▲ └──Goodbye──────│──────────────────────▲
//!                  └───reconnects────┘
//! ```
//! An ephemeral session ends with its last attachment, a persistent one only when told.

use std::collections::{BTreeMap, VecDeque};

use teu_protocol::ids::{AttachmentId, ContainerId};

use crate::{ConnectionId, limits, record, replies::ReplyMemory};

/// A session that has not ended.
#[derive(Debug)]
pub(crate) struct Session {
    record: record::Session,
    /// The last event's number.
    pub(crate) seq: u64,
    /// What retried requests are answered.
    pub(crate) replies: ReplyMemory,
    /// The version of the offer that its clients have been told.
    pub(crate) offer_version: u64,
    /// It is older than this run of the master: its containers may not be known yet.
    pub(crate) restored: bool,
    attachments: BTreeMap<AttachmentId, Attachment>,
    destroyed: VecDeque<ContainerId>,
    ended: VecDeque<AttachmentId>,
}

/// A client process.
#[derive(Debug)]
enum Attachment {
    Connected(ConnectionId),
    Grace { until_ms: u64 },
}

impl Session {
    pub(crate) fn new(record: record::Session, restored: bool) -> Self {
        Self {
            record,
            seq: 0,
            replies: ReplyMemory::default(),
            offer_version: 0,
            restored,
            attachments: BTreeMap::new(),
            destroyed: VecDeque::new(),
            ended: VecDeque::new(),
        }
    }

    pub(crate) fn record(&self) -> &record::Session {
        &self.record
    }

    pub(crate) fn is_persistent(&self) -> bool {
        self.record.name.is_some()
    }

    pub(crate) fn has_room_for(&self, attachment: &AttachmentId) -> bool {
        self.attachments.contains_key(attachment)
            || self.attachments.len() < limits::ATTACHMENTS_PER_SESSION
    }

    /// The attachment is connected. Returns the connection that this one replaces.
    pub(crate) fn attach(
        &mut self,
        attachment: AttachmentId,
        connection: ConnectionId,
    ) -> Option<ConnectionId> {
        match self
            .attachments
            .insert(attachment, Attachment::Connected(connection))
        {
            Some(Attachment::Connected(earlier)) => Some(earlier),
            _ => None,
        }
    }

    /// The attachment may come back until then. `false`: its connection is another one by now.
    pub(crate) fn detach(
        &mut self,
        attachment: AttachmentId,
        connection: ConnectionId,
        until_ms: u64,
    ) -> bool {
        let slot = self.attachments.get_mut(&attachment);
        let Some(slot @ Attachment::Connected(_)) = slot else {
            return false;
        };
        let is_current = matches!(slot, Attachment::Connected(c) if *c == connection);
        if is_current {
            *slot = Attachment::Grace { until_ms };
        }
        is_current
    }

    /// A container of the attachment was found after a restart: its client may come back.
    pub(crate) fn expect(&mut self, attachment: AttachmentId, until_ms: u64) {
        self.attachments
            .entry(attachment)
            .or_insert(Attachment::Grace { until_ms });
    }

    pub(crate) fn knows(&self, attachment: &AttachmentId) -> bool {
        self.attachments.contains_key(attachment)
    }

    pub(crate) fn is_connected(&self, attachment: &AttachmentId) -> bool {
        matches!(
            self.attachments.get(attachment),
            Some(Attachment::Connected(_))
        )
    }

    pub(crate) fn grace_is_over(&self, attachment: &AttachmentId, now_ms: u64) -> bool {
        matches!(self.attachments.get(attachment),
            Some(Attachment::Grace { until_ms }) if *until_ms <= now_ms)
    }

    /// The attachment ended.
    pub(crate) fn forget(&mut self, attachment: &AttachmentId) {
        self.attachments.remove(attachment);
        if self.restored {
            if self.ended.len() >= limits::ATTACHMENTS_PER_SESSION {
                self.ended.pop_front();
            }
            self.ended.push_back(*attachment);
        }
    }

    /// An unknown attachment of before the restart: it may come back, unless it said goodbye since.
    pub(crate) fn may_expect(&self, attachment: &AttachmentId) -> bool {
        self.restored && !self.knows(attachment) && !self.ended.contains(attachment)
    }

    /// Nobody is attached, nor may come back.
    pub(crate) fn is_deserted(&self) -> bool {
        self.attachments.is_empty()
    }

    pub(crate) fn connections(&self) -> impl Iterator<Item = ConnectionId> {
        self.attachments
            .values()
            .filter_map(|attachment| match attachment {
                Attachment::Connected(connection) => Some(*connection),
                Attachment::Grace { .. } => None,
            })
    }

    /// Remembers that the container was destroyed, so that destroying it again is harmless.
    pub(crate) fn remember_destroyed(&mut self, container: ContainerId) {
        if self.destroyed.len() >= limits::DESTROYED_REMEMBERED {
            self.destroyed.pop_front();
        }
        self.destroyed.push_back(container);
    }

    pub(crate) fn was_destroyed(&self, container: &ContainerId) -> bool {
        self.destroyed.contains(container)
    }
}
