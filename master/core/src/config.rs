//! What the location's owner decides, read by the daemon.

use std::net::Ipv4Addr;

use crate::TransferSecret;

/// The core's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The location's name, for people.
    pub location: String,
    /// The addresses of all containers: network address and prefix length (8 to 24). Each node gets
    /// a subnet of it.
    pub range: (Ipv4Addr, u8),
    /// The prefix length of the subnets of nodes that are enrolled from now on (16 to 24).
    pub node_prefix: u8,
    /// The master's version, for `teu doctor`.
    pub version: String,
    /// From which the keys of volume streams are made.
    pub transfer: TransferSecret,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            location: "dev.localhost".into(),
            range: (Ipv4Addr::new(10, 20, 0, 0), 16),
            node_prefix: crate::subnet::DEFAULT,
            version: env!("CARGO_PKG_VERSION").into(),
            transfer: TransferSecret::default(),
        }
    }
}
