//! Clients' places at a process: where each stands in its output, and what it gave as input.
//!
//! ```text
//! registered at the start, or by Place ──▶ holds the process back ──▶ released by its client
//!                                             │                     ├─ or its attachment's end
//!                                             └── agent lost ──▶ goes on (one without an owner expires)
//! ```
//! Owner: the process. Invariants: a place with an owner outlives agents and links; input of a place is
//! taken once and without a hole; what an older stream of a place says is not heard.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use teu_protocol::ids::{AttachmentId, ReaderId};

use super::wire::Refusal;

/// A place without an owner counts for this long after its agent went: time for a restart.
const ORPHAN_GRACE: Duration = Duration::from_secs(60);

/// Places at one process: each is one attached client.
pub(super) const PLACES_MAX: usize = 64;

#[derive(Debug)]
struct Place {
    owner: Option<AttachmentId>,
    generation: u64,
    /// `None`: the process does not wait for it.
    cursor: Option<u64>,
    /// Bytes of input that were taken from it.
    input: u64,
    /// Set while no agent is connected that could move it.
    expires: Option<Instant>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Places {
    all: HashMap<ReaderId, Place>,
}

/// Who says something for a place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Speaker {
    pub reader: ReaderId,
    pub generation: u64,
}

impl Places {
    /// A client is at `cursor`; how much of its input was taken is told.
    pub(super) fn place(
        &mut self,
        speaker: Speaker,
        owner: Option<AttachmentId>,
        cursor: Option<u64>,
    ) -> Result<u64, Refusal> {
        let full = self.all.len() >= PLACES_MAX && !self.all.contains_key(&speaker.reader);
        if full {
            return Err(Refusal::TooManyReaders);
        }
        let place = self.all.entry(speaker.reader).or_insert(Place {
            owner,
            generation: 0,
            cursor,
            input: 0,
            expires: None,
        });
        if place.generation > speaker.generation {
            return Err(Refusal::Superseded);
        }
        *place = Place {
            owner: owner.or(place.owner),
            generation: speaker.generation,
            cursor,
            input: place.input,
            expires: None,
        };
        Ok(place.input)
    }

    pub(super) fn release(&mut self, speaker: Speaker) {
        if self.is_current(speaker) {
            self.all.remove(&speaker.reader);
        }
    }

    fn is_current(&self, speaker: Speaker) -> bool {
        let place = self.all.get(&speaker.reader);
        place.is_some_and(|place| place.generation <= speaker.generation)
    }

    pub(super) fn release_owned(&mut self, owner: AttachmentId) {
        self.all.retain(|_, place| place.owner != Some(owner));
    }

    /// Of these bytes, how many are new; 0 is a repetition.
    pub(super) fn fresh(&self, speaker: Speaker, offset: u64, bytes: u64) -> Result<u64, Refusal> {
        let Some(place) = self.all.get(&speaker.reader) else {
            return Err(Refusal::Superseded);
        };
        if place.generation != speaker.generation {
            return Err(Refusal::Superseded);
        }
        if offset > place.input {
            return Err(Refusal::InputMissing {
                expected: place.input,
                offset,
            });
        }
        Ok((offset + bytes).saturating_sub(place.input))
    }

    /// So many bytes of its input were taken; the sum is told.
    pub(super) fn took(&mut self, reader: ReaderId, bytes: u64) -> u64 {
        self.all.get_mut(&reader).map_or(0, |place| {
            place.input += bytes;
            place.input
        })
    }

    /// The place that is furthest behind.
    pub(super) fn slowest(&self) -> Option<u64> {
        self.all.values().filter_map(|place| place.cursor).min()
    }

    /// Attachments that have places.
    pub(super) fn owners(&self) -> Vec<AttachmentId> {
        let mut owners: Vec<_> = self.all.values().filter_map(|place| place.owner).collect();
        owners.sort_unstable();
        owners.dedup();
        owners
    }

    /// The agent went away: what has no owner counts for a while longer.
    pub(super) fn orphan(&mut self) {
        let until = Instant::now() + ORPHAN_GRACE;
        for place in self.all.values_mut().filter(|one| one.owner.is_none()) {
            place.expires.get_or_insert(until);
        }
    }

    /// Forgets what nobody took over; returns when the next one is due.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Instant> {
        self.all
            .retain(|_, place| place.expires.is_none_or(|at| at > now));
        self.all.values().filter_map(|place| place.expires).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: AttachmentId = AttachmentId::from_bytes([9; 16]);

    fn speaker(generation: u64) -> Speaker {
        let reader = ReaderId::from_bytes([1; 16]);
        Speaker { reader, generation }
    }

    #[test]
    fn input_is_taken_once_and_never_past_a_hole() {
        let mut places = Places::default();
        assert_eq!(places.place(speaker(1), Some(OWNER), Some(0)), Ok(0));
        assert_eq!(places.fresh(speaker(1), 0, 10), Ok(10));
        assert_eq!(places.took(speaker(1).reader, 10), 10);
        assert_eq!(places.fresh(speaker(1), 0, 10), Ok(0));
        assert_eq!(places.fresh(speaker(1), 5, 10), Ok(5));
        let hole = Refusal::InputMissing {
            expected: 10,
            offset: 11,
        };
        assert_eq!(places.fresh(speaker(1), 11, 1), Err(hole));
    }

    #[test]
    fn a_newer_stream_fences_the_older_ones() {
        let mut places = Places::default();
        assert_eq!(places.place(speaker(1), Some(OWNER), Some(100)), Ok(0));
        places.took(speaker(1).reader, 7);
        // The client knows where it stands, also if that is before what an older stream sent.
        assert_eq!(places.place(speaker(2), Some(OWNER), Some(50)), Ok(7));
        assert_eq!(places.slowest(), Some(50));
        assert_eq!(
            places.place(speaker(1), Some(OWNER), Some(500)),
            Err(Refusal::Superseded)
        );
        assert_eq!(places.fresh(speaker(1), 7, 1), Err(Refusal::Superseded));
        places.release(speaker(1));
        assert_eq!(places.slowest(), Some(50));
        places.release(speaker(2));
        assert_eq!(places.slowest(), None);
    }

    #[test]
    fn only_places_without_an_owner_expire_and_an_owner_takes_all_of_its_along() {
        let mut places = Places::default();
        places.place(speaker(1), Some(OWNER), Some(0)).unwrap();
        let nobodys = Speaker {
            reader: ReaderId::from_bytes([2; 16]),
            generation: 0,
        };
        places.place(nobodys, None, Some(5)).unwrap();
        places.orphan();
        let due = places.expire(Instant::now()).unwrap();
        assert_eq!(places.expire(due), None);
        assert_eq!(places.slowest(), Some(0), "the client may come back");
        assert_eq!(places.owners(), [OWNER]);
        places.release_owned(OWNER);
        assert_eq!(places.slowest(), None);
    }

    #[test]
    fn there_is_a_most_of_places() {
        let mut places = Places::default();
        for number in 0..=PLACES_MAX as u8 {
            let reader = ReaderId::from_bytes([number; 16]);
            let speaker = Speaker {
                reader,
                generation: 1,
            };
            let placed = places.place(speaker, None, Some(0));
            assert_eq!(placed.is_ok(), usize::from(number) < PLACES_MAX);
        }
    }
}
