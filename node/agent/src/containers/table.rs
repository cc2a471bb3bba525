//! What the event loop holds for each container: its sandbox and its processes' progress.
//!
//! Owner: the event loop. Invariant: an entry exists from `Prepare` until the container is gone.

use std::{collections::HashMap, sync::Arc};

use teu_node_core::stream::LogProgress;
use teu_protocol::{
    ids::{ContainerId, ProcessId},
    message::Termination,
};
use tokio::sync::{RwLock, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    keeper::{KeeperEvent, KeeperLink},
    layers::LayerPins,
    sys::net::SlotNet,
};

/// What is known of a process; its streams watch it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessProgress {
    /// Its log.
    pub log: LogProgress,
    /// Bytes of input that it has taken, since it began.
    pub stdin_consumed: u64,
    /// It reads no more.
    pub stdin_closed: bool,
}

/// A process.
#[derive(Debug)]
pub struct ProcessEntry {
    progress: watch::Sender<ProcessProgress>,
}

impl ProcessEntry {
    fn new(progress: ProcessProgress) -> Self {
        Self {
            progress: watch::Sender::new(progress),
        }
    }

    /// To follow it.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<ProcessProgress> {
        self.progress.subscribe()
    }
}

/// Where a container runs.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// Its keeper.
    pub keeper: KeeperLink,
    /// Its slot and address.
    pub net: SlotNet,
    /// Cancelled when the keeper is gone.
    pub gone: CancellationToken,
    /// The layers of its root stay for as long.
    pub layers: Arc<LayerPins>,
}

/// A container's things.
#[derive(Debug, Default)]
pub struct Entry {
    /// While it has one.
    pub sandbox: Option<Sandbox>,
    /// By id; the first process included.
    pub processes: HashMap<ProcessId, ProcessEntry>,
    /// Read by streams that are being opened, written by who must come after them.
    pub opening: Arc<RwLock<()>>,
    /// Cancelled when nobody wants it while it is prepared.
    pub unwanted: CancellationToken,
    /// Cancelled when its connections must end.
    pub cut: CancellationToken,
}

impl Entry {
    /// A process, which need not have begun.
    pub fn process(&mut self, id: ProcessId) -> &mut ProcessEntry {
        self.processes
            .entry(id)
            .or_insert_with(|| ProcessEntry::new(ProcessProgress::default()))
    }

    /// A process as it was found.
    pub fn add_found(&mut self, id: ProcessId, progress: ProcessProgress) {
        self.processes.insert(id, ProcessEntry::new(progress));
    }

    /// What its keeper told.
    pub fn keeper_told(&mut self, event: &KeeperEvent) {
        match *event {
            KeeperEvent::LogGrown { process, end } => self.grown(process, end),
            KeeperEvent::StdinConsumed { process, total } => {
                self.process(process).progress.send_modify(|progress| {
                    progress.stdin_consumed = progress.stdin_consumed.max(total);
                });
            }
            KeeperEvent::StdinClosed { process } => {
                self.process(process)
                    .progress
                    .send_modify(|progress| progress.stdin_closed = true);
            }
            KeeperEvent::Exited {
                process, log_end, ..
            } => self.grown(process, log_end),
        }
    }

    fn grown(&mut self, process: ProcessId, end: u64) {
        self.process(process).progress.send_modify(|progress| {
            progress.log.end = progress.log.end.max(end);
        });
    }

    /// A process ended: followers may finish.
    pub fn ended(&mut self, process: ProcessId, termination: Termination) {
        if let Some(entry) = self.processes.get_mut(&process) {
            entry.progress.send_modify(|progress| {
                progress.log.ended.get_or_insert(termination);
            });
        }
    }
}

/// All of them.
pub type Table = HashMap<ContainerId, Entry>;
