//! What `teu doctor` says about a node's network: what is wrong, and how to mend it.
//!
//! Owned by whoever asked. Invariant: the text ends in something to do. Next: `worker`, which
//! looks, and mends by itself what it can.

use crate::sys::names::SlotName;

/// Something wrong with the node's network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetProblem {
    /// The bridge is gone or down.
    #[error("the bridge {0} is missing or down; the agent makes it again within 10 s")]
    Bridge(String),
    /// The tables were changed or removed.
    #[error(
        "the firewall tables named {0} are missing or were changed; the agent restores them at \
         once. Find out who flushes them: `nft monitor`"
    )]
    Rules(String),
    /// It happened before.
    #[error(
        "the firewall was removed or changed by somebody else {times} times since the agent \
         started, and restored each time; until then containers could be reached. Make firewall \
         scripts flush their own tables instead of `flush ruleset`"
    )]
    RulesRestored {
        /// How often.
        times: u64,
    },
    /// The host does not forward.
    #[error(
        "net.ipv4.ip_forward is 0: containers reach nothing; set it to 1 and see who resets it"
    )]
    Forwarding,
    /// Another firewall drops what containers send.
    #[error(
        "the chain \"{chain}\" drops forwarded packets by policy, also containers' traffic; TEU \
         does not touch it. Let {bridge} pass there: with Docker `iptables -I DOCKER-USER -i \
         {bridge} -j ACCEPT; iptables -I DOCKER-USER -o {bridge} -j ACCEPT`, with nft the same in \
         that chain. TEU's own rules still deny what is not allowed"
    )]
    ForeignDrop {
        /// Which chain: family, table, name.
        chain: String,
        /// TEU's bridge.
        bridge: String,
    },
    /// A container has lost its veth.
    #[error("slot {slot} has no port on the bridge; destroy its container and spawn it again")]
    Port {
        /// Whose.
        slot: SlotName,
    },
    /// It could not be found out.
    #[error("the network could not be checked: {0}")]
    Unknown(String),
}
