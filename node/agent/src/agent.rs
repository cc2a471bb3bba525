//! The agent: one event loop that owns everything a node knows.
//!
//! ```text
//! link ─┐                       ┌─▶ outbox ─▶ link
//! keepers ─▶ Event ─▶ NodeCore ─▶ Effect ─▶ tasks (containers, streams) ─┐
//! tasks ─┘                                                              └─▶ Event
//! ```
//! Owner: [`run`]. Invariants: the loop never waits for network, disk or kernel longer than a small
//! file takes; each task that it starts tells its outcome as an event; containers outlive it.
//! Next: `event` for what wakes it, `perform` for what it starts.

mod config;
mod event;
mod order;
mod perform;
mod records;
mod start;

pub use config::AgentConfig;
pub use event::Event;
pub use start::{AgentError, Ended, run};

use std::{
    collections::HashMap,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use teu_node_core::{Input, NodeCore, Now, accounts::UidRanges, usage::is_worth_telling};
use teu_protocol::{
    ids::RequestId,
    message::{NodeCapacity, NodeEvent, NodeReport, NodeToMaster, NodeUsage, Topology},
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    containers::{Table, Yard},
    link::{LinkHandle, LinkUp, Outbox},
};

/// Milliseconds since 1970.
#[must_use]
pub fn unix_ms() -> u64 {
    let age = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}

/// `linux/amd64` and the like, in Go's words.
#[must_use]
pub fn platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{architecture}")
}

/// What the loop owns.
struct Agent {
    core: NodeCore,
    table: Table,
    yard: Yard,
    accounts: UidRanges,
    topology: Topology,
    link: watch::Sender<Option<LinkHandle>>,
    outbox: Option<Outbox>,
    /// Streams that begin once the reply that opens them has left.
    starts: HashMap<RequestId, oneshot::Sender<()>>,
    records: records::Records,
    capacity: NodeCapacity,
    measured: NodeUsage,
    told: NodeUsage,
    epoch: Instant,
}

impl Agent {
    fn now(&self) -> Now {
        Now {
            steady: self.epoch.elapsed(),
            unix_ms: unix_ms(),
        }
    }

    async fn run(mut self, mut events: mpsc::Receiver<Event>) -> Result<Ended, AgentError> {
        loop {
            let deadline = self.core.next_deadline().map(|at| self.epoch + at);
            let event = tokio::select! {
                event = events.recv() => event,
                () = sleep_until(deadline) => Some(Event::Core(Input::Tick)),
            };
            match event {
                None | Some(Event::Stop) => return Ok(self.stop().await),
                Some(Event::Failed(ended)) => return Err(ended.into()),
                Some(Event::LinkUp(up)) => {
                    if let Some(ended) = self.link_up(*up) {
                        return Ok(ended);
                    }
                }
                Some(event) => self.take(event),
            }
        }
    }

    /// The containers go on; the master is told that the silence is meant.
    async fn stop(self) -> Ended {
        if let Some(outbox) = self.outbox {
            let _ = outbox.say(NodeToMaster::Goodbye);
            let (left, leaves) = oneshot::channel();
            let _ = outbox.then(left);
            let _ = tokio::time::timeout(std::time::Duration::from_secs(1), leaves).await;
        }
        self.yard.slots.close().await;
        Ended::Stopped
    }

    fn link_up(&mut self, up: LinkUp) -> Option<Ended> {
        let LinkUp {
            topology,
            link,
            outbox,
        } = up;
        if topology != self.topology {
            tracing::warn!(?topology, "the location gives this node other addresses");
            if let Err(error) = self.yard.data.keep_topology(&topology) {
                tracing::error!("{}", crate::link::chain(&error));
            }
            if self.core.containers().is_empty() {
                return Some(Ended::Restart);
            }
            tracing::warn!("they are taken once no container is left and the agent restarts");
        }
        tracing::info!(node = %topology.node, "connected to the master");
        self.link.send_replace(Some(link));
        self.outbox = Some(outbox);
        self.input(Input::LinkUp);
        None
    }

    fn input(&mut self, input: Input) {
        let now = self.now();
        let effects = self.core.handle(input, now);
        self.perform_all(effects);
    }

    fn say(&mut self, message: NodeToMaster) {
        if let Some(outbox) = &self.outbox
            && let Err(error) = outbox.say(message)
        {
            tracing::error!("{error}");
        }
    }

    fn report(&mut self) {
        let usage = self.usage();
        self.told = usage;
        let report = NodeReport {
            platform: platform(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capacity: NodeCapacity {
                pool_bytes: self.yard.volumes.space().total,
                ..self.capacity
            },
            usage,
            containers: self.core.containers(),
            layers: self
                .yard
                .layers
                .list()
                .into_iter()
                .map(|(record, _)| record.digest)
                .collect(),
            volumes: self.core.volumes(),
        };
        self.say(NodeToMaster::Report(Box::new(report)));
    }

    /// What was measured, with what is promised.
    fn usage(&self) -> NodeUsage {
        let (containers, limits) = self.core.promised();
        let mut usage = NodeUsage {
            containers,
            pool_free_bytes: self.yard.volumes.space().free,
            ..self.measured
        };
        for limit in limits {
            usage.memory_promised_bytes += limit.memory_bytes.unwrap_or(0);
            usage.cpu_promised_millis += limit.cpu_millis.unwrap_or(0);
        }
        usage
    }

    fn measured(&mut self, measured: NodeUsage) {
        self.measured = measured;
        let usage = self.usage();
        if self.outbox.is_some() && is_worth_telling(&self.told, &usage) {
            self.told = usage;
            self.say(NodeToMaster::Event(Box::new(NodeEvent::Usage(usage))));
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
