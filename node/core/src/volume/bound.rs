//! How many volumes a node knows.
//!
//! Pure. Two bounds: [`MAX_VOLUMES`] for what is made here, and bytes for what is told, because a report
//! is one message, labels and all. What lies in the pool already (somebody moved volumes there, or an older
//! version made them) is adopted beyond the first bound, or nobody could use or destroy it; not
//! beyond the second, or no report could be sent and the node were lost with all it has. It counts in
//! any case: as long as there are too many, none is made. What is left out is told in a warning.

use teu_protocol::message::{Refusal, RefusalCode, VolumeRecord};

use super::Volumes;

/// Volumes on one node.
pub const MAX_VOLUMES: usize = 4_096;

/// Half of a message (`MAX_MESSAGE_BYTES`): the other half is for containers and layers.
const MAX_TOLD_BYTES: usize = 4 << 20;

/// What a record without labels takes in a message, at most (a test looks).
const RECORD_BYTES: usize = 512;

/// What encoding adds to a label's two texts.
const LABEL_BYTES: usize = 6;

/// What the record takes in a message, at most.
pub(super) fn told_bytes(record: &VolumeRecord) -> usize {
    let labels = record.spec.labels.iter();
    let labels = labels.map(|(name, value)| name.len() + value.len() + LABEL_BYTES);
    RECORD_BYTES + labels.sum::<usize>()
}

impl Volumes {
    /// What all records take in a message, at most.
    fn all_told_bytes(&self) -> usize {
        let all = self.table.values();
        all.map(|volume| told_bytes(&volume.record)).sum()
    }

    /// Whether another one can be made.
    pub(super) fn room_for(&self, record: &VolumeRecord) -> Result<(), Refusal> {
        let message = if self.table.len() >= MAX_VOLUMES {
            format!("the node has {MAX_VOLUMES} volumes; destroy some first")
        } else if self.all_told_bytes() + told_bytes(record) > MAX_TOLD_BYTES {
            "the labels of the node's volumes are too long together; destroy some, or give this one fewer \
             labels"
                .to_owned()
        } else {
            return Ok(());
        };
        Err(Refusal::new(RefusalCode::NoCapacity, message))
    }

    /// How much more can be adopted, in bytes.
    pub(super) fn room_to_adopt(&self) -> usize {
        MAX_TOLD_BYTES.saturating_sub(self.all_told_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use teu_protocol::{
        ids::{PublicKey, Tag, VolumeId},
        limits::MAX_MESSAGE_BYTES,
        message::{
            NodeEvent, NodeVolume, SnapshotSchedule, VolumeOrigin, VolumeSpec, VolumeState, encode,
        },
    };

    use super::*;
    use crate::{
        effect::Effect,
        input::Now,
        volume::{ListedVolume, Volume},
    };

    fn record(number: u32, labels: usize) -> VolumeRecord {
        let mut id = [0xff; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let longest = || Tag::try_from("x".repeat(63)).unwrap();
        let label = |n: usize| (format!("{n:0>256}"), "v".repeat(256));
        VolumeRecord {
            id: VolumeId::from_bytes(id),
            account: PublicKey::from_bytes([0xff; 32]),
            created_ms: u64::MAX,
            spec: VolumeSpec {
                tag: Some(longest()),
                quota_bytes: Some(u64::MAX),
                schedule: Some(SnapshotSchedule {
                    every_s: u64::MAX,
                    keep: u32::MAX,
                }),
                labels: (0..labels).map(label).collect::<BTreeMap<_, _>>(),
            },
            origin: Some(VolumeOrigin {
                volume: VolumeId::from_bytes([0xff; 16]),
                snapshot: longest(),
            }),
        }
    }

    fn listed(count: u32, labels: usize) -> Vec<ListedVolume> {
        let one = |number| {
            let record = record(number, labels);
            ListedVolume {
                id: record.id,
                record: Some(record),
                is_well: true,
                scheduled_ms: None,
            }
        };
        (0..count).map(one).collect()
    }

    fn list(volumes: &mut Volumes, list: Vec<ListedVolume>) -> Vec<String> {
        let mut effects = Vec::new();
        let now = Now {
            steady: Duration::ZERO,
            unix_ms: 0,
        };
        volumes.listed(Some(list), now, &mut effects);
        let warning = |effect| match effect {
            Effect::Tell(NodeEvent::Warning(text)) => Some(text),
            _ => None,
        };
        effects.into_iter().filter_map(warning).collect()
    }

    #[test]
    fn no_record_takes_more_than_is_reckoned() {
        for labels in [0, 1, 64] {
            let record = record(u32::MAX, labels);
            let bound = told_bytes(&record);
            let state = VolumeState::Missing;
            let told = encode(&NodeVolume { record, state }).unwrap();
            assert!(told.len() <= bound, "{labels}: {} > {bound}", told.len());
        }
    }

    #[test]
    fn what_is_there_is_adopted_beyond_what_could_be_made_and_counts() {
        let mut volumes = Volumes::default();
        let more = u32::try_from(MAX_VOLUMES).unwrap() + 1_000;
        assert!(list(&mut volumes, listed(more, 0)).is_empty());
        assert_eq!(volumes.told().unwrap().len(), MAX_VOLUMES + 1_000);
        let refused = volumes.room_for(&record(more, 0)).unwrap_err();
        assert_eq!(refused.code, RefusalCode::NoCapacity);
        // Below the bound again.
        let last = VolumeId::from_bytes(*listed(4_095, 0)[4_094].id.as_bytes());
        volumes.table.retain(|id, _: &mut Volume| *id <= last);
        volumes.room_for(&record(more, 0)).unwrap();
    }

    #[test]
    fn a_report_can_always_be_sent_and_what_is_left_out_is_told_once() {
        let mut volumes = Volumes::default();
        let all = listed(300, 64);
        let warnings = list(&mut volumes, all.clone());
        let adopted = volumes.told().unwrap();
        assert!(adopted.len() < 300 && adopted.len() > 100);
        let left_out = format!("{} volumes", 300 - adopted.len());
        assert!(
            warnings.len() == 1 && warnings[0].contains(&left_out),
            "{warnings:?}"
        );
        assert!(encode(&adopted).unwrap().len() < MAX_MESSAGE_BYTES / 2);
        // The same ones each time, and the same warning only once.
        assert!(list(&mut volumes, all.clone()).is_empty());
        assert_eq!(volumes.told().unwrap(), adopted);
        let refused = volumes.room_for(&record(999, 64)).unwrap_err();
        assert_eq!(refused.code, RefusalCode::NoCapacity);
        // Once there is room, the next ones are adopted.
        list(&mut volumes, all[100..].to_vec());
        volumes
            .table
            .retain(|_, volume| volume.state != VolumeState::Missing);
        assert_eq!(
            list(&mut volumes, all[100..250].to_vec()).len(),
            1,
            "fewer are left out"
        );
        assert!(volumes.told().unwrap().len() > 100);
    }
}
