//! Bounds of what can be asked of a volume.
//!
//! Pure tables. Invariant: what passes here needs no further look at its numbers and names.

use teu_protocol::{
    ids::Tag,
    message::{Refusal, RefusalCode, SCHEDULED_PREFIX, SnapshotSchedule, VolumeOrder, VolumeSpec},
};

/// Below this no file system's own bookkeeping fits.
const MIN_QUOTA_BYTES: u64 = 1 << 20;

/// A schedule's shortest period.
const MIN_EVERY_S: u64 = 10;

/// A schedule's longest period: a hundred years; times stay far from overflow.
const MAX_EVERY_S: u64 = 100 * 366 * 86_400;

const MAX_KEEP: u32 = 1_000;
const MAX_LABELS: usize = 64;
const MAX_LABEL_BYTES: usize = 256;

/// Checks an order's own words.
pub(super) fn check(order: &VolumeOrder) -> Result<(), Refusal> {
    match order {
        VolumeOrder::Create(record) => check_spec(&record.spec),
        VolumeOrder::Clone(record) => {
            if record.origin.is_none() {
                return Err(bad("a clone needs a snapshot that it is made of"));
            }
            check_spec(&record.spec)
        }
        VolumeOrder::Import { record, into, .. } if !into => check_spec(&record.spec),
        VolumeOrder::Snapshot { name, .. } => check_name(name),
        VolumeOrder::SetQuota { quota_bytes, .. } => check_quota(*quota_bytes),
        VolumeOrder::SetSchedule { schedule, .. } => check_schedule(schedule.as_ref()),
        VolumeOrder::Export { snapshot, base, .. } if base.as_ref() == Some(snapshot) => Err(bad(
            "a snapshot cannot be exported as a change since itself; name an older one as base",
        )),
        VolumeOrder::Import { .. }
        | VolumeOrder::Export { .. }
        | VolumeOrder::Destroy(_)
        | VolumeOrder::Snapshots(_)
        | VolumeOrder::DestroySnapshot { .. }
        | VolumeOrder::RollBack(_)
        | VolumeOrder::Usage(_) => Ok(()),
    }
}

fn bad(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalCode::BadRequest, message)
}

fn check_spec(spec: &VolumeSpec) -> Result<(), Refusal> {
    check_quota(spec.quota_bytes)?;
    check_schedule(spec.schedule.as_ref())?;
    let fits = |text: &String| text.len() <= MAX_LABEL_BYTES;
    let labels = &spec.labels;
    if labels.len() > MAX_LABELS || !labels.iter().all(|(name, value)| fits(name) && fits(value)) {
        return Err(bad(format!(
            "a volume may have {MAX_LABELS} labels of at most {MAX_LABEL_BYTES} bytes"
        )));
    }
    Ok(())
}

fn check_name(name: &Tag) -> Result<(), Refusal> {
    if name.as_str().starts_with(SCHEDULED_PREFIX) {
        return Err(bad(format!(
            "names that begin with `{SCHEDULED_PREFIX}` are for scheduled snapshots; use another"
        )));
    }
    Ok(())
}

fn check_quota(bytes: Option<u64>) -> Result<(), Refusal> {
    if bytes.is_some_and(|bytes| bytes < MIN_QUOTA_BYTES) {
        return Err(bad(
            "a quota below 1 MiB holds nothing; give at least 1 MiB",
        ));
    }
    Ok(())
}

fn check_schedule(schedule: Option<&SnapshotSchedule>) -> Result<(), Refusal> {
    let Some(schedule) = schedule else {
        return Ok(());
    };
    if !(MIN_EVERY_S..=MAX_EVERY_S).contains(&schedule.every_s) {
        return Err(bad(format!(
            "scheduled snapshots are made every {MIN_EVERY_S} seconds or less often"
        )));
    }
    if !(1..=MAX_KEEP).contains(&schedule.keep) {
        return Err(bad(format!(
            "of scheduled snapshots 1 to {MAX_KEEP} are kept"
        )));
    }
    Ok(())
}
