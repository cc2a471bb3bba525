//! Kernel settings of the bridge, and the one global setting that routing needs.
//!
//! Owned by the network worker. Invariant: the only setting outside the bridge that is ever
//! written is `net.ipv4.ip_forward`, only from 0 to 1, and it is never put back: another program
//! may have come to rely on it. Next: `link`.

use std::fs;
use std::io;

use super::config::NetConfig;
use super::error::NetError;

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// The host is no router for its neighbours' mistakes: no redirects (packets between containers
/// leave by the interface they came in by), no ARP answers for the host's other addresses.
const BRIDGE: [(&str, &str); 4] = [
    ("ipv4/conf/{}/send_redirects", "0"),
    ("ipv4/conf/{}/accept_redirects", "0"),
    ("ipv4/conf/{}/arp_ignore", "1"),
    ("ipv4/conf/{}/route_localnet", "0"),
];

/// Sets up the bridge and turns IPv4 forwarding on where it is off.
pub(super) fn prepare_host(config: &NetConfig) -> Result<(), NetError> {
    for (template, value) in BRIDGE {
        write(&setting(template, &config.bridge()), value)?;
    }
    let without_ipv6 = setting("ipv6/conf/{}/disable_ipv6", &config.bridge());
    match write(&without_ipv6, "1") {
        // A kernel without IPv6.
        Err(NetError::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        other => other?,
    }
    if !forwards() {
        tracing::info!("turning on net.ipv4.ip_forward: containers reach the internet through it");
        write(FORWARDING, "1")?;
    }
    Ok(())
}

/// Whether the host forwards IPv4.
pub(super) fn forwards() -> bool {
    fs::read_to_string(FORWARDING).is_ok_and(|text| text.trim() != "0")
}

fn setting(template: &str, interface: &str) -> String {
    format!("/proc/sys/net/{}", template.replace("{}", interface))
}

fn write(setting: &str, value: &'static str) -> Result<(), NetError> {
    let failed = |source| NetError::Sysctl {
        setting: setting.to_owned(),
        value,
        source,
    };
    if fs::read_to_string(setting).map_err(failed)?.trim() == value {
        return Ok(());
    }
    fs::write(setting, value).map_err(failed)
}

/// The kernel's default for machines with 1 GiB of memory and more, where it does not tell.
const USUAL_CONNECTIONS: u32 = 65_536;

/// How many connections the host can track.
pub(super) fn tracked_connections() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max");
    let told = text.ok().and_then(|text| text.trim().parse().ok());
    told.unwrap_or(USUAL_CONNECTIONS).max(USUAL_CONNECTIONS / 4)
}
