//! What the agent is told at its start.
//!
//! Owner: `main` makes it from the command line.

use std::path::PathBuf;

use teu_protocol::noise::LocationIdentity;

use crate::{sys::names::InstanceName, volumes::pool::PoolChoice};

/// The command line, checked.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// `host:port` of the master.
    pub master: String,
    /// Who the master must be.
    pub location: LocationIdentity,
    /// Where state is kept.
    pub data: PathBuf,
    /// Which of several on this machine.
    pub instance: InstanceName,
    /// For people.
    pub name: String,
    /// Where volumes lie.
    pub pool: PoolChoice,
    /// Warm slots to keep.
    pub slots: usize,
}

impl AgentConfig {
    /// Where sockets are: a tmpfs, gone with the machine's run.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        PathBuf::from("/run").join(self.instance.as_str())
    }
}
