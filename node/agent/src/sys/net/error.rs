//! Why the node's network could not be changed.
//!
//! Owned by `sys::net`. Invariant: the message says what was attempted on what, the source why.
//! Next: `problem` for what `teu doctor` shows.

use std::io;
use std::net::Ipv4Addr;

use teu_node_core::firewall::{FirewallRefusal, PoolError};

use crate::sys::names::SlotName;

/// A failure of the node's network.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// `nft` is not installed or not executable.
    #[error("cannot run nft; install the package nftables")]
    RunNft(#[source] io::Error),
    /// `nft` refused the rules.
    #[error("nft refused the firewall's rules: {0}")]
    LoadRules(String),
    /// What `nft` listed is not what it documents.
    #[error("cannot read nft's list of chains")]
    ListChains(#[source] serde_json::Error),
    /// The kernel refused a change to a set, and the reload that follows such a failure too.
    #[error("cannot change the firewall's sets")]
    ChangeSets(#[source] io::Error),
    /// nf_tables cannot be read.
    #[error("cannot read the firewall's state from the kernel")]
    ReadRules(#[source] io::Error),
    /// No netlink socket, no thread.
    #[error("cannot start the network worker")]
    Start(#[source] io::Error),
    /// A kernel setting cannot be written.
    #[error("cannot set {setting} to {value}")]
    Sysctl {
        /// The setting's file.
        setting: String,
        /// What it should say.
        value: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Something on the bridge could not be done.
    #[error("cannot {action} the bridge {bridge}")]
    Bridge {
        /// What was attempted.
        action: &'static str,
        /// On which.
        bridge: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An interface that is not a bridge has the bridge's name.
    #[error("{0} exists and is not a bridge; choose another instance name")]
    NameTaken(String),
    /// Names of veths would not fit.
    #[error("a node's subnet may not be larger than a /16")]
    SubnetTooLarge,
    /// A slot's veth could not be made or set up.
    #[error("cannot {action} for slot {slot}")]
    Slot {
        /// What was attempted.
        action: &'static str,
        /// For whom.
        slot: SlotName,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The links cannot be listed.
    #[error("cannot list the network interfaces")]
    ListLinks(#[source] io::Error),
    /// Veths could not be removed.
    #[error("cannot remove the veths of {count} slots")]
    RemoveVeths {
        /// How many.
        count: usize,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The slot has a network already.
    #[error("slot {0} has a network already")]
    SlotTaken(SlotName),
    /// No address can be given.
    #[error(transparent)]
    Address(#[from] PoolError),
    /// The firewall's model refuses.
    #[error(transparent)]
    Refused(#[from] FirewallRefusal),
    /// An adopted container's address is unusable.
    #[error("cannot adopt slot {slot} with address {ip}")]
    Adopt {
        /// The slot.
        slot: SlotName,
        /// Its address.
        ip: Ipv4Addr,
        /// Why not.
        #[source]
        source: PoolError,
    },
    /// The worker is gone, by `close` or by a failure that it has logged.
    #[error("the network worker has stopped")]
    Stopped,
}

impl NetError {
    /// Whether the same call may succeed a moment later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Address(PoolError::Resting { .. }))
    }
}
