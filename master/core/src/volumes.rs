//! The table of volumes: by id, account, node and tag; and who heard what of them.
//!
//! Owner: [`crate::Core`]. Invariants: the indexes agree; a tag names one of an account's volumes,
//! those that are being made included; nothing here leaves the table but by a destruction, a making
//! that came to nothing, or the word of its node. A revoked account's volumes stay: they are its
//! again when its key is enrolled again.
//! Next: `requests` for what clients ask, `outcome` for what nodes answer, `report` for what they
//! tell, `streams` for exports and imports.

mod outcome;
mod report;
mod requests;
mod streams;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use teu_protocol::{
    ids::{NodeId, PublicKey, Tag, VolumeId},
    message::{VolumeInfo, VolumeState},
};

use crate::{limits, record};

/// All volumes that are known, those included that are being made or destroyed.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    by_id: BTreeMap<VolumeId, Volume>,
    by_account: BTreeMap<PublicKey, BTreeSet<VolumeId>>,
    by_node: BTreeMap<NodeId, BTreeSet<VolumeId>>,
    by_tag: BTreeMap<(PublicKey, Tag), VolumeId>,
    making: BTreeSet<VolumeId>,
    /// Destroyed lately, so that destroying again is harmless and making again is not done.
    destroyed: BTreeMap<PublicKey, VecDeque<VolumeId>>,
    /// May look otherwise than its account's sessions were told.
    touched: BTreeSet<VolumeId>,
}

/// A volume.
#[derive(Debug, Clone)]
pub(crate) struct Volume {
    /// What the store has of it, once it is made.
    pub(crate) kept: record::Volume,
    /// What its node said last (or that it is missing there); that the node is lost is not here.
    pub(crate) state: VolumeState,
    /// Its node has not said that it has it. Forgotten at this time.
    pub(crate) making_until_ms: Option<u64>,
    told: Option<VolumeInfo>,
}

impl Volume {
    pub(crate) fn new(kept: record::Volume, making_until_ms: Option<u64>) -> Self {
        Self {
            kept,
            state: VolumeState::Ready,
            making_until_ms,
            told: None,
        }
    }

    pub(crate) fn id(&self) -> VolumeId {
        self.kept.record.id
    }

    pub(crate) fn account(&self) -> PublicKey {
        self.kept.record.account
    }

    pub(crate) fn tag(&self) -> Option<&Tag> {
        self.kept.record.spec.tag.as_ref()
    }

    pub(crate) fn is_made(&self) -> bool {
        self.making_until_ms.is_none()
    }

    /// What people call it.
    pub(crate) fn name(&self) -> String {
        self.tag()
            .map_or_else(|| self.id().short(), ToString::to_string)
    }
}

impl Volumes {
    pub(crate) fn restored(
        records: Vec<record::Volume>,
        mut destroyed: Vec<record::Destroyed>,
    ) -> Self {
        let mut volumes = Self::default();
        for kept in records {
            volumes.insert(Volume::new(kept, None));
        }
        destroyed.sort_by_key(|one| one.at_ms);
        for one in destroyed {
            volumes.remember_destroyed(one.account, one.volume);
        }
        volumes
    }

    pub(crate) fn get(&self, id: &VolumeId) -> Option<&Volume> {
        self.by_id.get(id)
    }

    /// The volume if it is the account's and was made. Another account's is as unknown as none.
    pub(crate) fn of_account(&self, account: &PublicKey, id: &VolumeId) -> Option<&Volume> {
        self.by_id
            .get(id)
            .filter(|volume| volume.account() == *account && volume.is_made())
    }

    pub(crate) fn insert(&mut self, volume: Volume) {
        let id = volume.id();
        self.remove(&id);
        self.index(&volume);
        self.by_id.insert(id, volume);
    }

    pub(crate) fn remove(&mut self, id: &VolumeId) -> Option<Volume> {
        let volume = self.by_id.remove(id)?;
        self.unindex(&volume);
        Some(volume)
    }

    /// Changes a volume and keeps the indexes right.
    pub(crate) fn update<R>(
        &mut self,
        id: &VolumeId,
        change: impl FnOnce(&mut Volume) -> R,
    ) -> Option<R> {
        let mut volume = self.remove(id)?;
        let result = change(&mut volume);
        self.insert(volume);
        Some(result)
    }

    fn index(&mut self, volume: &Volume) {
        let (id, account) = (volume.id(), volume.account());
        self.by_account.entry(account).or_default().insert(id);
        self.by_node.entry(volume.kept.node).or_default().insert(id);
        if let Some(tag) = volume.tag() {
            self.by_tag.entry((account, tag.clone())).or_insert(id);
        }
        if !volume.is_made() {
            self.making.insert(id);
        }
        self.touched.insert(id);
    }

    fn unindex(&mut self, volume: &Volume) {
        let (id, account) = (volume.id(), volume.account());
        forget(&mut self.by_account, &account, &id);
        forget(&mut self.by_node, &volume.kept.node, &id);
        if let Some(tag) = volume.tag() {
            let key = (account, tag.clone());
            if self.by_tag.get(&key) == Some(&id) {
                self.by_tag.remove(&key);
            }
        }
        self.making.remove(&id);
    }

    /// An account's volumes that were made, in the order of their making.
    pub(crate) fn listed(&self, account: &PublicKey) -> Vec<&Volume> {
        let ids = self.by_account.get(account).into_iter().flatten();
        let mut listed: Vec<_> = ids
            .filter_map(|id| self.by_id.get(id))
            .filter(|volume| volume.is_made())
            .collect();
        listed.sort_by_key(|volume| (volume.kept.record.created_ms, volume.id()));
        listed
    }

    pub(crate) fn count_of(&self, account: &PublicKey) -> usize {
        self.by_account.get(account).map_or(0, BTreeSet::len)
    }

    pub(crate) fn on_node(&self, node: &NodeId) -> impl Iterator<Item = &Volume> {
        let ids = self.by_node.get(node).into_iter().flatten();
        ids.filter_map(|id| self.by_id.get(id))
    }

    /// Whose tag it is, those that are being made included.
    pub(crate) fn tagged(&self, account: &PublicKey, tag: &Tag) -> Option<&Volume> {
        let id = self.by_tag.get(&(*account, tag.clone()))?;
        self.by_id.get(id)
    }

    /// Makings that nothing was heard of for too long.
    pub(crate) fn making_expired(&self, now_ms: u64) -> Vec<VolumeId> {
        let is_over = |id: &&VolumeId| {
            let until = self.by_id.get(*id).and_then(|v| v.making_until_ms);
            until.is_some_and(|until_ms| until_ms <= now_ms)
        };
        self.making.iter().filter(is_over).copied().collect()
    }

    /// Gives the one that is remembered no longer.
    pub(crate) fn remember_destroyed(
        &mut self,
        account: PublicKey,
        id: VolumeId,
    ) -> Option<VolumeId> {
        let destroyed = self.destroyed.entry(account).or_default();
        let is_full = destroyed.len() >= limits::DESTROYED_REMEMBERED;
        let forgotten = is_full.then(|| destroyed.pop_front()).flatten();
        destroyed.push_back(id);
        forgotten
    }

    pub(crate) fn was_destroyed(&self, account: &PublicKey, id: &VolumeId) -> bool {
        self.destroyed
            .get(account)
            .is_some_and(|destroyed| destroyed.contains(id))
    }

    /// The node came or went: its volumes look otherwise.
    pub(crate) fn touch_all_on(&mut self, node: &NodeId) {
        let ids = self.by_node.get(node).into_iter().flatten();
        self.touched.extend(ids);
    }

    pub(crate) fn take_touched(&mut self) -> BTreeSet<VolumeId> {
        std::mem::take(&mut self.touched)
    }

    /// Notes what the account's sessions are told; `false`: they know.
    pub(crate) fn tell(&mut self, id: &VolumeId, info: &VolumeInfo) -> bool {
        let Some(volume) = self.by_id.get_mut(id) else {
            return false;
        };
        if volume.told.as_ref() == Some(info) {
            return false;
        }
        volume.told = Some(info.clone());
        true
    }
}

fn forget<K: Ord>(index: &mut BTreeMap<K, BTreeSet<VolumeId>>, key: &K, id: &VolumeId) {
    if index
        .get_mut(key)
        .is_some_and(|ids| ids.remove(id) && ids.is_empty())
    {
        index.remove(key);
    }
}
