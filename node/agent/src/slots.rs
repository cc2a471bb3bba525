//! Warm slots: keepers with a network, prepared ahead.
//!
//! ```text
//! take ──▶ [task: Shelf] ──Give──▶ the spawn        Make ──▶ fork keepers ─▶ network.prepare ─▶ made
//! ```
//! Owner: one task owns the shelf; [`SlotsHandle`] asks it. Invariants: a slot that is not given is
//! destroyed, never forgotten; making slots for the shelf waits until a spawn that has just taken
//! one is past its critical milliseconds. Decisions: `teu_node_core::slots`. Next: `maker`, `release`.

mod maker;
mod release;

pub use maker::{SlotError, WarmSlot};
pub use release::NetworkReleaser;

use std::time::Duration;

use teu_node_core::slots::{Shelf, ShelfEffect, SlotLimits};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval},
};

use maker::SlotMaker;

use crate::{launcher::LauncherConfig, sys::net::NetworkHandle};

/// Spawns that may ask at once; more wait to be heard.
const QUEUE: usize = 256;

/// Slots made at the same time: more would only contend for the kernel's network lock.
const BATCH: usize = 8;

/// How often the shelf is looked after.
const TICK: Duration = Duration::from_secs(5);

/// A keeper that lives answers within microseconds; on a busy machine, within this.
const CHECK_PATIENCE: Duration = Duration::from_secs(2);

/// Slots in a row that may turn out dead before whoever wants one learns it: more than a shelf
/// holds after somebody killed all its keepers, few enough that a machine on which every keeper
/// dies is not tried for ever.
const DEAD_MAX: u32 = 64;

/// Somebody who wants a slot.
#[derive(Debug)]
struct Taker {
    answer: oneshot::Sender<Result<WarmSlot, SlotError>>,
    /// Dead slots that were to be this one's.
    dead: u32,
}

/// What became of work that was started beside the task.
#[derive(Debug)]
enum Word {
    Made(Result<WarmSlot, SlotError>),
    /// The taker has a slot whose keeper lives, or went away: then the slot comes back.
    Unwanted(WarmSlot),
    /// The slot was dead.
    Dead(WarmSlot, Taker),
}

#[derive(Debug)]
enum Ask {
    Take(Taker),
    Close(oneshot::Sender<()>),
}

/// Takes slots. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SlotsHandle {
    asks: mpsc::Sender<Ask>,
}

impl SlotsHandle {
    /// Starts the task, which keeps `floor` slots.
    #[must_use]
    pub fn start(
        launcher: LauncherConfig,
        network: NetworkHandle,
        releaser: NetworkReleaser,
        floor: usize,
    ) -> Self {
        let (asks, inbox) = mpsc::channel(QUEUE);
        let limits = SlotLimits {
            floor,
            ceiling: floor.saturating_mul(8),
            batch: BATCH,
        };
        let task = SlotTask {
            shelf: Shelf::new(limits),
            maker: SlotMaker::new(launcher, network, releaser),
            epoch: Instant::now(),
        };
        tokio::spawn(task.run(inbox));
        Self { asks }
    }

    /// A slot whose keeper answers: at once if one is ready. Dropping the future gives it back.
    ///
    /// # Errors
    /// Why none can be made.
    pub async fn take(&self) -> Result<WarmSlot, SlotError> {
        let (answer, given) = oneshot::channel();
        self.asks
            .send(Ask::Take(Taker { answer, dead: 0 }))
            .await
            .map_err(|_| SlotError::Stopped)?;
        given.await.map_err(|_| SlotError::Stopped)?
    }

    /// Destroys what is on the shelf; no more is made.
    pub async fn close(&self) {
        let (answer, closed) = oneshot::channel();
        if self.asks.send(Ask::Close(answer)).await.is_ok() {
            let _ = closed.await;
        }
    }
}

struct SlotTask {
    shelf: Shelf<WarmSlot, Taker>,
    maker: SlotMaker,
    epoch: Instant,
}

impl SlotTask {
    async fn run(mut self, mut inbox: mpsc::Receiver<Ask>) {
        let (words, mut heard) = mpsc::unbounded_channel();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let effects = tokio::select! {
                ask = inbox.recv() => match ask {
                    Some(Ask::Take(taker)) => self.shelf.want(taker, self.epoch.elapsed()),
                    Some(Ask::Close(answer)) => {
                        self.maker.destroy(self.shelf.close()).await;
                        let _ = answer.send(());
                        Vec::new()
                    }
                    None => return,
                },
                Some(word) = heard.recv() => self.heard(word),
                _ = tick.tick() => {
                    self.shelf.forget(|taker| taker.answer.is_closed());
                    self.shelf.tick(self.epoch.elapsed())
                }
            };
            self.perform(effects, &words);
        }
    }

    fn heard(&mut self, word: Word) -> Vec<ShelfEffect<WarmSlot, Taker>> {
        match word {
            Word::Made(Ok(slot)) => self.shelf.made(slot),
            Word::Made(Err(error)) => {
                self.failed(error);
                Vec::new()
            }
            Word::Unwanted(slot) => vec![ShelfEffect::Retire(slot)],
            Word::Dead(slot, mut taker) => {
                tracing::warn!(slot = %slot.net.slot, "a warm slot's keeper does not answer; the next slot is taken");
                let mut effects = vec![ShelfEffect::Retire(slot)];
                taker.dead += 1;
                if taker.dead >= DEAD_MAX {
                    drop(taker.answer.send(Err(SlotError::Dead(DEAD_MAX))));
                } else if !taker.answer.is_closed() {
                    effects.extend(self.shelf.want_next(taker, self.epoch.elapsed()));
                }
                effects
            }
        }
    }

    fn failed(&mut self, error: SlotError) {
        match self.shelf.failed() {
            Some(taker) => drop(taker.answer.send(Err(error))),
            None => tracing::warn!(
                "a slot could not be prepared: {}",
                crate::link::chain(&error)
            ),
        }
    }

    fn perform(
        &mut self,
        effects: Vec<ShelfEffect<WarmSlot, Taker>>,
        words: &mpsc::UnboundedSender<Word>,
    ) {
        for effect in effects {
            match effect {
                ShelfEffect::Give(slot, taker) => {
                    drop(tokio::spawn(give(slot, taker, words.clone())))
                }
                ShelfEffect::Make(count) => {
                    let urgent = self.shelf.waiting() > 0;
                    self.maker.make(count, urgent, words.clone());
                }
                ShelfEffect::Retire(slot) => self.maker.retire(slot),
            }
        }
    }
}

/// Hands a slot over if its keeper answers. Whatever happens, the task hears where the slot stayed.
async fn give(slot: WarmSlot, taker: Taker, words: mpsc::UnboundedSender<Word>) {
    if !slot.keeper.answers(CHECK_PATIENCE).await {
        let _ = words.send(Word::Dead(slot, taker));
    } else if let Err(Ok(slot)) = taker.answer.send(Ok(slot)) {
        let _ = words.send(Word::Unwanted(slot));
    }
}
