//! The table of sessions: by id, by account, by name, and what expires when.
//!
//! Owner: [`crate::Core`]. Invariant: the three indexes agree; an expiry may be stale, so whoever
//! takes one looks again whether it still holds. Next: [`crate::session`] for one session.

use std::collections::{BTreeMap, BTreeSet};

use teu_protocol::{
    ids::{AttachmentId, PublicKey, SessionId, Tag},
    message::Refusal,
};

use crate::{limits, record, refusals, session::Session};

/// All sessions that have not ended.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    by_id: BTreeMap<SessionId, Session>,
    by_account: BTreeMap<PublicKey, BTreeSet<SessionId>>,
    by_name: BTreeMap<(PublicKey, Tag), SessionId>,
    expiries: BTreeSet<(u64, Expiry)>,
}

/// What may be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Expiry {
    /// An attachment's grace to reconnect.
    Attachment(SessionId, AttachmentId),
    /// An ephemeral session of before the restart that nobody came back to.
    Deserted(SessionId),
}

impl Sessions {
    /// Sessions of before the restart: ephemeral ones expire unless their client comes back.
    pub(crate) fn restored(records: Vec<record::Session>, now_ms: u64) -> Self {
        let mut sessions = Self::default();
        for record in records {
            if record.name.is_none() {
                let expiry = Expiry::Deserted(record.id);
                sessions
                    .expiries
                    .insert((now_ms + limits::RESTART_GRACE_MS, expiry));
            }
            sessions.insert(Session::new(record, true));
        }
        sessions
    }

    fn insert(&mut self, session: Session) {
        let (id, account) = (session.record().id, session.record().account);
        if let Some(name) = &session.record().name {
            self.by_name.insert((account, name.clone()), id);
        }
        self.by_account.entry(account).or_default().insert(id);
        self.by_id.insert(id, session);
    }

    /// Adds a fresh session.
    pub(crate) fn open(&mut self, record: record::Session) -> Result<(), Refusal> {
        let own = self
            .by_account
            .get(&record.account)
            .map_or(0, BTreeSet::len);
        if own >= limits::SESSIONS_PER_ACCOUNT {
            return Err(refusals::limit(format!(
                "this account has {own} sessions, which is the most. `teu session ls` lists them"
            )));
        }
        if self.by_id.len() >= limits::SESSIONS || self.by_id.contains_key(&record.id) {
            return Err(refusals::limit(
                "the location has no room for further sessions",
            ));
        }
        self.insert(Session::new(record, false));
        Ok(())
    }

    pub(crate) fn get(&self, id: &SessionId) -> Option<&Session> {
        self.by_id.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: &SessionId) -> Option<&mut Session> {
        self.by_id.get_mut(id)
    }

    /// The session if it is the account's. Another account's is as unknown as none.
    pub(crate) fn of_account(&self, account: &PublicKey, id: &SessionId) -> Option<&Session> {
        self.by_id
            .get(id)
            .filter(|session| session.record().account == *account)
    }

    pub(crate) fn named(&self, account: &PublicKey, name: &Tag) -> Option<SessionId> {
        self.by_name.get(&(*account, name.clone())).copied()
    }

    pub(crate) fn all_of(&self, account: &PublicKey) -> impl Iterator<Item = &Session> {
        let ids = self.by_account.get(account).into_iter().flatten();
        ids.filter_map(|id| self.by_id.get(id))
    }

    pub(crate) fn remove(&mut self, id: &SessionId) -> Option<Session> {
        let session = self.by_id.remove(id)?;
        let account = session.record().account;
        if let Some(name) = &session.record().name {
            self.by_name.remove(&(account, name.clone()));
        }
        if let Some(ids) = self.by_account.get_mut(&account) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_account.remove(&account);
            }
        }
        Some(session)
    }

    /// Notes when somebody must look whether the attachment came back.
    pub(crate) fn expires(&mut self, at_ms: u64, expiry: Expiry) {
        self.expiries.insert((at_ms, expiry));
    }

    /// The next expiry that is due.
    pub(crate) fn next_expired(&mut self, now_ms: u64) -> Option<Expiry> {
        let (at_ms, expiry) = *self.expiries.first()?;
        (at_ms <= now_ms).then(|| {
            self.expiries.pop_first();
            expiry
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Ids after `after`, at most `count`, to go round all sessions in portions.
    pub(crate) fn portion(&self, after: Option<SessionId>, count: usize) -> Vec<SessionId> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.by_id
            .range((from, Unbounded))
            .take(count)
            .map(|(id, _)| *id)
            .collect()
    }
}
