//! TEU's nftables tables as text, and their loading in one transaction.
//!
//! Owned by the network worker. Invariants: only `table inet <instance>` and `table bridge
//! <instance>` are ever named; loading replaces both at once with everything they must hold, so
//! that there is never a moment without rules, and established flows that stay allowed live on.
//! The rules mean what `teu_node_core::firewall::Firewall::may_open` says; a root test compares.
//!
//! A `drop` is final for a packet whatever other tables say, an `accept` is only this table's
//! opinion: nobody's accept can open a hole in here, and nothing in here opens a hole in a host
//! firewall. Next: `elements` for what changes between loads.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use teu_node_core::firewall::{Element, Firewall, RESERVED};

use super::config::NetConfig;
use super::elements::{self, Set};
use super::error::NetError;

/// Loads both tables with all elements of `firewall`.
///
/// A kernel that cannot count connections in a set (CONFIG_NFT_CONNLIMIT) gets the rules without that bound.
pub(super) fn load(config: &NetConfig, firewall: &Firewall) -> Result<(), NetError> {
    let Err(refused) = run_nft(&render(config, firewall, Some(config.flows_per_container))) else {
        return Ok(());
    };
    run_nft(&render(config, firewall, None))?;
    tracing::warn!(
        error = %refused,
        "this kernel does not bound the connections of a container (CONFIG_NFT_CONNLIMIT); one can take all that the host tracks"
    );
    Ok(())
}

/// Removes both tables; that they are gone already is fine.
pub(super) fn remove(config: &NetConfig) -> Result<(), NetError> {
    run_nft(&clearing(config))
}

/// Adding first makes the deletion succeed whether or not the table exists.
fn clearing(config: &NetConfig) -> String {
    let table = config.table();
    format!(
        "add table inet {table}\ndelete table inet {table}\n\
         add table bridge {table}\ndelete table bridge {table}\n"
    )
}

fn render(config: &NetConfig, firewall: &Firewall, flows: Option<u32>) -> String {
    let mut script = clearing(config);
    script.push_str(&inet_table(config, firewall, flows));
    script.push_str(&bridge_table(config, firewall));
    script
}

/// Everything above the bridge: who may open connections to whom.
///
/// Packets between two containers pass `forward` as well, for ports are isolated from each other.
/// `ct original` is the pair that opened the flow: answers pass for as long as that pair is
/// allowed, and a `disallow` cuts open flows without touching connection tracking.
///
/// A flow that would be accepted is counted for its source (`flows`); only those are tracked for longer.
fn inet_table(config: &NetConfig, firewall: &Firewall, flows: Option<u32>) -> String {
    let table = config.table();
    let bridge = config.bridge();
    let subnet = config.subnet;
    let gateway = config.subnet.gateway();
    let location = config.location_range;
    let allowed = set_body(config, firewall, Set::Allowed);
    let resolvers = braced(
        "elements = ",
        config.outer_resolvers().map(|ip| ip.to_string()),
    );
    let denied = braced("elements = ", denied_ranges(config).into_iter());
    let counted = flows.map_or_else(String::new, |most| {
        format!("ct state new add @flows {{ ip saddr ct count over {most} }} drop")
    });
    let flows = match flows {
        Some(_) => "set flows { type ipv4_addr; size 65535; flags dynamic; }",
        None => "",
    };
    format!(
        r#"
table inet {table} {{
	comment "TEU: made and owned by the node agent; changes are undone"
	set allowed {{ type ipv4_addr . ipv4_addr; {allowed} }}
	set resolvers {{ type ipv4_addr; {resolvers} }}
	set denied {{ type ipv4_addr; flags interval; auto-merge; {denied} }}
	{flows}

	chain source {{
		type filter hook prerouting priority raw; policy accept;
		iifname "{bridge}" meta nfproto != ipv4 drop
		iifname "{bridge}" ip saddr != {subnet} drop
		iifname != {{ "{bridge}", "lo" }} ip saddr {subnet} drop
	}}
	chain forward {{
		type filter hook forward priority filter; policy accept;
		iifname "{bridge}" goto from_container
		oifname "{bridge}" goto to_container
		ip daddr {subnet} drop
	}}
	chain from_container {{
		ip daddr {location} goto between
		oifname "{bridge}" drop
		meta nfproto != ipv4 drop
		ct state invalid drop
		ip daddr @resolvers meta l4proto {{ tcp, udp }} th dport 53 accept
		ip daddr @denied drop
		tcp flags syn / syn,rst tcp option maxseg size set rt mtu
		{counted}
		accept
	}}
	chain to_container {{
		ip saddr {location} goto between
		ct state established,related ct direction reply ct original ip saddr {subnet} accept
		drop
	}}
	chain between {{
		ct original ip saddr . ct original ip daddr != @allowed drop
		{counted}
		accept
	}}
	chain input {{
		type filter hook input priority filter; policy accept;
		iifname "{bridge}" ip daddr @resolvers meta l4proto {{ tcp, udp }} th dport 53 accept
		iifname "{bridge}" drop
	}}
	chain output {{
		type filter hook output priority filter; policy accept;
		oifname "{bridge}" goto host_to_container
		ip daddr {subnet} ip daddr != {gateway} goto host_to_container
	}}
	chain host_to_container {{
		ct state related icmp type {{ destination-unreachable, time-exceeded, parameter-problem }} accept
		ct state established ct direction reply ip saddr @resolvers meta l4proto {{ tcp, udp }} th sport 53 accept
		drop
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		oifname != "{bridge}" ip saddr {subnet} ip daddr != {location} masquerade
	}}
}}
"#
    )
}

/// The bridge's ports: each speaks IPv4 and ARP with its own two addresses only. Frames of other
/// bridges pass untouched. Checked before the bridge learns from the frame.
fn bridge_table(config: &NetConfig, firewall: &Firewall) -> String {
    let table = config.table();
    let ports = set_body(config, firewall, Set::Ports);
    let bindings = set_body(config, firewall, Set::Bindings);
    format!(
        r#"
table bridge {table} {{
	comment "TEU: made and owned by the node agent; changes are undone"
	set ports {{ type ifname; {ports} }}
	set bindings {{ type ifname . ether_addr . ipv4_addr; {bindings} }}

	chain prerouting {{
		type filter hook prerouting priority filter; policy accept;
		iifname != @ports accept
		ether type ip iifname . ether saddr . ip saddr @bindings accept
		ether type arp iifname . ether saddr . arp saddr ip != @bindings drop
		ether type arp iifname . arp saddr ether . arp saddr ip @bindings accept
		drop
	}}
}}
"#
    )
}

fn denied_ranges(config: &NetConfig) -> Vec<String> {
    let reserved = RESERVED
        .iter()
        .map(|(base, prefix, _)| format!("{base}/{prefix}"));
    let location = [config.location_range, config.subnet];
    let own = location
        .iter()
        .chain(&config.also_denied)
        .map(ToString::to_string);
    reserved.chain(own).collect()
}

fn set_body(config: &NetConfig, firewall: &Firewall, set: Set) -> String {
    let texts = firewall
        .elements()
        .into_iter()
        .filter_map(|element| match (set, element) {
            (Set::Ports, Element::Binding(ip)) => Some(format!("\"{}\"", config.veth(ip))),
            (Set::Bindings, Element::Binding(ip)) => {
                let mac = mac_text(NetConfig::container_mac(ip));
                Some(format!("\"{}\" . {mac} . {ip}", config.veth(ip)))
            }
            (Set::Allowed, Element::Allowed(pair)) => Some(format!("{} . {}", pair.from, pair.to)),
            _ => None,
        });
    braced("elements = ", texts)
}

/// `<before>{ a, b }`, or nothing at all if there is nothing to list.
fn braced(before: &str, items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    if items.is_empty() {
        String::new()
    } else {
        format!("{before}{{ {} }}", items.join(", "))
    }
}

fn mac_text(mac: [u8; 6]) -> String {
    let mut text = String::new();
    for (index, byte) in mac.iter().enumerate() {
        let colon = if index == 0 { "" } else { ":" };
        let _ = write!(text, "{colon}{byte:02x}");
    }
    text
}

fn run_nft(script: &str) -> Result<(), NetError> {
    let output = pipe_through_nft(script).map_err(NetError::RunNft)?;
    if output.status.success() {
        return Ok(());
    }
    Err(NetError::LoadRules(
        String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    ))
}

fn pipe_through_nft(script: &str) -> io::Result<std::process::Output> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    // `nft` reads all of its input before it says anything, so this cannot block for ever; a child
    // that died early shows in its status.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(script.as_bytes());
    }
    child.wait_with_output()
}

/// The keys that the kernel must hold in `set`.
pub(super) fn expected_keys(
    config: &NetConfig,
    firewall: &Firewall,
    set: Set,
) -> std::collections::BTreeSet<elements::Key> {
    let keys = firewall
        .elements()
        .into_iter()
        .flat_map(|element| elements::keys(config, element));
    keys.filter_map(|(of, key)| (of == set).then_some(key))
        .collect()
}

/// Whether some other base chain drops forwarded packets by its policy, of all tables that `nft`
/// knows of. Each as `family table chain`.
pub(super) fn foreign_forward_drops(config: &NetConfig) -> Result<Vec<String>, NetError> {
    let listing = Command::new("nft").args(["-j", "list", "chains"]).output();
    let listing = listing.map_err(NetError::RunNft)?;
    let parsed: serde_json::Value =
        serde_json::from_slice(&listing.stdout).map_err(NetError::ListChains)?;
    let items = parsed["nftables"].as_array().cloned().unwrap_or_default();
    let chains = items.iter().filter_map(|item| item.get("chain"));
    let dropping = chains.filter(|chain| {
        let field = |name: &str| chain[name].as_str().unwrap_or_default();
        field("hook") == "forward"
            && field("policy") == "drop"
            && matches!(field("family"), "ip" | "inet")
            && field("table") != config.table()
    });
    let name = |chain: &serde_json::Value| {
        let field = |name: &str| chain[name].as_str().unwrap_or_default().to_owned();
        [field("family"), field("table"), field("name")].join(" ")
    };
    Ok(dropping.map(name).collect())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn names_only_its_own_tables() {
        let subnet = "10.77.1.0/24".parse().unwrap();
        let location = "10.77.0.0/16".parse().unwrap();
        let mut config = NetConfig::new("teu7".parse().unwrap(), subnet, location);
        config.resolvers = vec![Ipv4Addr::new(192, 168, 0, 1), Ipv4Addr::new(10, 77, 1, 1)];
        let mut firewall = Firewall::new(subnet, location).unwrap();
        firewall.attach(Ipv4Addr::new(10, 77, 1, 2)).unwrap();
        let script = render(&config, &firewall, Some(16));
        assert_eq!(script.matches("ct count over 16").count(), 2);
        assert!(!render(&config, &firewall, None).contains("flows"));
        let tables = script.lines().filter(|line| line.contains("table "));
        assert!(tables.clone().count() >= 6);
        for line in tables {
            assert!(
                line.contains("inet teu7") || line.contains("bridge teu7"),
                "{line}"
            );
        }
        assert!(script.contains(r#"elements = { "teu7v2" . 02:7e:0a:4d:01:02 . 10.77.1.2 }"#));
        assert!(script.contains("set resolvers { type ipv4_addr; elements = { 192.168.0.1 } }"));
        assert!(!script.contains("flush"));
    }
}
