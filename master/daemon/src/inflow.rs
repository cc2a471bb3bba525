//! Memory for what clients have sent and the master has not taken in yet: unfinished messages, and
//! whole ones that wait for the core.
//!
//! ```text
//!   read ─▶ Share::hold ─▶ account within its bound? ── yes ─▶ read on
//!                │                    └─ no ─▶ only the account's oldest message is read on
//!                └─▶ all accounts above their bound: the account that holds most loses its oldest
//! ```
//! Owner: the server; each client's connection holds a [`Share`] and gives it back when dropped.
//! Invariants: all clients together hold at most [`ALL_UNFINISHED_BYTES`] and one read each; whatever an
//! account does, an account that holds less is neither evicted nor made to wait. Within an account the
//! oldest message is always read on, so waiting cannot last; one that stalls meanwhile is closed.
//! Nodes hold no share: they are enrolled one by one, and each may hold one message.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use teu_protocol::ids::PublicKey;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::bounds::{
    ACCOUNT_LARGE_INPUTS_BYTES, ACCOUNT_UNFINISHED_BYTES, ALL_UNFINISHED_BYTES, LARGE_INPUT_BYTES,
    READ_MIN_BYTES, UNFINISHED_PATIENCE,
};

/// What may be held; the defaults are those of [`crate::bounds`].
#[derive(Debug, Clone, Copy)]
struct Bounds {
    all: usize,
    account: usize,
}

/// What all clients' connections hold.
#[derive(Debug)]
pub(crate) struct Inflow {
    bounds: Bounds,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bytes: usize,
    /// The most since it was last asked.
    peak: usize,
    accounts: HashMap<PublicKey, Account>,
    /// Numbers the messages in the order in which they began.
    begun: u64,
}

#[derive(Debug)]
struct Account {
    shares: usize,
    bytes: usize,
    /// Oldest first.
    unfinished: BTreeMap<u64, Unfinished>,
    changed: Arc<Notify>,
    large: Arc<Semaphore>,
}

#[derive(Debug)]
struct Unfinished {
    bytes: usize,
    since: Instant,
    evicted: CancellationToken,
}

impl Inflow {
    pub(crate) fn new() -> Arc<Self> {
        Self::bounded(Bounds {
            all: ALL_UNFINISHED_BYTES,
            account: ACCOUNT_UNFINISHED_BYTES,
        })
    }

    fn bounded(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            bounds,
            state: Mutex::default(),
        })
    }

    /// A connection's share, of nothing yet.
    pub(crate) fn share(self: &Arc<Self>, account: PublicKey) -> Share {
        let mut state = self.lock();
        let entry = state.accounts.entry(account).or_insert_with(|| Account {
            shares: 0,
            bytes: 0,
            unfinished: BTreeMap::new(),
            changed: Arc::new(Notify::new()),
            large: Arc::new(Semaphore::new(
                ACCOUNT_LARGE_INPUTS_BYTES / LARGE_INPUT_BYTES,
            )),
        });
        entry.shares += 1;
        let (changed, large) = (Arc::clone(&entry.changed), Arc::clone(&entry.large));
        drop(state);
        Share {
            inflow: Arc::clone(self),
            account,
            number: None,
            evicted: CancellationToken::new(),
            changed,
            large,
        }
    }

    /// Bytes that are held now, and the most that were held since this was asked last.
    pub(crate) fn bytes_and_peak(&self) -> (usize, usize) {
        let mut state = self.lock();
        let bytes = state.bytes;
        (bytes, std::mem::replace(&mut state.peak, bytes))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Sets what a message holds; 0 forgets it.
    fn set(&mut self, key: &PublicKey, number: u64, bytes: usize, evicted: &CancellationToken) {
        let Some(account) = self.accounts.get_mut(key) else {
            return;
        };
        let before = if bytes == 0 {
            account
                .unfinished
                .remove(&number)
                .map_or(0, |one| one.bytes)
        } else {
            let one = account
                .unfinished
                .entry(number)
                .or_insert_with(|| Unfinished {
                    bytes: 0,
                    since: Instant::now(),
                    evicted: evicted.clone(),
                });
            std::mem::replace(&mut one.bytes, bytes)
        };
        account.bytes = account.bytes + bytes - before;
        self.bytes = self.bytes + bytes - before;
        self.peak = self.peak.max(self.bytes);
        if bytes < before {
            account.changed.notify_waiters();
        }
    }

    /// Closes the oldest messages of who holds most, until all is within the bound.
    fn evict_above(&mut self, bound: usize) {
        while self.bytes > bound {
            let largest = self
                .accounts
                .iter()
                .max_by_key(|(_, account)| account.bytes);
            let Some((key, oldest)) = largest.and_then(|(key, account)| {
                let (number, one) = account.unfinished.first_key_value()?;
                Some((*key, (*number, one.evicted.clone())))
            }) else {
                return;
            };
            tracing::info!(
                account = %key,
                "closed a connection: its account holds most of the memory for unfinished messages"
            );
            oldest.1.cancel();
            self.set(&key, oldest.0, 0, &oldest.1);
        }
    }
}

/// What one connection holds.
#[derive(Debug)]
pub(crate) struct Share {
    inflow: Arc<Inflow>,
    account: PublicKey,
    /// The message that is unfinished, if it holds enough to be counted.
    number: Option<u64>,
    evicted: CancellationToken,
    changed: Arc<Notify>,
    large: Arc<Semaphore>,
}

impl Share {
    /// The connection holds this many bytes; `another`: of a message that began since the last call.
    /// What one small read brings is not counted: the number of connections bounds it.
    pub(crate) fn hold(&mut self, bytes: usize, another: bool) {
        if bytes <= READ_MIN_BYTES && self.number.is_none() {
            return;
        }
        let bytes = if bytes <= READ_MIN_BYTES { 0 } else { bytes };
        let mut state = self.inflow.lock();
        if (another || bytes == 0)
            && let Some(number) = self.number.take()
        {
            state.set(&self.account, number, 0, &self.evicted);
        }
        if bytes == 0 {
            return;
        }
        let number = *self.number.get_or_insert_with(|| {
            state.begun += 1;
            state.begun
        });
        state.set(&self.account, number, bytes, &self.evicted);
        state.evict_above(self.inflow.bounds.all);
    }

    /// Cancelled when the connection has to make room for others.
    pub(crate) fn evicted(&self) -> &CancellationToken {
        &self.evicted
    }

    /// Whether the account is above its bound: whoever reads nevertheless should read little.
    pub(crate) fn is_crowded(&self) -> bool {
        self.with_account(|account| account.bytes > self.inflow.bounds.account)
    }

    /// Whether the connection may read on.
    pub(crate) fn may_read(&self) -> bool {
        let Some(number) = self.number else {
            return true;
        };
        self.with_account(|account| {
            account.bytes <= self.inflow.bounds.account
                || account
                    .unfinished
                    .first_key_value()
                    .map(|(first, _)| *first)
                    == Some(number)
        })
    }

    /// Waits until the connection may read on.
    pub(crate) async fn room(&self) {
        loop {
            let changed = self.changed.notified();
            if self.may_read() {
                return;
            }
            changed.await;
        }
    }

    /// Whether other messages of the account wait for this one, which has had its time.
    pub(crate) fn holds_others_up(&self) -> bool {
        self.number.is_some()
            && self.is_crowded()
            && self.with_account(|account| {
                let first = account.unfinished.first_key_value();
                first.is_some_and(|(number, one)| {
                    Some(*number) == self.number && one.since.elapsed() >= UNFINISHED_PATIENCE
                })
            })
    }

    /// Room for a large message of this account among those that wait for the core.
    pub(crate) async fn large(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = bytes
            .min(ACCOUNT_LARGE_INPUTS_BYTES)
            .div_ceil(LARGE_INPUT_BYTES);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let large = Arc::clone(&self.large);
        large.acquire_many_owned(units).await.ok()
    }

    fn with_account(&self, ask: impl FnOnce(&Account) -> bool) -> bool {
        self.inflow
            .lock()
            .accounts
            .get(&self.account)
            .is_some_and(ask)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.inflow.lock();
        if let Some(number) = self.number {
            state.set(&self.account, number, 0, &self.evicted);
        }
        if let Some(account) = state.accounts.get_mut(&self.account) {
            account.shares -= 1;
            if account.shares == 0 {
                state.accounts.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;
    const BOUNDS: Bounds = Bounds {
        all: 100 * KIB,
        account: 50 * KIB,
    };

    fn account(byte: u8) -> PublicKey {
        PublicKey::from_bytes([byte; 32])
    }

    #[test]
    fn only_the_oldest_message_of_a_crowded_account_is_read_on() {
        let inflow = Inflow::bounded(BOUNDS);
        let mut shares: Vec<_> = (0..3).map(|_| inflow.share(account(1))).collect();
        for share in &mut shares {
            share.hold(20 * KIB, false);
        }
        let may: Vec<_> = shares.iter().map(Share::may_read).collect();
        assert_eq!(may, [true, false, false]);
        assert!(inflow.share(account(1)).may_read(), "it holds nothing yet");
        assert!(inflow.share(account(1)).is_crowded());
        assert!(!inflow.share(account(2)).is_crowded(), "another account");
        shares[0].hold(0, true);
        assert!(shares.iter().all(Share::may_read));
        assert_eq!(inflow.bytes_and_peak(), (40 * KIB, 60 * KIB));
        drop(shares);
        assert_eq!(inflow.bytes_and_peak(), (0, 40 * KIB));
        assert!(inflow.lock().accounts.is_empty());
    }

    #[test]
    fn a_connection_that_goes_on_to_its_next_message_is_the_youngest() {
        let inflow = Inflow::bounded(BOUNDS);
        let (mut a, mut b) = (inflow.share(account(1)), inflow.share(account(1)));
        a.hold(40 * KIB, false);
        b.hold(40 * KIB, false);
        assert!(a.may_read() && !b.may_read());
        a.hold(40 * KIB, true);
        assert!(!a.may_read() && b.may_read());
    }

    #[test]
    fn who_holds_most_makes_room_for_all() {
        let inflow = Inflow::bounded(BOUNDS);
        let mut hogs: Vec<_> = (0..4).map(|_| inflow.share(account(1))).collect();
        for hog in &mut hogs {
            hog.hold(20 * KIB, false);
        }
        let mut small = inflow.share(account(2));
        small.hold(30 * KIB, false);
        let evicted: Vec<_> = hogs
            .iter()
            .map(|hog| hog.evicted().is_cancelled())
            .collect();
        assert_eq!(evicted, [true, false, false, false]);
        assert!(!small.evicted().is_cancelled() && small.may_read());
        assert_eq!(inflow.bytes_and_peak().0, 90 * KIB);
        drop(hogs);
        assert_eq!(inflow.bytes_and_peak().0, 30 * KIB);
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_the_oldest_is_gone() {
        let inflow = Inflow::bounded(BOUNDS);
        let (mut first, mut second) = (inflow.share(account(1)), inflow.share(account(1)));
        first.hold(60 * KIB, false);
        second.hold(10 * KIB, false);
        let waits = second.room();
        tokio::pin!(waits);
        let waiting = std::future::poll_fn(|context| {
            std::task::Poll::Ready(waits.as_mut().poll(context).is_pending())
        });
        assert!(waiting.await);
        drop(first);
        waits.await;
    }
}
