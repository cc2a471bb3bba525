//! Containers that may not see the current tree of a volume: it is owed to them.
//!
//! ```text
//! agent's start, a roll-back that cannot tell, an exchange that failed ─▶ owed
//! owed ─▶ exchanged, or ended: not owed    (tried at once, then whenever the pool is maintained)
//!      └▶ the pool cannot be read: the container goes on, and stays owed
//! ```
//! Owner: the worker. Invariants: whatever comes of an attempt, the container runs afterwards: one that an
//! earlier agent left frozen does not wait for a pool that may never come back. What the pool has half
//! done is finished before (`Pool::recover`), or the tree might be replaced again behind the container.
//!
//! Recovery may remove an old tree before its containers were given the new one. They lose nothing by it:
//! a removed tree keeps what is open and has no other names any more, so nobody reads old data for
//! current, and its mounts are still told from the current tree's and replaced.

use std::collections::BTreeMap;

use teu_protocol::{ids::ContainerId, message::Refusal};

use super::{Mounted, Worker, container_mounts};
use crate::{
    containers::refuse_internal,
    keeper::KeeperLink,
    sys::{
        cgroup::{Cgroup, Hierarchies},
        names::SlotName,
    },
    volumes::{
        mounts::{self, ContainerMounts},
        pool::Pool,
    },
};

/// All of them, by container.
#[derive(Debug, Default)]
pub(super) struct Owed(BTreeMap<ContainerId, Debt>);

#[derive(Debug)]
struct Debt {
    mounted: Mounted,
    /// Why not yet, as it was logged last.
    logged: String,
}

impl Owed {
    pub(super) fn add(&mut self, mounted: Mounted) {
        let debt = Debt {
            mounted,
            logged: String::new(),
        };
        self.0.insert(debt.mounted.container, debt);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Worker {
    /// Gives what is owed, as far as that can be done now.
    pub(super) fn settle(&mut self) {
        if self.owed.is_empty() {
            return;
        }
        let pool = self.pool();
        for (container, mut debt) in std::mem::take(&mut self.owed.0) {
            let settled = match &pool {
                Ok(pool) => self.show(pool.as_ref(), &debt.mounted),
                Err(refusal) => Err(refusal.clone()),
            };
            match settled {
                Ok(true) => tracing::info!(%container, "sees its volumes as they are now"),
                Ok(false) => {}
                Err(_) if self.has_ended(&debt.mounted) => {}
                Err(refusal) => {
                    thaw(&self.cgroup_parent, container, &debt.mounted.slot);
                    let why = refusal.to_string();
                    if debt.logged != why {
                        tracing::error!(%container, "may see what was before a roll-back: {why}");
                        debt.logged = why;
                    }
                    self.owed.0.insert(container, debt);
                }
            }
        }
    }

    fn show(&self, pool: &dyn Pool, mounted: &Mounted) -> Result<bool, Refusal> {
        let container = container_mounts(pool, &self.cgroup_parent, mounted)?;
        container
            .as_ref()
            .map_or(Ok(false), mounts::reconcile)
            .map_err(|error| refuse_internal("its volumes cannot be exchanged", &error))
    }

    /// Asked without the pool, which may not know the volumes any more.
    fn has_ended(&self, mounted: &Mounted) -> bool {
        let place = (self.cgroup_parent.as_str(), &mounted.slot);
        let (id, keeper): (_, &KeeperLink) = (mounted.container, &mounted.keeper);
        let looked = ContainerMounts::new(id, keeper, place, mounted.ids, Vec::new());
        match looked {
            Ok(found) => found.is_none_or(|one| !one.runs()),
            Err(_) => false,
        }
    }
}

/// Lets a container go on that an earlier agent may have stopped, whatever it has mounted.
pub fn thaw(cgroup_parent: &str, container: ContainerId, slot: &SlotName) {
    let thawed = Hierarchies::detect()
        .map_err(|error| error.to_string())
        .and_then(|all| {
            let cgroup = Cgroup::named(&all, cgroup_parent, slot.as_str());
            cgroup.thaw().map_err(|error| crate::link::chain(&error))
        });
    if let Err(why) = thawed {
        tracing::error!(%container, "does not go on: {why}");
    }
}
