//! Pushes changed nodes into every session's offer.
//!
//! Invariants: between two pushes lie at least [`limits::OFFER_EVERY_MS`], so a node that changes
//! all the time costs each session four messages a second at most; one push tells at most
//! [`limits::OFFER_SESSIONS`] sessions, and the next goes on where it stopped.

use teu_protocol::{ids::SessionId, message::EventBody};

use crate::{Core, limits};

/// Where the pushes are.
#[derive(Debug, Default)]
pub(crate) struct OfferPush {
    next_ms: u64,
    /// The round stopped after this session.
    after: Option<SessionId>,
    /// The round has not come to its end.
    unfinished: bool,
    told_all_up_to: u64,
}

impl Core {
    pub(crate) fn push_offers(&mut self) {
        let (now, version) = (self.clock(), self.nodes.offer_version());
        let push = &mut self.offer_push;
        if now < push.next_ms || (push.told_all_up_to == version && !push.unfinished) {
            return;
        }
        push.next_ms = now + limits::OFFER_EVERY_MS;
        if !push.unfinished {
            push.told_all_up_to = version;
        }
        let portion = self.sessions.portion(push.after, limits::OFFER_SESSIONS);
        push.unfinished = portion.len() == limits::OFFER_SESSIONS;
        push.after = portion.last().copied().filter(|_| push.unfinished);
        for id in portion {
            self.push_offer(&id, version);
        }
    }

    fn push_offer(&mut self, id: &SessionId, version: u64) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        if session.connections().next().is_none() || session.offer_version >= version {
            return;
        }
        let told = std::mem::replace(&mut session.offer_version, version);
        for offer in self.nodes.offers_since(told) {
            self.notify(id, EventBody::Node(offer));
        }
    }
}
