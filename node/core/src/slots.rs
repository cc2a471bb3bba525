//! Warm slots: how many sandboxes to keep prepared ahead, and who gets the next one.
//!
//! ```text
//! want ──(one is ready)──▶ given            more wants than ready: the target doubles (bounded)
//!   └──(none)──▶ waits ──ready──▶ given     quiet for a while: it halves down to the floor
//! ```
//! Owner: the agent's slot task, which makes and retires slots. Invariants: whoever waits is served
//! first come first served and before the shelf is filled; slots under way and on the shelf never
//! exceed target plus waiting.

use std::{collections::VecDeque, time::Duration};

/// How many slots to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotLimits {
    /// On the shelf when nothing happens.
    pub floor: usize,
    /// On the shelf at most, after bursts.
    pub ceiling: usize,
    /// Made at the same time.
    pub batch: usize,
}

/// After this long without a want the target halves.
const QUIET: Duration = Duration::from_secs(5);

/// The pool's book: `S` is a prepared slot, `W` somebody who wants one.
#[derive(Debug)]
pub struct Shelf<S, W> {
    limits: SlotLimits,
    target: usize,
    ready: VecDeque<S>,
    waiting: VecDeque<W>,
    making: usize,
    last_want: Duration,
    closed: bool,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum ShelfEffect<S, W> {
    /// Give this slot to that one.
    Give(S, W),
    /// Make this many.
    Make(usize),
    /// One too many.
    Retire(S),
}

impl<S, W> Shelf<S, W> {
    /// An empty shelf; [`Self::refill`] says what to make first.
    #[must_use]
    pub fn new(limits: SlotLimits) -> Self {
        Self {
            limits,
            target: limits.floor,
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
            making: 0,
            last_want: Duration::ZERO,
            closed: false,
        }
    }

    /// Somebody wants a slot.
    pub fn want(&mut self, who: W, now: Duration) -> Vec<ShelfEffect<S, W>> {
        self.last_want = now;
        let mut effects = Vec::new();
        if let Some(slot) = self.ready.pop_front() {
            effects.push(ShelfEffect::Give(slot, who));
        } else {
            self.waiting.push_back(who);
            self.target = (self.target * 2).clamp(1, self.limits.ceiling.max(1));
        }
        effects.extend(self.refill());
        effects
    }

    /// Whoever was given a slot that turned out dead: the next one is theirs, before those who
    /// came later.
    pub fn want_next(&mut self, who: W, now: Duration) -> Vec<ShelfEffect<S, W>> {
        self.last_want = now;
        let mut effects = Vec::new();
        match self.ready.pop_front() {
            Some(slot) => effects.push(ShelfEffect::Give(slot, who)),
            None => self.waiting.push_front(who),
        }
        effects.extend(self.refill());
        effects
    }

    /// A slot that was ordered is prepared.
    pub fn made(&mut self, slot: S) -> Vec<ShelfEffect<S, W>> {
        self.making = self.making.saturating_sub(1);
        let mut effects = Vec::new();
        match self.waiting.pop_front() {
            Some(who) => effects.push(ShelfEffect::Give(slot, who)),
            None if self.closed || self.ready.len() >= self.target => {
                effects.push(ShelfEffect::Retire(slot));
            }
            None => self.ready.push_back(slot),
        }
        effects.extend(self.refill());
        effects
    }

    /// A slot that was ordered could not be prepared. Whoever waits longest learns it (so that
    /// a broken machine is not tried for ever); the shelf is not filled again until the next want
    /// or tick.
    pub fn failed(&mut self) -> Option<W> {
        self.making = self.making.saturating_sub(1);
        self.waiting.pop_front()
    }

    /// Somebody gave up waiting.
    pub fn forget(&mut self, gave_up: impl Fn(&W) -> bool) {
        self.waiting.retain(|who| !gave_up(who));
    }

    /// Now and then: shrinks after quiet times, fills up after failures.
    pub fn tick(&mut self, now: Duration) -> Vec<ShelfEffect<S, W>> {
        if now.saturating_sub(self.last_want) >= QUIET && self.target > self.limits.floor {
            self.target = (self.target / 2).max(self.limits.floor);
            self.last_want = now;
        }
        let mut effects = Vec::new();
        while self.ready.len() > self.target
            && let Some(slot) = self.ready.pop_back()
        {
            effects.push(ShelfEffect::Retire(slot));
        }
        effects.extend(self.refill());
        effects
    }

    /// No more slots are made but for those who wait.
    pub fn close(&mut self) -> Vec<S> {
        self.closed = true;
        self.target = 0;
        self.ready.drain(..).collect()
    }

    /// What is missing, at most a batch at a time.
    pub fn refill(&mut self) -> Option<ShelfEffect<S, W>> {
        let wanted = if self.closed { 0 } else { self.target } + self.waiting.len();
        let missing = wanted.saturating_sub(self.ready.len() + self.making);
        let now = missing.min(self.limits.batch.saturating_sub(self.making));
        if now == 0 {
            return None;
        }
        self.making += now;
        Some(ShelfEffect::Make(now))
    }

    /// How many wait for one.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Slots on the shelf.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.ready.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: SlotLimits = SlotLimits {
        floor: 2,
        ceiling: 8,
        batch: 3,
    };

    #[derive(Debug, Clone)]
    enum Step {
        Want,
        Made,
        Failed,
        Tick(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => Just(Step::Want),
            4 => Just(Step::Made),
            1 => Just(Step::Failed),
            1 => (0..60_u64).prop_map(Step::Tick),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn whoever_wants_a_slot_gets_one_or_learns_why(steps in steps()) {
            let mut shelf: Shelf<u32, u32> = Shelf::new(LIMITS);
            let (mut making, mut next, mut now) = (0, 0, 0);
            let (mut wanted, mut served) = (Vec::new(), Vec::new());
            let mut todo: Vec<_> = shelf.refill().into_iter().collect();
            let take = |todo: Vec<ShelfEffect<u32, u32>>, served: &mut Vec<u32>, making: &mut usize| {
                for effect in todo {
                    match effect {
                        ShelfEffect::Give(_, who) => served.push(who),
                        ShelfEffect::Make(count) => *making += count,
                        ShelfEffect::Retire(_) => {}
                    }
                }
            };
            for step in steps {
                take(std::mem::take(&mut todo), &mut served, &mut making);
                prop_assert!(making <= LIMITS.batch);
                prop_assert!(shelf.ready() <= LIMITS.ceiling);
                match step {
                    Step::Want => {
                        wanted.push(next);
                        todo = shelf.want(next, Duration::from_secs(now));
                        next += 1;
                    }
                    Step::Made if making > 0 => {
                        making -= 1;
                        todo = shelf.made(0);
                    }
                    Step::Failed if making > 0 => {
                        making -= 1;
                        served.extend(shelf.failed());
                    }
                    Step::Tick(later) => {
                        now += later;
                        todo = shelf.tick(Duration::from_secs(now));
                    }
                    Step::Made | Step::Failed => {}
                }
            }
            // Machines that work again serve everybody, in order.
            for _ in 0..1_000 {
                take(std::mem::take(&mut todo), &mut served, &mut making);
                if making > 0 {
                    making -= 1;
                    todo = shelf.made(0);
                } else {
                    now += 100;
                    todo = shelf.tick(Duration::from_secs(now));
                }
            }
            prop_assert_eq!(served, wanted);
            prop_assert_eq!(shelf.ready(), LIMITS.floor);
        }
    }

    #[test]
    fn bursts_grow_the_shelf_and_quiet_shrinks_it() {
        let mut shelf: Shelf<u32, u32> = Shelf::new(LIMITS);
        assert_eq!(shelf.refill(), Some(ShelfEffect::Make(2)));
        assert_eq!(shelf.made(1), []);
        assert_eq!(
            shelf.want(7, Duration::ZERO),
            [ShelfEffect::Give(1, 7), ShelfEffect::Make(1)]
        );
        assert_eq!(
            shelf.want(8, Duration::ZERO),
            [ShelfEffect::Make(1)],
            "the target is 4 now"
        );
        assert_eq!(
            shelf.made(2),
            [ShelfEffect::Give(2, 8), ShelfEffect::Make(1)]
        );
        for slot in 3..7 {
            shelf.made(slot);
        }
        assert_eq!(shelf.ready(), 4);
        let retired = shelf.tick(QUIET);
        assert_eq!(retired, [ShelfEffect::Retire(6), ShelfEffect::Retire(5)]);
    }
}
