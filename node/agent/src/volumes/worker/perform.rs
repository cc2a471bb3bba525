//! The orders, one by one.
//!
//! Owner: the worker. Invariants: an answer is returned after what it says is durable; an order that
//! comes again after an agent was killed, between any two lines here, ends as if it came once.

use std::{fs, os::unix::fs::MetadataExt, time::Instant};

use teu_node_core::volume::{VolumeDone, VolumeWork, Work};
use teu_protocol::{
    ids::{RequestId, Tag, VolumeId},
    message::{
        NodeReplyBody, NodeVolume, Refusal, RefusalCode, SCHEDULED_PREFIX, VolumeOrder,
        VolumeRecord, VolumeState, decode, encode,
    },
};

use super::{Job, Recovery, Worker, refuse_pool};
use crate::{
    containers::refuse_internal,
    link::chain,
    volumes::pool::{Pool, PoolError, StoredVolume},
};

impl Worker {
    pub(super) fn perform(&mut self, pool: &dyn Pool, mut job: Job) -> Result<VolumeDone, Refusal> {
        let placeholder = Work::Scheduled {
            name: String::from("none").try_into().map_err(|_| defect())?,
            keep: 0,
        };
        match std::mem::replace(&mut job.work.work, placeholder) {
            Work::Scheduled { name, keep } => scheduled(pool, &job.work, &name, keep),
            Work::Order { request, order } => self.order(pool, request, &order, job),
        }
    }

    fn order(
        &mut self,
        pool: &dyn Pool,
        request: RequestId,
        order: &VolumeOrder,
        job: Job,
    ) -> Result<VolumeDone, Refusal> {
        let refuse = |error: PoolError| refuse_pool(&error);
        match order {
            VolumeOrder::Create(record) => {
                if let Some(known) = job.work.record {
                    return Ok(told(known));
                }
                let bytes = encoded(record)?;
                pool.create(record.id, &bytes, record.spec.quota_bytes)
                    .map_err(refuse)?;
                fail::fail_point!("volume-create-made");
                own(pool, record.id, job.uid_base)?;
                fail::fail_point!("volume-create-answer");
                Ok(told(record.clone()))
            }
            VolumeOrder::Clone(record) => {
                if let Some(known) = job.work.record {
                    return Ok(told(known));
                }
                let origin = record.origin.as_ref().ok_or_else(defect)?;
                let bytes = encoded(record)?;
                let from = (origin.volume, &origin.snapshot);
                pool.clone_from(from, record.id, &bytes, record.spec.quota_bytes)
                    .map_err(refuse)?;
                fail::fail_point!("volume-clone-answer");
                Ok(told(record.clone()))
            }
            VolumeOrder::Destroy(id) => {
                pool.destroy(*id).map_err(refuse)?;
                self.recovery.once_quiet(Instant::now());
                fail::fail_point!("volume-destroy-answer");
                Ok(VolumeDone::done())
            }
            VolumeOrder::Snapshots(id) => {
                let all = pool.snapshots(*id).map_err(refuse)?;
                Ok(reply(NodeReplyBody::Snapshots(all)))
            }
            VolumeOrder::Usage(id) => {
                let usage = pool.usage(*id).map_err(refuse)?;
                Ok(reply(NodeReplyBody::VolumeUsage(usage)))
            }
            VolumeOrder::Snapshot { volume, name } => {
                let again = self.was_done(request)?;
                self.keep(request)?;
                fail::fail_point!("volume-snapshot-begun");
                match pool.snapshot(*volume, name) {
                    Err(PoolError::SnapshotExists(_)) if again => {}
                    Err(error) => {
                        self.take_back(request);
                        return Err(refuse(error));
                    }
                    Ok(()) => {}
                }
                fail::fail_point!("volume-snapshot-answer");
                Ok(VolumeDone::done())
            }
            VolumeOrder::DestroySnapshot { volume, name } => {
                let again = self.was_done(request)?;
                self.keep(request)?;
                fail::fail_point!("volume-destroy-snapshot-begun");
                match pool.destroy_snapshot(*volume, name) {
                    Err(PoolError::NoSnapshot(_)) if again => {}
                    gone => gone.map_err(refuse)?,
                }
                fail::fail_point!("volume-destroy-snapshot-answer");
                Ok(VolumeDone::done())
            }
            VolumeOrder::RollBack(roll_back) => self.roll_back(pool, request, roll_back, job),
            VolumeOrder::SetQuota {
                volume,
                quota_bytes,
            } => {
                let mut record = job.work.record.ok_or_else(|| gone(*volume))?;
                let recovery = self.recovery;
                record.spec.quota_bytes = *quota_bytes;
                let bytes = encoded(&record)?;
                // Until both are changed, the record is what counts: recovery sees to that.
                self.keep(quota_mark(*volume))?;
                self.recovery = Recovery::First;
                pool.set_quota(*volume, *quota_bytes).map_err(refuse)?;
                fail::fail_point!("volume-quota-made");
                pool.set_record(*volume, &bytes).map_err(refuse)?;
                self.recovery = recovery;
                self.take_back(quota_mark(*volume));
                Ok(told(record))
            }
            VolumeOrder::SetSchedule { volume, schedule } => {
                let mut record = job.work.record.ok_or_else(|| gone(*volume))?;
                record.spec.schedule = *schedule;
                pool.set_record(*volume, &encoded(&record)?)
                    .map_err(refuse)?;
                Ok(told(record))
            }
            // Streams have tasks of their own: `volumes::transfer`.
            VolumeOrder::Export { .. } | VolumeOrder::Import { .. } => Err(defect()),
        }
    }

    /// Ends what is half done of a change of a quota: the bound is what the record says; or, if the volume
    /// has outgrown that meanwhile and its pool does not take it back, what the pool has.
    pub(super) fn settle_quotas(&mut self, pool: &dyn Pool) -> Result<(), PoolError> {
        for StoredVolume { id, record } in pool.volumes()? {
            let mark = quota_mark(id);
            // A journal that cannot be read keeps no order from being done; it is told there.
            if !self.journal.has(mark).unwrap_or_default() {
                continue;
            }
            let record = record.and_then(|bytes| decode::<VolumeRecord>(&bytes).ok());
            if let Some(mut record) = record {
                match pool.set_quota(id, record.spec.quota_bytes) {
                    Err(PoolError::QuotaTooSmall) => {
                        record.spec.quota_bytes = pool.usage(id)?.quota_bytes;
                        let bytes = encode(&record).map_err(|_| PoolError::QuotaTooSmall)?;
                        pool.set_record(id, &bytes)?;
                    }
                    // It is out of order by itself; the others are not kept from their work.
                    Err(PoolError::NoVolume(_)) => {}
                    done => done?,
                }
            }
            self.take_back(mark);
        }
        Ok(())
    }

    /// Whether this very order was begun (or, a roll-back, done) by an earlier agent.
    pub(super) fn was_done(&mut self, request: RequestId) -> Result<bool, Refusal> {
        let has = self.journal.has(request);
        has.map_err(|error| refuse_internal("the journal of volumes cannot be read", &error))
    }

    fn take_back(&mut self, request: RequestId) {
        if let Err(error) = self.journal.take_back(request) {
            tracing::warn!("the journal of volumes: {error}");
        }
    }

    pub(super) fn keep(&mut self, request: RequestId) -> Result<(), Refusal> {
        let kept = self.journal.keep(request);
        kept.map_err(|error| refuse_internal("the journal of volumes cannot be written", &error))
    }
}

/// In the journal while the volume's quota is being changed. No order has such an id: those of volumes
/// are derived, those of orders are random.
const fn quota_mark(volume: VolumeId) -> RequestId {
    RequestId::from_bytes(*volume.as_bytes())
}

fn reply(reply: NodeReplyBody) -> VolumeDone {
    VolumeDone {
        reply,
        record: None,
    }
}

/// A volume that is well, with its record.
fn told(record: VolumeRecord) -> VolumeDone {
    VolumeDone {
        reply: NodeReplyBody::Volume(Box::new(NodeVolume {
            record: record.clone(),
            state: VolumeState::Ready,
        })),
        record: Some(record),
    }
}

fn gone(id: VolumeId) -> Refusal {
    refuse_pool(&PoolError::NoVolume(id))
}

fn defect() -> Refusal {
    let message = "the node's volume worker was given what it cannot do (a defect of TEU)";
    Refusal::new(RefusalCode::Internal, message)
}

pub(in crate::volumes) fn encoded(record: &VolumeRecord) -> Result<Vec<u8>, Refusal> {
    encode(record).map_err(|error| refuse_internal("the volume's record cannot be kept", &error))
}

/// Where mounts cannot map owners, a new tree belongs to the account's root. One that has an owner
/// already keeps it.
fn own(pool: &dyn Pool, id: VolumeId, uid_base: u32) -> Result<(), Refusal> {
    if pool.maps_owners() {
        return Ok(());
    }
    let tree = pool.tree(id).map_err(|error| refuse_pool(&error))?;
    let owned = fs::metadata(&tree).and_then(|meta| {
        if meta.uid() != 0 {
            return Ok(());
        }
        std::os::unix::fs::chown(&tree, Some(uid_base), Some(uid_base))?;
        fs::File::open(&tree)?.sync_all()
    });
    owned.map_err(|error| refuse_internal("the volume cannot be given to its account", &error))
}

fn scheduled(
    pool: &dyn Pool,
    work: &VolumeWork,
    name: &Tag,
    keep: u32,
) -> Result<VolumeDone, Refusal> {
    let id = work.volume;
    match pool.snapshot(id, name) {
        Err(PoolError::SnapshotExists(_)) => {}
        made => made.map_err(|error| refuse_pool(&error))?,
    }
    fail::fail_point!("volume-schedule-made");
    let all = pool.snapshots(id).map_err(|error| refuse_pool(&error))?;
    let scheduled: Vec<Tag> = all
        .into_iter()
        .map(|one| one.name)
        .filter(|name| name.as_str().starts_with(SCHEDULED_PREFIX))
        .collect();
    let keep = usize::try_from(keep).unwrap_or(usize::MAX);
    let surplus = scheduled.len().saturating_sub(keep);
    for name in scheduled.iter().take(surplus) {
        if work.held.contains(name) {
            continue;
        }
        match pool.destroy_snapshot(id, name) {
            Ok(()) | Err(PoolError::NoSnapshot(_)) => {}
            // It goes the next time.
            Err(error) => tracing::warn!("an old snapshot stays: {}", chain(&error)),
        }
    }
    Ok(VolumeDone::done())
}
