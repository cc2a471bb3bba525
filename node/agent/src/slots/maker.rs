//! Making and unmaking slots.
//!
//! Owner: the slot task. Invariants: each slot that was ordered is told as made or failed, exactly
//! once; names are never used twice, also over restarts.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::{Mutex, mpsc};

use super::{NetworkReleaser, Word};
use crate::{
    keeper::{KeeperLink, sweep},
    launcher::{LaunchError, LauncherConfig, LauncherHandle},
    sys::{
        names::{NameError, SlotName},
        net::{NetError, NetworkHandle, SlotNet},
    },
};

/// A spawn that has just taken a slot is executing by then.
const REFILL_PAUSE: Duration = Duration::from_millis(30);

/// All addresses rest: the first is free again within this.
const REST_PATIENCE: Duration = Duration::from_secs(5);
const REST_POLL: Duration = Duration::from_millis(100);

/// How long one slot may take to be destroyed before it is swept.
const DESTROY_PATIENCE: Duration = Duration::from_secs(10);

/// A prepared sandbox.
#[derive(Debug)]
pub struct WarmSlot {
    /// Its keeper.
    pub keeper: KeeperLink,
    /// Its place in the network.
    pub net: SlotNet,
}

/// Why there is no slot.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// No keeper.
    #[error("no sandbox can be made")]
    Launch(#[source] LaunchError),
    /// No network.
    #[error("no network can be given to a sandbox: {0}")]
    Network(Arc<NetError>),
    /// A defect.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Something kills the node's keepers.
    #[error("the keepers of {0} prepared sandboxes in a row did not answer")]
    Dead(u32),
    /// The agent stops.
    #[error("the agent stops")]
    Stopped,
}

type Made = mpsc::UnboundedSender<Word>;

#[derive(Debug, Clone)]
pub(super) struct SlotMaker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: LauncherConfig,
    network: NetworkHandle,
    releaser: NetworkReleaser,
    /// Started on first use, and again if it died.
    launcher: Mutex<Option<LauncherHandle>>,
    /// Seconds at the start, so that names differ from an earlier agent's.
    era: u64,
    next: std::sync::atomic::AtomicU64,
}

impl SlotMaker {
    pub(super) fn new(
        config: LauncherConfig,
        network: NetworkHandle,
        releaser: NetworkReleaser,
    ) -> Self {
        let era = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |age| age.as_secs());
        let inner = Inner {
            config,
            network,
            releaser,
            launcher: Mutex::new(None),
            era,
            next: std::sync::atomic::AtomicU64::new(0),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Makes `count` slots in the background.
    pub(super) fn make(&self, count: usize, urgent: bool, made: Made) {
        let this = self.clone();
        tokio::spawn(async move {
            if !urgent {
                tokio::time::sleep(REFILL_PAUSE).await;
            }
            this.make_batch(count, &made).await;
        });
    }

    async fn make_batch(&self, count: usize, made: &Made) {
        let forks = (0..count).map(|_| self.fork());
        let mut keepers = Vec::new();
        for forked in futures::future::join_all(forks).await {
            match forked {
                Ok(keeper) => keepers.push(keeper),
                Err(error) => drop(made.send(Word::Made(Err(error)))),
            }
        }
        if keepers.is_empty() {
            return;
        }
        match self.prepare(&keepers).await {
            Ok(nets) => {
                for ((_, keeper), net) in keepers.into_iter().zip(nets) {
                    // The task is gone only when the agent stops, and then the sweep finds it.
                    let _ = made.send(Word::Made(Ok(WarmSlot { keeper, net })));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for (slot, keeper) in keepers {
                    self.destroy_keeper(&slot, &keeper).await;
                    let _ = made.send(Word::Made(Err(SlotError::Network(Arc::clone(&error)))));
                }
            }
        }
    }

    async fn prepare(&self, keepers: &[(SlotName, KeeperLink)]) -> Result<Vec<SlotNet>, NetError> {
        let wanted: Vec<(SlotName, u32)> = keepers
            .iter()
            .map(|(slot, keeper)| (slot.clone(), keeper.pid().unsigned_abs()))
            .collect();
        let deadline = tokio::time::Instant::now() + REST_PATIENCE;
        loop {
            match self.inner.network.prepare(wanted.clone()).await {
                Err(error) if error.is_retryable() && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(REST_POLL).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn fork(&self) -> Result<(SlotName, KeeperLink), SlotError> {
        let slot = self.next_name()?;
        let launcher = self.launcher(false).await.map_err(SlotError::Launch)?;
        match launcher.fork_keeper(&slot).await {
            Err(LaunchError::Gone) => {
                let launcher = self.launcher(true).await.map_err(SlotError::Launch)?;
                launcher.fork_keeper(&slot).await
            }
            outcome => outcome,
        }
        .map(|keeper| (slot, keeper))
        .map_err(SlotError::Launch)
    }

    async fn launcher(&self, again: bool) -> Result<LauncherHandle, LaunchError> {
        let mut launcher = self.inner.launcher.lock().await;
        if again {
            tracing::warn!("the launcher has died; another is started");
            *launcher = None;
        }
        if let Some(launcher) = &*launcher {
            return Ok(launcher.clone());
        }
        let started = LauncherHandle::start(self.inner.config.clone()).await?;
        *launcher = Some(started.clone());
        Ok(started)
    }

    /// `s`, five hex digits of the era, six of a count.
    fn next_name(&self) -> Result<SlotName, NameError> {
        let count = self
            .inner
            .next
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        format!(
            "s{:05x}{:06x}",
            self.inner.era & 0xf_ffff,
            count & 0xff_ffff
        )
        .parse()
    }

    pub(super) fn retire(&self, slot: WarmSlot) {
        let this = self.clone();
        tokio::spawn(async move { this.destroy(vec![slot]).await });
    }

    pub(super) async fn destroy(&self, slots: Vec<WarmSlot>) {
        let destroyed = slots.into_iter().map(|slot| async move {
            let name = slot.net.slot;
            self.destroy_keeper(&name, &slot.keeper).await;
            if let Err(error) = self.inner.releaser.release(name).await {
                tracing::warn!(
                    "an address is not released: {}",
                    crate::link::chain(&*error)
                );
            }
        });
        futures::future::join_all(destroyed).await;
    }

    async fn destroy_keeper(&self, slot: &SlotName, keeper: &KeeperLink) {
        let destroyed = tokio::time::timeout(DESTROY_PATIENCE, keeper.destroy()).await;
        if !matches!(destroyed, Ok(Ok(()))) {
            keeper.kill();
            let (config, slot) = (self.inner.config.clone(), slot.clone());
            let swept = move || sweep(&config.run_dir, &config.cgroup_parent, &slot);
            if let Ok(Err(error)) = tokio::task::spawn_blocking(swept).await {
                tracing::warn!("a slot is not swept: {}", crate::link::chain(&error));
            }
        }
    }
}
