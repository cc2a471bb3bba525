//! What is done for containers: prepared, woken, released, removed, found again.
//!
//! Owner: the event loop starts these as tasks and hears their outcome as events; which may run
//! when is `teu_node_core`'s decision. Invariant: each task answers once, also when it fails, and a
//! preparation that fails leaves nothing behind. Next: `prepare`, `retire`, `found`.

mod found;
mod layers;
mod prepare;
mod refuse;
mod retire;
mod room;
mod start_plan;
mod table;
mod watch_keeper;

pub use found::{FoundContainer, find};
pub use prepare::{prepare, wake};
pub use refuse::{refuse_internal, refuse_running, refuse_start};
pub use retire::{release, remove};
pub use start_plan::exec_plan;
pub use table::{Entry, ProcessEntry, ProcessProgress, Sandbox, Table};
pub(crate) use watch_keeper::process_end;
pub use watch_keeper::watch_keeper;

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use tokio::sync::{mpsc, watch};

use crate::{
    agent::Event,
    layers::LayerStore,
    link::LinkHandle,
    slots::{NetworkReleaser, SlotsHandle},
    state::DataDir,
    streams::TunnelWindows,
    sys::net::NetworkHandle,
    volumes::worker::WorkerHandle,
};

/// What the tasks need. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Yard {
    inner: Arc<YardInner>,
}

/// The parts of a [`Yard`].
#[derive(Debug)]
pub struct YardInner {
    /// Where records are.
    pub data: DataDir,
    /// The instance's run directory.
    pub run_dir: PathBuf,
    /// The instance's cgroup.
    pub cgroup_parent: String,
    /// Warm slots.
    pub slots: SlotsHandle,
    /// The network.
    pub network: NetworkHandle,
    /// Gives slots' networks back.
    pub releaser: NetworkReleaser,
    /// Volumes.
    pub volumes: WorkerHandle,
    /// What is promised to tunnels.
    pub tunnels: TunnelWindows,
    /// Extracted layers.
    pub layers: LayerStore,
    /// For containers' resolv.conf.
    pub name_servers: Vec<IpAddr>,
    /// The link, while it is up.
    pub link: watch::Receiver<Option<LinkHandle>>,
    /// To the event loop.
    pub events: mpsc::Sender<Event>,
}

impl Yard {
    /// From its parts.
    #[must_use]
    pub fn new(inner: YardInner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }
}

impl std::ops::Deref for Yard {
    type Target = YardInner;

    fn deref(&self) -> &YardInner {
        &self.inner
    }
}
