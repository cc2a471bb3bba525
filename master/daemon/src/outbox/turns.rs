//! Bulk and credit that wait for one peer, by stream.
//!
//! Owner: an [`super::Outbox`]. Invariants: streams take turns, a message each, so a short one never waits
//! for all of a long one; a stream's own messages keep their order; credit for a stream is one sum,
//! however often it was granted.

use std::collections::{HashMap, VecDeque};

use teu_protocol::ids::StreamId;

use super::Item;

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Turns {
    waiting: HashMap<StreamId, VecDeque<Item>>,
    /// Each stream that has something waiting, once.
    order: VecDeque<StreamId>,
    /// The queue of a stream that was emptied last: a lone busy stream needs no new one each time.
    spare: VecDeque<Item>,
}

impl Turns {
    pub(super) fn push(&mut self, stream: StreamId, item: Item) {
        let spare = &mut self.spare;
        let queue = self.waiting.entry(stream).or_insert_with(|| {
            self.order.push_back(stream);
            std::mem::take(spare)
        });
        queue.push_back(item);
    }

    /// The next message, of the stream whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Item> {
        let stream = self.order.pop_front()?;
        let queue = self.waiting.get_mut(&stream)?;
        let item = queue.pop_front();
        if queue.is_empty() {
            self.spare = self.waiting.remove(&stream).unwrap_or_default();
        } else {
            self.order.push_back(stream);
        }
        item
    }
}

/// Credit that waits: at most one sum a stream.
#[derive(Debug, Default)]
pub(super) struct Grants {
    waiting: HashMap<StreamId, u64>,
    order: VecDeque<StreamId>,
}

impl Grants {
    pub(super) fn add(&mut self, stream: StreamId, bytes: u64) {
        let order = &mut self.order;
        let sum = self.waiting.entry(stream).or_insert_with(|| {
            order.push_back(stream);
            0
        });
        *sum = sum.saturating_add(bytes);
    }

    pub(super) fn remove(&mut self, stream: StreamId) {
        if self.waiting.remove(&stream).is_some() {
            self.order.retain(|other| *other != stream);
        }
    }

    pub(super) fn pop(&mut self) -> Option<(StreamId, u64)> {
        let stream = self.order.pop_front()?;
        Some((stream, self.waiting.remove(&stream)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn item(text: u8) -> Item {
        Item::Message(vec![text], Vec::new())
    }

    fn text(item: Option<Item>) -> Option<u8> {
        match item? {
            Item::Message(control, _) => control.first().copied(),
            Item::Command(_) => None,
        }
    }

    #[test]
    fn a_key_press_comes_next_however_much_another_stream_has_waiting() {
        let mut turns = Turns::default();
        for _ in 0..10_000 {
            turns.push(StreamId(1), item(0));
        }
        turns.pop();
        turns.push(StreamId(2), item(7));
        let next: Vec<_> = (0..2).map(|_| text(turns.pop())).collect();
        assert!(next.contains(&Some(7)), "{next:?}");
    }

    #[test]
    fn credit_of_a_stream_is_one_sum() {
        let mut grants = Grants::default();
        for _ in 0..1_000 {
            grants.add(StreamId(1), 1);
            grants.add(StreamId(2), u64::MAX);
        }
        grants.add(StreamId(3), 1);
        grants.remove(StreamId(3));
        assert_eq!(grants.pop(), Some((StreamId(1), 1_000)));
        assert_eq!(grants.pop(), Some((StreamId(2), u64::MAX)));
        assert_eq!(grants.pop(), None);
    }

    proptest! {
        #[test]
        fn each_streams_messages_keep_their_order_and_none_is_lost(
            steps in proptest::collection::vec(proptest::option::of(0..4_u64), 0..300),
        ) {
            let mut turns = Turns::default();
            let mut model: HashMap<u64, VecDeque<u8>> = HashMap::new();
            let mut sent = 0_u8;
            let mut rest = steps.iter().filter(|step| step.is_some()).count();
            for step in steps.into_iter().chain(std::iter::repeat_n(None, 300)) {
                if let Some(stream) = step {
                    sent = sent.wrapping_add(4);
                    // The two lowest bits tell the stream.
                    let marked = sent & !3 | u8::try_from(stream).unwrap();
                    turns.push(StreamId(stream), item(marked));
                    model.entry(stream).or_default().push_back(marked);
                } else if let Some(got) = text(turns.pop()) {
                    let expected = model.get_mut(&u64::from(got & 3)).unwrap().pop_front();
                    prop_assert_eq!(Some(got), expected);
                    rest -= 1;
                }
            }
            prop_assert_eq!(rest, 0);
            prop_assert!(turns.waiting.is_empty());
        }
    }
}
