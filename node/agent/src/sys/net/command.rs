//! What the network worker can be asked, and how slots travel to who asked.
//!
//! Owned by whoever sends it. Invariant: every slot that was prepared either reaches its caller or
//! is taken back. Next: `worker`.

use std::sync::mpsc as std_mpsc;

use teu_node_core::firewall::Pair;
use tokio::sync::oneshot;

use super::config::SlotNet;
use super::error::NetError;
use super::problem::NetProblem;
use crate::sys::names::SlotName;

pub(super) type Reply<T> = oneshot::Sender<Result<T, NetError>>;

/// Slots on their way to the caller. If it stops waiting before it has them, even between the
/// sending and the receiving, they are taken back: dropping them unclaimed tells the worker.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) nets: Vec<SlotNet>,
    pub(super) unclaimed: std_mpsc::Sender<Vec<SlotName>>,
}

impl Delivery {
    pub(super) fn claim(mut self) -> Vec<SlotNet> {
        std::mem::take(&mut self.nets)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.nets.is_empty() {
            let slots = self.nets.iter().map(|net| net.slot.clone()).collect();
            let _ = self.unclaimed.send(slots);
        }
    }
}

/// All that may wake the worker.
#[derive(Debug)]
pub(super) enum Command {
    Prepare {
        keepers: Vec<(SlotName, u32)>,
        reply: Reply<Delivery>,
    },
    Release {
        slots: Vec<SlotName>,
        reply: Reply<()>,
    },
    Allow {
        pair: Pair,
        reply: Reply<()>,
    },
    Disallow {
        pair: Pair,
        reply: Reply<()>,
    },
    ReplaceAllowed {
        pairs: Vec<Pair>,
        reply: Reply<()>,
    },
    Allowed {
        reply: Reply<Vec<Pair>>,
    },
    Check {
        reply: Reply<Vec<NetProblem>>,
    },
    /// Somebody else changed nftables, or it is time to look.
    Verify,
    Close {
        reply: Reply<()>,
    },
}
