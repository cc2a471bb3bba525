//! Attachments that have places at processes: a process waits for a place until its client lets go, or
//! until the node hears from here that the attachment ended.
//!
//! Invariant: no node keeps a place of an attachment that ended: it is told at the end, or, if it was away
//! then, when it reports.

use teu_protocol::{
    ids::{AttachmentId, ContainerId},
    message::NodeRequestBody,
};

use crate::{Core, limits, orders::Purpose};

impl Core {
    /// A request gives an attachment a place.
    pub(crate) fn has_readers(&mut self, container: &ContainerId, owner: Option<AttachmentId>) {
        if let Some(owner) = owner {
            self.containers
                .update(container, |c| c.readers.insert(owner));
        }
    }

    /// The attachment ended.
    pub(crate) fn release_readers(&mut self, container: &ContainerId, attachment: AttachmentId) {
        let held = self
            .containers
            .update(container, |c| c.readers.remove(&attachment));
        let Some(found) = self
            .containers
            .get(container)
            .filter(|_| held == Some(true))
        else {
            return;
        };
        let node = found.info.node;
        let body = NodeRequestBody::ReleaseReaders {
            container: *container,
            attachment,
        };
        // A node that is away tells of the place when it is back.
        let _ = self.order(node, body, Purpose::ReleaseReaders, limits::ORDER_MS);
    }

    /// What the node says of its places: those of attachments that ended meanwhile are let go.
    pub(crate) fn refresh_readers(&mut self, container: &ContainerId, told: &[AttachmentId]) {
        self.containers
            .update(container, |c| c.readers.extend(told.iter().copied()));
        for attachment in told {
            let session = self.containers.get(container).map(|c| c.session);
            let session = session.and_then(|session| self.sessions.get(&session));
            if !session.is_some_and(|session| session.knows(attachment)) {
                self.release_readers(container, *attachment);
            }
        }
    }
}
