//! What the pool has, compared with what is known.
//!
//! Owner: [`super::Volumes`]. Invariant: a volume on which a change is under way is left alone: what
//! becomes of it is told by that change's end.

use teu_protocol::{
    ids::VolumeId,
    message::{NodeEvent, VolumeRecord, VolumeState},
};

use super::{Volume, Volumes, bound::told_bytes};
use crate::{effect::Effect, input::Now};

/// A volume as the pool has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedVolume {
    /// Which.
    pub id: VolumeId,
    /// Its record. `None`: it is there and cannot be read.
    pub record: Option<VolumeRecord>,
    /// It can be used.
    pub is_well: bool,
    /// When its newest scheduled snapshot was made, in milliseconds since 1970; only if it has a
    /// schedule.
    pub scheduled_ms: Option<u64>,
}

impl Volumes {
    /// The pool was read, or (`None`) cannot be.
    pub(crate) fn listed(
        &mut self,
        list: Option<Vec<ListedVolume>>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(list) = list else {
            self.readable = false;
            for volume in self.table.values_mut() {
                volume.becomes(VolumeState::Faulted, effects);
            }
            return;
        };
        let was_readable = std::mem::replace(&mut self.readable, true);
        let there: std::collections::BTreeSet<VolumeId> = list.iter().map(|one| one.id).collect();
        for (id, volume) in &mut self.table {
            if !there.contains(id) {
                volume.becomes(VolumeState::Missing, effects);
            }
        }
        let (mut room, mut left_out) = (self.room_to_adopt(), 0);
        for one in list {
            let state = if one.is_well && one.record.is_some() {
                VolumeState::Ready
            } else {
                VolumeState::Faulted
            };
            match (self.table.get_mut(&one.id), one.record) {
                (Some(volume), record) => {
                    if let Some(record) = record
                        && volume.is_idle()
                        && volume.record != record
                    {
                        volume.record = record;
                        volume.tell(effects);
                    }
                    volume.becomes(state, effects);
                    volume.wind(now, one.scheduled_ms);
                }
                (None, Some(record)) => {
                    let Some(rest) = room.checked_sub(told_bytes(&record)) else {
                        left_out += 1;
                        continue;
                    };
                    room = rest;
                    let mut volume = Volume::new(record, state, false);
                    volume.wind(now, one.scheduled_ms);
                    volume.tell(effects);
                    self.table.insert(one.id, volume);
                }
                // Nothing can be said of it, not even whose it is: `doctor` names it.
                (None, None) => {}
            }
        }
        self.tell_left_out(left_out, effects);
        if !was_readable {
            // The master counts nothing as missing until it has heard this.
            effects.push(Effect::Report);
        }
    }

    fn tell_left_out(&mut self, left_out: usize, effects: &mut Vec<Effect>) {
        if left_out > 0 && left_out != self.left_out {
            let message = format!(
                "{left_out} volumes in the node's pool are not shown: it has more than a report can hold; \
                 destroy others, or move some to another node's pool"
            );
            effects.push(Effect::Tell(NodeEvent::Warning(message)));
        }
        self.left_out = left_out;
    }
}

impl Volume {
    fn is_idle(&self) -> bool {
        self.changing.is_none() && !self.making
    }

    fn becomes(&mut self, state: VolumeState, effects: &mut Vec<Effect>) {
        if self.is_idle() && self.state != state {
            self.state = state;
            self.tell(effects);
        }
    }
}
