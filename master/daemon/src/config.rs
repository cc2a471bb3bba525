//! What the location's owner decides.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use crate::{admission::AdmissionLimits, bootstrap::Bootstrap};

/// A master's settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the key, the store and the layers are.
    pub data: PathBuf,
    /// The location's name. Peers must use the same.
    pub fqdn: String,
    /// The serial number of the location's key. Peers must use the same.
    pub serial: u64,
    /// Addresses for containers: network address and prefix length.
    pub range: (Ipv4Addr, u8),
    /// The prefix length of the subnets of that range that nodes get from now on: 16 to 24.
    pub node_prefix: u8,
    /// Accounts and nodes to enrol at the start.
    pub bootstrap: Bootstrap,
    /// How many connections.
    pub admission: AdmissionLimits,
}

impl Config {
    /// Settings with defaults for the rest.
    #[must_use]
    pub fn new(listen: SocketAddr, data: impl Into<PathBuf>, fqdn: impl Into<String>) -> Self {
        Self {
            listen,
            data: data.into(),
            fqdn: fqdn.into(),
            serial: 1,
            range: (Ipv4Addr::new(10, 77, 0, 0), 16),
            node_prefix: teu_master_core::subnet::DEFAULT,
            bootstrap: Bootstrap::default(),
            admission: AdmissionLimits::default(),
        }
    }
}
