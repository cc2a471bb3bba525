//! Which containers' records have to be written, and how.
//!
//! Owner: the event loop. Invariant: a record that could not be written stays here until it is, or
//! its container is gone. A record whose processes alone changed is written without waiting for the disk:
//! processes do not outlive the machine, and executing one should take no longer than it does.

use std::{collections::BTreeMap, net::Ipv4Addr};

use teu_node_core::record::ContainerRecord;
use teu_protocol::ids::ContainerId;

#[derive(Debug, Default)]
pub(super) struct Records {
    /// Not written yet.
    changed: BTreeMap<ContainerId, ContainerRecord>,
    /// What is on disk, in the end.
    durable: BTreeMap<ContainerId, Rules>,
}

/// What must not come back after a crash of the machine.
#[derive(Debug, PartialEq, Eq)]
struct Rules {
    allowed_from: Vec<(ContainerId, Ipv4Addr)>,
    ip: Option<Ipv4Addr>,
}

impl Records {
    pub(super) fn changed(&mut self, record: ContainerRecord) {
        self.changed.insert(record.container, record);
    }

    /// Those to write now, and whether durably.
    pub(super) fn take(&mut self) -> Vec<(ContainerRecord, bool)> {
        let changed = std::mem::take(&mut self.changed);
        let with_durability = |record: ContainerRecord| {
            let durably = match self.durable.get(&record.container) {
                Some(known) => *known != Rules::of(&record),
                // As it was when it became ready.
                None => record.ip.is_none() || !record.allowed_from.is_empty(),
            };
            (record, durably)
        };
        changed.into_values().map(with_durability).collect()
    }

    pub(super) fn failed(&mut self, record: ContainerRecord) {
        self.changed.entry(record.container).or_insert(record);
    }

    pub(super) fn kept(&mut self, record: &ContainerRecord) {
        self.durable.insert(record.container, Rules::of(record));
    }

    /// The container is gone.
    pub(super) fn forget(&mut self, container: ContainerId) {
        self.changed.remove(&container);
        self.durable.remove(&container);
    }
}

impl Rules {
    fn of(record: &ContainerRecord) -> Self {
        Self {
            allowed_from: record.allowed_from.clone(),
            ip: record.ip,
        }
    }
}
