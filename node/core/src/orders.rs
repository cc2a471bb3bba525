//! Orders have their effect once: what was asked is remembered with its answer.
//!
//! Owner: [`crate::node`]. Invariant: an order that is under way is never forgotten; of answered
//! ones the newest [`REMEMBERED_ANSWERS`] are kept, so memory is bounded.

use std::collections::{HashMap, VecDeque};

use teu_protocol::{
    ids::RequestId,
    message::{NodeReplyBody, Refusal},
};

/// Answers kept for orders that are repeated: a master repeats after a lost link, within seconds;
/// this is several seconds at the fastest rate that a node spawns.
const REMEMBERED_ANSWERS: usize = 2_048;

/// Orders under way. The master bounds each session; this bounds what a broken master can cost.
pub const MAX_PENDING_ORDERS: usize = 8_192;

pub(crate) type Answer = Result<NodeReplyBody, Refusal>;

#[derive(Debug)]
enum Known {
    Pending,
    Answered(Answer),
}

/// What an order is to the node.
#[derive(Debug, PartialEq)]
pub(crate) enum Begin {
    /// New: do it.
    Fresh,
    /// Under way: its answer will come.
    Pending,
    /// Done: this was the answer.
    Answered(Box<Answer>),
    /// Too many are under way.
    Full,
}

#[derive(Debug, Default)]
pub(crate) struct Orders {
    known: HashMap<RequestId, Known>,
    /// Oldest first; exactly the answered ones.
    answered: VecDeque<RequestId>,
}

impl Orders {
    pub(crate) fn begin(&mut self, id: RequestId) -> Begin {
        match self.known.get(&id) {
            Some(Known::Pending) => Begin::Pending,
            Some(Known::Answered(answer)) => Begin::Answered(Box::new(answer.clone())),
            None if self.pending() >= MAX_PENDING_ORDERS => Begin::Full,
            None => {
                self.known.insert(id, Known::Pending);
                Begin::Fresh
            }
        }
    }

    /// Remembers the answer. False: nobody waits for it (it was answered or forgotten).
    pub(crate) fn answer(&mut self, id: RequestId, answer: &Answer) -> bool {
        let Some(known @ Known::Pending) = self.known.get_mut(&id) else {
            return false;
        };
        *known = Known::Answered(answer.clone());
        self.answered.push_back(id);
        if self.answered.len() > REMEMBERED_ANSWERS
            && let Some(oldest) = self.answered.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }

    /// Forgets an order that may be done again (it opened a stream, or only looked).
    pub(crate) fn forget(&mut self, id: RequestId) {
        if let Some(Known::Answered(_)) = self.known.remove(&id) {
            self.answered.retain(|known| *known != id);
        }
    }

    /// The link is lost and all its streams with it: an order to open one may come again.
    pub(crate) fn forget_streams(&mut self) {
        let opened =
            |known: &Known| matches!(known, Known::Answered(Ok(NodeReplyBody::Opened { .. })));
        let known = &mut self.known;
        self.answered
            .retain(|id| !known.get(id).is_some_and(opened));
        known.retain(|_, one| !opened(one));
    }

    pub(crate) fn pending(&self) -> usize {
        self.known.len() - self.answered.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> RequestId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
        RequestId::from_bytes(bytes)
    }

    #[test]
    fn an_order_is_begun_and_answered_once() {
        let mut orders = Orders::default();
        assert_eq!(orders.begin(id(1)), Begin::Fresh);
        assert_eq!(orders.begin(id(1)), Begin::Pending);
        assert!(orders.answer(id(1), &Ok(NodeReplyBody::Done)));
        assert!(!orders.answer(id(1), &Ok(NodeReplyBody::Done)));
        assert_eq!(
            orders.begin(id(1)),
            Begin::Answered(Box::new(Ok(NodeReplyBody::Done)))
        );
        orders.forget(id(1));
        assert_eq!(orders.begin(id(1)), Begin::Fresh);
    }

    #[test]
    fn memory_is_bounded_and_what_is_under_way_stays() {
        let mut orders = Orders::default();
        assert_eq!(orders.begin(id(0)), Begin::Fresh);
        for n in 1..REMEMBERED_ANSWERS * 2 {
            assert_eq!(orders.begin(id(n)), Begin::Fresh);
            assert!(orders.answer(id(n), &Ok(NodeReplyBody::Done)));
        }
        assert_eq!(orders.known.len(), REMEMBERED_ANSWERS + 1);
        assert_eq!(orders.begin(id(0)), Begin::Pending);
        for n in 0..MAX_PENDING_ORDERS - 1 {
            assert_eq!(orders.begin(id(1_000_000 + n)), Begin::Fresh);
        }
        assert_eq!(orders.begin(id(9_000_000)), Begin::Full);
    }
}
