//! The core's loop: the one task that owns the [`Core`] and performs its effects.
//!
//! ```text
//!   readers, transfers ──inputs──▶ batch ─▶ Core::handle each ─▶ commit all Persist at once
//!                                                             ─▶ perform the other effects in order
//! ```
//! Owner: the server; everybody else holds a [`BrokerHandle`]. Invariants: no effect that follows a
//! `Persist` is performed before the store has it on disk; effects are performed in the core's order;
//! bulk never comes here. Next: [`perform`].

mod perform;

use std::{collections::HashMap, sync::Arc, time::Instant};

use teu_master_core::{ConnectionId, Core, Effect, Input, record::StoreOp};
use teu_protocol::message::{Initiate, Refusal, RefusalCode};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time,
};
use tokio_util::sync::CancellationToken;

use crate::{
    bounds::{
        CORE_BATCH, CORE_INBOX, LARGE_INPUT_BYTES, LARGE_INPUTS_BYTES, STORE_PATIENCE, SWEEP_EVERY,
        TICK_EVERY,
    },
    clock::Clock,
    failpoints,
    layers::Transfers,
    peer::{Peer, other_side_gone},
    store::{Store, StoreError},
    stream::end_locally,
};

/// Something for the core.
#[derive(Debug)]
struct Wake {
    happening: Happening,
    /// Told when the effects were performed.
    performed: Option<oneshot::Sender<()>>,
    /// Given back when the message was handled.
    room: Room,
}

/// Room for a large message: of its account, and of all. Nothing for a small one.
pub(crate) type Room = [Option<OwnedSemaphorePermit>; 2];

#[derive(Debug)]
enum Happening {
    /// A peer has authenticated: from here on the core may speak to it.
    Arrived(Arc<Peer>, Initiate, [u8; 16]),
    Input(Input),
}

/// Tells the core what happened. Waits while the core is busy; does nothing once it has stopped.
#[derive(Debug, Clone)]
pub(crate) struct BrokerHandle {
    inbox: mpsc::Sender<Wake>,
    large: Arc<Semaphore>,
}

/// The receiving end of a [`BrokerHandle`], for the broker that is made later.
#[derive(Debug)]
pub(crate) struct Inbox(mpsc::Receiver<Wake>);

/// A handle, and what the broker will read.
pub(crate) fn inbox() -> (BrokerHandle, Inbox) {
    let (inbox, receiver) = mpsc::channel(CORE_INBOX);
    let large = Arc::new(Semaphore::new(LARGE_INPUTS_BYTES / LARGE_INPUT_BYTES));
    (BrokerHandle { inbox, large }, Inbox(receiver))
}

impl BrokerHandle {
    /// Tells a small input.
    pub(crate) async fn tell(&self, input: Input) {
        self.send(Happening::Input(input), None, Room::default())
            .await;
    }

    /// Waits for room for a message that takes this much memory.
    pub(crate) async fn large(&self, account: Option<OwnedSemaphorePermit>, bytes: usize) -> Room {
        let units = bytes.min(LARGE_INPUTS_BYTES).div_ceil(LARGE_INPUT_BYTES);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let large = Arc::clone(&self.large);
        [account, large.acquire_many_owned(units).await.ok()]
    }

    /// Tells an input that has room.
    pub(crate) async fn tell_with(&self, input: Input, room: Room) {
        self.send(Happening::Input(input), None, room).await;
    }

    /// Tells an input; the receiver hears when its effects were performed.
    pub(crate) async fn tell_noting(&self, input: Input) -> Option<oneshot::Receiver<()>> {
        let (performed, seen) = oneshot::channel();
        self.send(Happening::Input(input), Some(performed), Room::default())
            .await;
        Some(seen)
    }

    /// Tells an input and waits until its effects were performed.
    pub(crate) async fn tell_and_wait(&self, input: Input) {
        if let Some(seen) = self.tell_noting(input).await {
            // An error means that the broker has stopped.
            let _ = seen.await;
        }
    }

    /// Presents a peer that has authenticated.
    pub(crate) async fn arrived(&self, peer: Arc<Peer>, initiate: Initiate, random: [u8; 16]) {
        let arrived = Happening::Arrived(peer, initiate, random);
        self.send(arrived, None, Room::default()).await;
    }

    async fn send(&self, happening: Happening, performed: Option<oneshot::Sender<()>>, room: Room) {
        // A broker that has stopped needs nothing.
        let _ = self
            .inbox
            .send(Wake {
                happening,
                performed,
                room,
            })
            .await;
    }
}

/// The loop's state.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) core: Core,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) transfers: Transfers,
    pub(crate) clock: Clock,
    pub(crate) peers: HashMap<ConnectionId, Arc<Peer>>,
}

impl Broker {
    /// Runs until `stop`, then says goodbye to every peer. An error: the store cannot be written.
    pub(crate) async fn run(
        mut self,
        Inbox(mut inbox): Inbox,
        stop: CancellationToken,
    ) -> Result<(), StoreError> {
        let mut tick = time::interval(TICK_EVERY);
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut sweep = time::interval(SWEEP_EVERY);
        let mut wakes = Vec::with_capacity(CORE_BATCH);
        let outcome = loop {
            let mut ticked = false;
            tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(()),
                _ = tick.tick() => ticked = true,
                _ = sweep.tick() => self.transfers.cache.sweep(),
                _ = inbox.recv_many(&mut wakes, CORE_BATCH) => {}
            }
            if let Err(error) = self.handle(&mut wakes, ticked).await {
                break Err(error);
            }
        };
        self.say_goodbye();
        outcome
    }

    async fn handle(&mut self, wakes: &mut Vec<Wake>, ticked: bool) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut effects = if ticked {
            self.core.handle(Input::Tick, now)
        } else {
            Vec::new()
        };
        let mut performed = Vec::new();
        let mut gone = Vec::new();
        let mut rooms = Vec::new();
        for wake in wakes.drain(..) {
            let input = match wake.happening {
                Happening::Arrived(peer, initiate, random) => {
                    let (connection, key) = (peer.id, peer.key);
                    self.peers.insert(connection, peer);
                    Input::Connected {
                        connection,
                        key,
                        initiate,
                        random,
                    }
                }
                Happening::Input(input) => input,
            };
            if let Input::Disconnected { connection } = &input {
                gone.push(*connection);
            }
            effects.append(&mut self.core.handle(input, now));
            performed.extend(wake.performed);
            rooms.push(wake.room);
        }
        let mut records = Vec::new();
        effects.retain_mut(|effect| match effect {
            Effect::Persist(record) => {
                records.push(record.clone());
                false
            }
            _ => true,
        });
        if !records.is_empty() {
            let steps = failpoints::of(&records);
            failpoints::before_commit(&steps);
            self.commit(records).await?;
            failpoints::after_commit(&steps);
        }
        for effect in effects {
            self.perform(effect);
        }
        for connection in gone {
            self.forget(connection);
        }
        for waiting in performed {
            // Whoever waited may have given up.
            let _ = waiting.send(());
        }
        Ok(())
    }

    /// Writes the records. One error of the disk is tried again at once, a full disk for a while: it
    /// may be mended.
    async fn commit(&self, records: Vec<StoreOp>) -> Result<(), StoreError> {
        let records: Arc<[StoreOp]> = records.into();
        let since = Instant::now();
        let mut failures = 0u32;
        loop {
            let (store, records) = (Arc::clone(&self.store), Arc::clone(&records));
            let outcome = tokio::task::spawn_blocking(move || store.commit(&records)).await;
            match outcome.unwrap_or(Err(StoreError::Panicked)) {
                Ok(()) if failures == 0 => return Ok(()),
                Ok(()) => {
                    tracing::info!(failures, "the store is written again");
                    return Ok(());
                }
                Err(error) if !error.may_pass() || since.elapsed() >= STORE_PATIENCE => {
                    return Err(error);
                }
                Err(error) if failures == 0 => {
                    let why = teu_daemon::log::chain(&error);
                    tracing::error!(
                        "the store is tried again, for at most {STORE_PATIENCE:?}: {why}"
                    );
                }
                Err(_) => time::sleep(TICK_EVERY).await,
            }
            failures += 1;
        }
    }

    /// The core has heard that a connection is gone; whatever it left open ends now.
    fn forget(&mut self, connection: ConnectionId) {
        let Some(peer) = self.peers.remove(&connection) else {
            return;
        };
        for stream in peer.streams.drain() {
            end_locally(stream, &other_side_gone());
        }
    }

    fn say_goodbye(&self) {
        let reason = Refusal::new(
            RefusalCode::Unavailable,
            "The location's master is stopping. Its containers go on; connect again soon.",
        );
        for peer in self.peers.values() {
            peer.close(reason.clone());
            // Routes and peers hold each other.
            drop(peer.streams.drain());
        }
    }
}
