//! The master as a whole: started, running, shut down.
//!
//! ```text
//!   listener ─▶ connection tasks ─▶ broker ─▶ store
//!                     │   └─ stream frames ─▶ other connections' outboxes
//!                     └────── blobs ────────▶ layer cache
//! ```
//! Owner: `main`, or a test. Invariant: every task is tracked and has ended when [`Server::shutdown`]
//! returns. Next: [`crate::listener`], [`crate::broker`].

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize},
};

use teu_daemon::tasks::{Ended, Vital, VitalEnds};
use teu_master_core::{Core, TransferSecret};
use teu_protocol::{
    ids::PublicKey,
    noise::{HandshakeError, LocationIdentity},
};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admission::Admission,
    bounds::FLUSH_WITHIN,
    broker::{self, Broker},
    clock::Clock,
    config::Config,
    connection::spares::ReadBuffers,
    gate::{Gate, GateError},
    house::House,
    identity::{self, IdentityError},
    inflow::Inflow,
    layers::{LayerCache, LayerCacheError, Transfers},
    listener, memory,
    random::RandomError,
    store::{RedbStore, Store, StoreError},
};

/// Why the master cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The location's key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The layer cache.
    #[error("the layer cache cannot be opened")]
    Layers(#[from] LayerCacheError),
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The location's name cannot be one.
    #[error("the location's name cannot be used")]
    Name(#[from] HandshakeError),
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
}

impl From<GateError> for StartError {
    fn from(error: GateError) -> Self {
        match error {
            GateError::Handshake(error) => Self::Name(error),
            GateError::Random(error) => Self::Random(error),
            GateError::Stopping => Self::Name(HandshakeError::Unexpected),
        }
    }
}

/// A running master.
#[derive(Debug)]
pub struct Server {
    local_addr: SocketAddr,
    public_key: PublicKey,
    tasks: TaskTracker,
    stop: CancellationToken,
    abort: CancellationToken,
    broker: JoinHandle<Result<(), StoreError>>,
    ends: VitalEnds,
}

/// Why the master cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The store cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A part of the master has ended.
    #[error(transparent)]
    Task(#[from] Ended),
}

impl Server {
    /// Starts a master: when this returns, it accepts connections.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let clock = Clock::start();
        let key = identity::load_or_create(&config.data)?;
        let public_key = key.public();
        let transfer = TransferSecret::of_location(key.expose_secret());
        let location = LocationIdentity::new(&config.fqdn, public_key, config.serial)?;
        let tasks = TaskTracker::new();
        let (stop, abort) = (CancellationToken::new(), CancellationToken::new());

        let store: Arc<dyn Store> = Arc::new(RedbStore::open(&config.data.join("store.redb"))?);
        let layers = config.data.join("layers");
        let cache = LayerCache::open(&layers, tasks.clone(), stop.clone())?;
        let mut restored = store.load()?;
        let enrolled = &config.bootstrap;
        store.commit(&enrolled.operations(&restored, config.range, config.node_prefix))?;
        restored = store.load()?;
        let lost = cache.reconcile(&mut restored.possessions)?;
        if !lost.is_empty() {
            store.commit(&lost)?;
        }

        let listener =
            TcpListener::bind(config.listen)
                .await
                .map_err(|source| StartError::Listen {
                    address: config.listen,
                    source,
                })?;
        let local_addr = listener.local_addr().map_err(|source| StartError::Listen {
            address: config.listen,
            source,
        })?;

        let (handle, inbox) = broker::inbox();
        let admission = Admission::new(config.admission);
        let house = House {
            gate: Gate::new(location, key, Arc::clone(&admission), clock)?,
            admission,
            broker: handle.clone(),
            budget: Arc::new(AtomicUsize::new(0)),
            inflow: Inflow::new(),
            read_buffers: ReadBuffers::default(),
            clock,
            tasks: tasks.clone(),
            stop: stop.clone(),
            abort: abort.clone(),
        };
        let core_config = teu_master_core::Config {
            location: config.fqdn,
            range: config.range,
            node_prefix: config.node_prefix,
            version: env!("CARGO_PKG_VERSION").into(),
            transfer,
        };
        let broker = Broker {
            core: Core::new(core_config, restored, clock.now()),
            store,
            transfers: Transfers {
                cache,
                broker: handle,
            },
            clock,
            peers: HashMap::new(),
        };
        let broker = tokio::spawn(broker.run(inbox, stop.clone()));
        let (vital, ends) = Vital::new();
        let house = Arc::new(house);
        tasks.spawn(vital.watch("memory", memory::run(Arc::clone(&house))));
        tasks.spawn(vital.watch("listener", listener::run(listener, house)));
        Ok(Self {
            local_addr,
            public_key,
            tasks,
            stop,
            abort,
            broker,
            ends,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The location's key.
    #[must_use]
    pub const fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// Waits until the master cannot go on.
    ///
    /// # Errors
    /// [`Failed`]: the store cannot be written, or a task ended.
    pub async fn failed(&mut self) -> Result<(), Failed> {
        tokio::select! {
            outcome = &mut self.broker => Ok(outcome.unwrap_or(Err(StoreError::Panicked))?),
            ended = self.ends.next() => Err(ended.into()),
        }
    }

    /// Tells every peer, flushes, ends all tasks. Containers go on.
    pub async fn shutdown(self) {
        self.stop.cancel();
        if !self.broker.is_finished() && self.broker.await.is_err() {
            tracing::error!("the broker failed");
        }
        self.tasks.close();
        if timeout(FLUSH_WITHIN, self.tasks.wait()).await.is_err() {
            self.abort.cancel();
            self.tasks.wait().await;
        }
    }
}
