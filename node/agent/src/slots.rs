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

type Answer = oneshot::Sender<Result<WarmSlot, SlotError>>;

#[derive(Debug)]
enum Ask {
    Take(Answer),
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

    /// A slot: at once if one is ready. Dropping the future gives it back.
    ///
    /// # Errors
    /// Why none can be made.
    pub async fn take(&self) -> Result<WarmSlot, SlotError> {
        let (answer, given) = oneshot::channel();
        self.asks
            .send(Ask::Take(answer))
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
    shelf: Shelf<WarmSlot, Answer>,
    maker: SlotMaker,
    epoch: Instant,
}

impl SlotTask {
    async fn run(mut self, mut inbox: mpsc::Receiver<Ask>) {
        let (made_out, mut made) = mpsc::unbounded_channel();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let effects = tokio::select! {
                ask = inbox.recv() => match ask {
                    Some(Ask::Take(answer)) => self.shelf.want(answer, self.epoch.elapsed()),
                    Some(Ask::Close(answer)) => {
                        self.maker.destroy(self.shelf.close()).await;
                        let _ = answer.send(());
                        Vec::new()
                    }
                    None => return,
                },
                Some(outcome) = made.recv() => match outcome {
                    Ok(slot) => self.shelf.made(slot),
                    Err(error) => {
                        self.failed(error);
                        Vec::new()
                    }
                },
                _ = tick.tick() => {
                    self.shelf.forget(oneshot::Sender::is_closed);
                    self.shelf.tick(self.epoch.elapsed())
                }
            };
            self.perform(effects, &made_out);
        }
    }

    fn failed(&mut self, error: SlotError) {
        match self.shelf.failed() {
            Some(answer) => drop(answer.send(Err(error))),
            None => tracing::warn!(
                "a slot could not be prepared: {}",
                crate::link::chain(&error)
            ),
        }
    }

    fn perform(
        &mut self,
        effects: Vec<ShelfEffect<WarmSlot, Answer>>,
        made: &mpsc::UnboundedSender<Result<WarmSlot, SlotError>>,
    ) {
        // Effects of effects: a slot whose taker has gone comes back.
        let mut todo: std::collections::VecDeque<_> = effects.into();
        while let Some(effect) = todo.pop_front() {
            match effect {
                ShelfEffect::Give(slot, answer) => {
                    if let Err(Ok(slot)) = answer.send(Ok(slot)) {
                        todo.push_back(ShelfEffect::Retire(slot));
                    }
                }
                ShelfEffect::Make(count) => {
                    let urgent = self.shelf.waiting() > 0;
                    self.maker.make(count, urgent, made.clone());
                }
                ShelfEffect::Retire(slot) => self.maker.retire(slot),
            }
        }
    }
}
