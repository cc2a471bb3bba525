//! What clients ask of volumes: checked, placed, ordered from the volume's node.
//!
//! Invariants: every volume that a request names is looked up by [`Core::owned_volume`]; a volume's
//! id is derived from session and request, so a retry never makes a second one; the mark that a
//! volume is being destroyed is durable before its node is told.

use teu_protocol::{
    ids::{NodeId, PublicKey, VolumeId},
    message::{
        EventBody, NodeRequestBody, Refusal, RefusalCode, ReplyBody, RequestBody, SCHEDULED_PREFIX,
        VolumeInfo, VolumeMount, VolumeOrder, VolumeOrigin, VolumeRecord, VolumeSpec, VolumeState,
    },
};

use super::Volume;
use crate::{
    Core, bounds,
    connections::Caller,
    find, limits,
    orders::{Purpose, VolumeAsk},
    record::{self, StoreOp},
    refusals,
    request::{Answer, Step},
};

impl Core {
    /// A request about volumes.
    pub(crate) fn volume_request(&mut self, caller: &Caller, body: RequestBody) -> Step {
        match body {
            RequestBody::CreateVolume { node, spec, ensure } => {
                self.create_volume(caller, node, spec, ensure)
            }
            RequestBody::CloneVolume {
                volume,
                snapshot,
                spec,
            } => {
                let source = self.served_volume(caller, &volume)?.kept.node;
                let origin = VolumeOrigin { volume, snapshot };
                self.make_volume(caller, source, spec, Some(origin))
            }
            RequestBody::FindVolume(what) => {
                let listed = self.volumes.listed(&caller.account);
                let found = find::pick(&listed, &what)?.ok_or_else(|| self.no_volume(caller))?;
                Ok(self.volume_now(found))
            }
            RequestBody::Volumes => Ok(Answer::now(ReplyBody::Volumes(
                self.volumes_of(&caller.account),
            ))),
            RequestBody::DestroyVolume(id) => self.destroy_volume(caller, &id),
            RequestBody::Snapshots(id) => {
                self.ask_volume(caller, VolumeOrder::Snapshots(id), VolumeAsk::Snapshots)
            }
            RequestBody::VolumeUsage(id) => {
                self.ask_volume(caller, VolumeOrder::Usage(id), VolumeAsk::Usage)
            }
            RequestBody::Snapshot { volume, name } => {
                if name.as_str().starts_with(SCHEDULED_PREFIX) {
                    return Err(refusals::bad(format!(
                        "snapshots whose names begin with `{SCHEDULED_PREFIX}` are made by \
                         schedules. Choose another name"
                    )));
                }
                let order = VolumeOrder::Snapshot { volume, name };
                self.ask_volume(caller, order, VolumeAsk::Do)
            }
            RequestBody::DestroySnapshot { volume, name } => {
                let order = VolumeOrder::DestroySnapshot { volume, name };
                self.ask_volume(caller, order, VolumeAsk::Do)
            }
            RequestBody::RollBack(how) => {
                self.ask_volume(caller, VolumeOrder::RollBack(how), VolumeAsk::Do)
            }
            RequestBody::SetQuota {
                volume,
                quota_bytes,
            } => {
                bounds::quota(quota_bytes)?;
                let order = VolumeOrder::SetQuota {
                    volume,
                    quota_bytes,
                };
                self.ask_volume(caller, order, VolumeAsk::Change)
            }
            RequestBody::SetSchedule { volume, schedule } => {
                bounds::schedule(schedule.as_ref())?;
                let order = VolumeOrder::SetSchedule { volume, schedule };
                self.ask_volume(caller, order, VolumeAsk::Change)
            }
            RequestBody::ExportVolume { .. } | RequestBody::ImportVolume { .. } => {
                self.volume_stream(caller, body)
            }
            _ => Err(refusals::bad("this request is not about volumes")),
        }
    }

    /// The one look-up by which an account gets at a volume.
    pub(super) fn owned_volume(&self, caller: &Caller, id: &VolumeId) -> Result<&Volume, Refusal> {
        self.volumes
            .of_account(&caller.account, id)
            .ok_or_else(|| self.no_volume(caller))
    }

    /// The same, of one that is there to be used.
    pub(super) fn served_volume(&self, caller: &Caller, id: &VolumeId) -> Result<&Volume, Refusal> {
        let volume = self.owned_volume(caller, id)?;
        self.up(&volume.kept.node)?;
        if volume.kept.destroying {
            return Err(refusals::wrong_state("the volume is being destroyed"));
        }
        if volume.state == VolumeState::Missing {
            return Err(Refusal::new(
                RefusalCode::Faulted,
                format!(
                    "volume `{}` is not in its node's pool any more: somebody removed it by hand. \
                     `teu volume rm` forgets it; `teu doctor` says more",
                    volume.name()
                ),
            ));
        }
        Ok(volume)
    }

    /// After a restart nobody is told "no" before the nodes had their say.
    fn no_volume(&self, caller: &Caller) -> Refusal {
        let session = self.sessions.get(&caller.session);
        if session.is_some_and(|session| session.restored) && !self.is_settled() {
            refusals::settling()
        } else {
            refusals::no_volume()
        }
    }

    /// Passes a request on to the volume's node.
    fn ask_volume(&mut self, caller: &Caller, order: VolumeOrder, ask: VolumeAsk) -> Step {
        let volume = order.volume();
        let node = self.served_volume(caller, &volume)?.kept.node;
        self.forward_volume(caller, node, order, ask)
    }

    fn forward_volume(
        &mut self,
        caller: &Caller,
        node: NodeId,
        order: VolumeOrder,
        ask: VolumeAsk,
    ) -> Step {
        let purpose = Purpose::Volume(order.volume(), ask);
        let body = NodeRequestBody::Volume(Box::new(order));
        self.forward(caller, node, body, purpose, limits::VOLUME_MS)
    }

    fn create_volume(
        &mut self,
        caller: &Caller,
        node: Option<NodeId>,
        spec: VolumeSpec,
        ensure: bool,
    ) -> Step {
        let id = VolumeId::derive(&caller.session, &caller.request);
        if ensure && self.volumes.get(&id).is_none() {
            let Some(tag) = &spec.tag else {
                return Err(refusals::bad(
                    "to ensure that a volume is there, it needs a tag to be found by",
                ));
            };
            let there = self.volumes.tagged(&caller.account, tag);
            if let Some(there) = there {
                return if there.is_made() && !there.kept.destroying {
                    Ok(self.volume_now(there))
                } else {
                    Err(Refusal::new(
                        RefusalCode::Unavailable,
                        format!(
                            "volume `{tag}` is just being made or destroyed; try again shortly"
                        ),
                    ))
                };
            }
        }
        let node = match self.volumes.get(&id) {
            Some(again) => again.kept.node,
            None => self.place_volume(node)?,
        };
        self.make_volume(caller, node, spec, None)
    }

    /// Creates or clones: enters it, and orders it from its node.
    fn make_volume(
        &mut self,
        caller: &Caller,
        node: NodeId,
        spec: VolumeSpec,
        origin: Option<VolumeOrigin>,
    ) -> Step {
        let id = VolumeId::derive(&caller.session, &caller.request);
        if let Some(again) = self.volumes.get(&id).filter(|v| v.is_made()) {
            return if again.kept.destroying {
                Err(refusals::wrong_state("this volume is being destroyed"))
            } else {
                Ok(self.volume_now(again))
            };
        }
        let until_ms = self.clock() + limits::LATE_MS;
        let record = self.enter_volume(caller, node, (spec, origin), until_ms)?;
        let order = match record.origin {
            None => VolumeOrder::Create(record),
            Some(_) => VolumeOrder::Clone(record),
        };
        let step = self.forward_volume(caller, node, order, VolumeAsk::Make);
        if step.is_err() {
            self.drop_unmade(&id);
        }
        step
    }

    /// Checks what is to be made, and enters it as being made.
    pub(super) fn enter_volume(
        &mut self,
        caller: &Caller,
        node: NodeId,
        (spec, origin): (VolumeSpec, Option<VolumeOrigin>),
        until_ms: u64,
    ) -> Result<VolumeRecord, Refusal> {
        bounds::volume(&spec)?;
        let id = VolumeId::derive(&caller.session, &caller.request);
        if self.volumes.was_destroyed(&caller.account, &id) {
            return Err(refusals::wrong_state(
                "this volume was destroyed since it was asked for",
            ));
        }
        if let Some(again) = self.volumes.get(&id) {
            self.up(&again.kept.node)?;
            return Ok(again.kept.record.clone());
        }
        let restored = self.sessions.get(&caller.session);
        let restored = restored.is_some_and(|session| session.restored);
        if (restored || spec.tag.is_some()) && !self.is_settled() {
            // A node that has not told yet may have it, or another one of this tag.
            return Err(refusals::settling());
        }
        let count = self.volumes.count_of(&caller.account);
        if count >= limits::SESSION.volumes as usize {
            return Err(refusals::limit(format!(
                "this account has {count} volumes, which is the most. Destroy some"
            )));
        }
        if let Some(tag) = &spec.tag
            && self.volumes.tagged(&caller.account, tag).is_some()
        {
            return Err(Refusal::new(
                RefusalCode::TagTaken,
                format!(
                    "another volume of this account is called `{tag}`. Choose another name, or \
                     remove that one with `teu volume rm {tag}`"
                ),
            ));
        }
        self.up(&node)?;
        let record = VolumeRecord {
            id,
            account: caller.account,
            created_ms: self.now.unix_ms,
            spec,
            origin,
        };
        let kept = record::Volume {
            node,
            record: record.clone(),
            destroying: false,
        };
        self.volumes.insert(Volume::new(kept, Some(until_ms)));
        Ok(record)
    }

    /// Its making came to nothing.
    pub(crate) fn drop_unmade(&mut self, id: &VolumeId) {
        if self.volumes.get(id).is_some_and(|v| !v.is_made()) {
            self.volumes.remove(id);
        }
    }

    pub(crate) fn expire_makings(&mut self) {
        for id in self.volumes.making_expired(self.clock()) {
            self.drop_unmade(&id);
        }
    }

    /// The node with most room in its pool; of equals the first by id.
    pub(super) fn place_volume(&self, asked: Option<NodeId>) -> Result<NodeId, Refusal> {
        if let Some(id) = asked {
            let name = self.up(&id)?;
            let has_pool = |node: &crate::nodes::Node| node.capacity.pool_bytes > 0;
            return match self.nodes.get(&id).is_some_and(has_pool) {
                true => Ok(id),
                false => Err(no_pool(&format!("node `{name}` has no pool for volumes"))),
            };
        }
        let pools = self
            .nodes
            .iter()
            .filter(|node| node.is_up() && node.capacity.pool_bytes > 0);
        let best = pools.max_by_key(|node| {
            (
                node.usage.pool_free_bytes,
                std::cmp::Reverse(node.record.id),
            )
        });
        match best {
            Some(node) => Ok(node.record.id),
            None if !self.is_settled() => Err(refusals::settling()),
            None => {
                let refusal = no_pool("no node that is up has a pool for volumes");
                Err(self.until_back(None, refusal))
            }
        }
    }

    fn destroy_volume(&mut self, caller: &Caller, id: &VolumeId) -> Step {
        if self.volumes.was_destroyed(&caller.account, id) {
            return Ok(Answer::done());
        }
        let volume = self.owned_volume(caller, id)?;
        let node = volume.kept.node;
        self.unused(volume)?;
        self.up(&node)?;
        // One that is missing as well: its node forgets that it had it.
        self.mark_destroying(id, true);
        self.forward_volume(caller, node, VolumeOrder::Destroy(*id), VolumeAsk::Destroy)
    }

    /// Makes the mark, or takes it back.
    pub(super) fn mark_destroying(&mut self, id: &VolumeId, destroying: bool) {
        let Some(volume) = self.volumes.get(id) else {
            return;
        };
        if volume.kept.destroying != destroying {
            let kept = record::Volume {
                destroying,
                ..volume.kept.clone()
            };
            self.volumes.update(id, |v| v.kept = kept.clone());
            self.persist(StoreOp::PutVolume(kept));
        }
    }

    /// Nothing of it is left.
    pub(super) fn volume_gone(&mut self, id: &VolumeId) {
        let Some(volume) = self.volumes.remove(id) else {
            return;
        };
        let account = volume.account();
        self.persist(StoreOp::RemoveVolume(*id));
        // Durable as well: a request that a restart left without an answer is repeated.
        self.persist(StoreOp::PutDestroyed(record::Destroyed {
            account,
            volume: *id,
            at_ms: self.now.unix_ms,
        }));
        if let Some(forgotten) = self.volumes.remember_destroyed(account, *id) {
            self.persist(StoreOp::RemoveDestroyed(forgotten));
        }
        self.notify_account(&account, &EventBody::VolumeGone(*id));
    }

    /// No container that has not ended has it mounted.
    pub(super) fn unused(&self, volume: &Volume) -> Result<(), Refusal> {
        const NAMED: usize = 8;
        let used_by = self.containers.with_volume(&volume.id());
        let users: Vec<_> = used_by
            .iter()
            .filter_map(|id| self.containers.get(id))
            .collect();
        if users.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = users
            .iter()
            .take(NAMED)
            .map(|c| {
                let tag = c.info.tag.as_ref();
                tag.map_or_else(|| c.info.id.short(), ToString::to_string)
            })
            .collect();
        let more = match users.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let mounted = format!(
            "volume `{}` is mounted in {}{more}",
            volume.name(),
            names.join(", ")
        );
        // A session's end does not wait for its containers: who asks next should not have to.
        Err(if users.iter().all(|c| c.is_doomed()) {
            Refusal::new(
                RefusalCode::Unavailable,
                format!("{mounted}, which is just being removed; try again shortly"),
            )
        } else {
            Refusal::new(
                RefusalCode::Busy,
                format!("{mounted}. Stop or remove what uses it first"),
            )
        })
    }

    /// The node that a container with these volumes must run on.
    pub(crate) fn node_of_volumes(
        &self,
        caller: &Caller,
        mounts: &[VolumeMount],
        asked: Option<NodeId>,
    ) -> Result<Option<NodeId>, Refusal> {
        let mut node = asked;
        for mount in mounts {
            let found = self.served_volume(caller, &mount.volume)?;
            let (at, name) = (found.kept.node, found.name());
            if let Some(other) = node.filter(|other| *other != at) {
                let name_of = |id| self.nodes.get(id).map_or("?", |node| node.name());
                return Err(refusals::bad(format!(
                    "volume `{name}` is on node `{}`, and the container is to be on `{}`, which was \
                     asked for or has another of its volumes. A container runs where its volumes are",
                    name_of(&at),
                    name_of(&other),
                )));
            }
            node = Some(at);
        }
        Ok(node)
    }

    pub(super) fn volume_now(&self, volume: &Volume) -> Answer {
        Answer::now(ReplyBody::Volume(Box::new(self.volume_info(volume))))
    }

    /// An account's volumes, as its sessions see them.
    pub(crate) fn volumes_of(&self, account: &PublicKey) -> Vec<VolumeInfo> {
        let listed = self.volumes.listed(account);
        listed.into_iter().map(|v| self.volume_info(v)).collect()
    }

    /// The volume as its account sees it.
    pub(crate) fn volume_info(&self, volume: &Volume) -> VolumeInfo {
        let record = &volume.kept.record;
        let node = self.nodes.get(&volume.kept.node);
        VolumeInfo {
            id: record.id,
            node: volume.kept.node,
            created_ms: record.created_ms,
            spec: record.spec.clone(),
            origin: record.origin.clone(),
            state: if node.is_some_and(|node| node.is_up()) {
                volume.state
            } else {
                VolumeState::NodeLost
            },
            used_by: self.containers.with_volume(&record.id),
        }
    }

    /// Tells all sessions of the accounts concerned what changed by this input.
    pub(crate) fn tell_volumes(&mut self) {
        let mut touched = self.volumes.take_touched();
        touched.append(&mut self.containers.take_touched_volumes());
        for id in touched {
            let Some(volume) = self.volumes.get(&id).filter(|v| v.is_made()) else {
                continue;
            };
            let (account, info) = (volume.account(), self.volume_info(volume));
            if self.volumes.tell(&id, &info) {
                self.notify_account(&account, &EventBody::Volume(Box::new(info)));
            }
        }
    }

    fn notify_account(&mut self, account: &PublicKey, body: &EventBody) {
        let sessions: Vec<_> = self
            .sessions
            .all_of(account)
            .map(|session| session.record().id)
            .collect();
        for session in sessions {
            self.notify(&session, body.clone());
        }
    }
}

fn no_pool(what: &str) -> Refusal {
    let text = format!("{what}. `teu doctor` says why; `teu-node run --pool` gives a node one");
    Refusal::new(RefusalCode::NoCapacity, text)
}
