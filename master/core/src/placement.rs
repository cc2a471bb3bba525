//! Where a container runs: a pure choice among candidates.
//!
//! Memory is a promise: the sum of limits on a node never passes what it has. CPU is shared: a limit
//! must fit the node, and the freer node wins. Containers in flight count as promised at once, so
//! that a hundred spawns in one second do not all land on the node that was idle before.

use std::cmp::Reverse;

use teu_protocol::{
    ids::NodeId,
    message::{NodeCapacity, NodeUsage, Refusal, RefusalCode, ResourceLimits},
};

/// What a container without limits counts for when nodes are compared.
const NOMINAL: (u64, u64) = (100, 64 << 20);

/// A node with less free disk is full: layers and logs need some.
const DISK_SPARE_BYTES: u64 = 256 << 20;

/// What a node's containers were promised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Promises {
    pub(crate) containers: u64,
    /// Sums of the limits.
    pub(crate) cpu_millis: u64,
    pub(crate) memory_bytes: u64,
    /// Containers without such a limit.
    unlimited: (u64, u64),
}

impl Promises {
    pub(crate) fn add(&mut self, limits: &ResourceLimits) {
        self.containers += 1;
        self.cpu_millis += limits.cpu_millis.unwrap_or(0);
        self.memory_bytes += limits.memory_bytes.unwrap_or(0);
        self.unlimited.0 += u64::from(limits.cpu_millis.is_none());
        self.unlimited.1 += u64::from(limits.memory_bytes.is_none());
    }

    pub(crate) fn subtract(&mut self, limits: &ResourceLimits) {
        self.containers -= 1;
        self.cpu_millis -= limits.cpu_millis.unwrap_or(0);
        self.memory_bytes -= limits.memory_bytes.unwrap_or(0);
        self.unlimited.0 -= u64::from(limits.cpu_millis.is_none());
        self.unlimited.1 -= u64::from(limits.memory_bytes.is_none());
    }
}

/// A node that is up.
#[derive(Debug, Clone)]
pub(crate) struct Candidate<'a> {
    pub(crate) id: NodeId,
    pub(crate) name: &'a str,
    pub(crate) platform: &'a str,
    pub(crate) capacity: NodeCapacity,
    pub(crate) usage: NodeUsage,
    pub(crate) promises: Promises,
    /// Bytes of the image's layers that it has, in thousandths of all.
    pub(crate) layers_present: u16,
    /// Addresses that are left in its subnet.
    pub(crate) addresses: u64,
    /// What the account that asks has there. `None`: the location has no other account, and nobody to share with.
    pub(crate) share: Option<Share>,
}

/// What one account has of a node that others may want.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    pub(crate) promises: Promises,
    /// How many containers the node can have in all.
    pub(crate) containers_max: u64,
}

/// One account takes at most this much of a node's addresses and memory, in quarters: the last one is for others.
const SHARE_QUARTERS: u64 = 3;

/// What is to be placed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) platform: &'a str,
    pub(crate) limits: ResourceLimits,
}

/// The best candidate, or why there is none.
pub(crate) fn choose(candidates: &[Candidate<'_>], wanted: Wanted<'_>) -> Result<NodeId, Refusal> {
    let Some(_) = candidates.first() else {
        return Err(none("no node is up. `teu doctor` says why"));
    };
    let mut lacking = Vec::new();
    let mut best: Option<((u64, Reverse<u64>), NodeId)> = None;
    for candidate in candidates {
        match fits(candidate, wanted) {
            Err(reason) => lacking.push(reason),
            Ok(()) => {
                // Of equals the one with fewer containers, then the first by id: the choice must not
                // depend on anything else.
                let score = (score(candidate), Reverse(candidate.promises.containers));
                if best.is_none_or(|(top, _)| score > top) {
                    best = Some((score, candidate.id));
                }
            }
        }
    }
    if let Some((_, id)) = best {
        return Ok(id);
    }
    if lacking
        .iter()
        .all(|(code, _)| *code == RefusalCode::WrongPlatform)
    {
        let (code, text) = lacking.swap_remove(0);
        return Err(Refusal::new(code, text));
    }
    let texts: Vec<String> = lacking.into_iter().take(8).map(|(_, text)| text).collect();
    Err(none(&texts.join("; ")))
}

fn none(why: &str) -> Refusal {
    Refusal::new(
        RefusalCode::NoCapacity,
        format!("no node can take the container: {why}"),
    )
}

fn fits(node: &Candidate<'_>, wanted: Wanted<'_>) -> Result<(), (RefusalCode, String)> {
    let name = node.name;
    if !same_platform(node.platform, wanted.platform) {
        let text = format!(
            "the image is for {}, node `{name}` is {}. Get the image for that platform",
            wanted.platform, node.platform
        );
        return Err((RefusalCode::WrongPlatform, text));
    }
    let lacks = |text| Err((RefusalCode::NoCapacity, text));
    let cpu = wanted.limits.cpu_millis.unwrap_or(0);
    if cpu > node.capacity.cpu_millis {
        let has = node.capacity.cpu_millis;
        return lacks(format!(
            "node `{name}` has {has} thousandths of a core, {cpu} were asked"
        ));
    }
    let memory = wanted.limits.memory_bytes.unwrap_or(0);
    let free = node
        .capacity
        .memory_bytes
        .saturating_sub(node.promises.memory_bytes);
    if memory > free {
        let (free, memory) = (free >> 20, memory >> 20);
        return lacks(format!(
            "node `{name}` has {free} MiB of memory that no container was promised, \
             {memory} MiB were asked"
        ));
    }
    if node.usage.disk_free_bytes < DISK_SPARE_BYTES {
        let free = node.usage.disk_free_bytes >> 20;
        return lacks(format!("node `{name}` has only {free} MiB of disk left"));
    }
    if node.addresses == 0 {
        return lacks(format!("node `{name}` has no container address left"));
    }
    match node.share.and_then(|share| exceeds(&share, node, memory)) {
        Some(what) => lacks(format!(
            "this account has its share of node `{name}` ({what}); the rest is for other accounts"
        )),
        None => Ok(()),
    }
}

/// What of its share an account would exceed with one more container.
fn exceeds(share: &Share, node: &Candidate<'_>, memory: u64) -> Option<String> {
    let part = |all: u64| all / 4 * SHARE_QUARTERS + all % 4;
    let (containers, most) = (share.promises.containers, part(share.containers_max));
    if containers >= most {
        return Some(format!("{containers} of {most} containers"));
    }
    let (promised, most) = (
        share.promises.memory_bytes,
        part(node.capacity.memory_bytes),
    );
    (memory > 0 && promised + memory > most).then(|| {
        format!(
            "{} of {} MiB of memory, {} MiB were asked",
            promised >> 20,
            most >> 20,
            memory >> 20
        )
    })
}

/// The operating system and architecture agree; an image for an older variant of an architecture
/// runs on a node that does not say which it has.
fn same_platform(node: &str, image: &str) -> bool {
    let first_two = |text: &str| {
        text.splitn(3, '/')
            .take(2)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    first_two(node) == first_two(image)
}

/// Having all layers makes a node this much better, in thousandths of what it has free: fetching
/// layers takes longer than sharing a core with some, but it is done once, and a busy node stays busy.
const LAYERS_WORTH: u64 = 250;

/// Higher is better: the scarcer of free CPU and free memory, in thousandths of what the node has, more
/// if layers are there. The layers count in proportion to what is free, so they never make up for a
/// node that is busy: with all of them, one is chosen until it has a fifth less free than another.
fn score(node: &Candidate<'_>) -> u64 {
    let promises = &node.promises;
    let cpu_promised = promises.cpu_millis + promises.unlimited.0 * NOMINAL.0;
    let cpu_taken = cpu_promised.max(node.usage.cpu_used_millis);
    let memory_promised = promises.memory_bytes + promises.unlimited.1 * NOMINAL.1;
    let memory_used = node
        .capacity
        .memory_bytes
        .saturating_sub(node.usage.memory_free_bytes);
    let memory_taken = memory_promised.max(memory_used);
    let cpu = thousandths_free(node.capacity.cpu_millis, cpu_taken);
    let memory = thousandths_free(node.capacity.memory_bytes, memory_taken);
    cpu.min(memory) * (1_000_000 + u64::from(node.layers_present) * LAYERS_WORTH)
}

fn thousandths_free(has: u64, taken: u64) -> u64 {
    let free = u128::from(has.saturating_sub(taken));
    u64::try_from(free * 1_000 / u128::from(has.max(1))).unwrap_or(1_000)
}

#[cfg(test)]
mod tests;
