//! Giving a volume back as it was, also under containers that have it mounted.
//!
//! Owner: the worker. Invariants: refused before anything is done, or done wholly; containers go on
//! in any case. Next: `volumes::mounts` for how they are stopped and what they see.

use teu_node_core::volume::VolumeDone;
use teu_protocol::{
    ids::{RequestId, Tag},
    message::{Refusal, RefusalCode, RollBack, SnapshotInfo},
};

use super::{Job, Worker, refuse_pool};
use crate::{
    containers::refuse_internal,
    volumes::{
        mounts::{self, ContainerMounts, Held, Holder, RollBackError},
        pool::{Pool, PoolError},
    },
};

/// Names in a message.
const SHOWN: usize = 8;

impl Worker {
    pub(super) fn roll_back(
        &mut self,
        pool: &dyn Pool,
        request: RequestId,
        order: &RollBack,
        job: Job,
    ) -> Result<VolumeDone, Refusal> {
        if self.was_done(request)? {
            return Ok(VolumeDone::done());
        }
        let id = order.volume;
        let snapshots = pool.snapshots(id).map_err(|error| refuse_pool(&error))?;
        may_discard(&snapshots, order, &job.work.held)?;
        let tree = pool.tree(id).map_err(|error| refuse_pool(&error))?;
        let containers = self.containers(pool, job.mounted)?;
        let rolled = mounts::roll_back_mounted(&containers, order.force, &tree, || {
            pool.roll_back(id, &order.snapshot)?;
            fail::fail_point!("volume-rollback-made");
            if pool.rollback_replaces_tree() {
                pool.tree(id).map(Some)
            } else {
                Ok(None)
            }
        });
        let outcome = match rolled {
            Ok(()) => Ok(VolumeDone::done()),
            Err(RollBackError::Exchange(left)) => self.exchange_again(&containers, left),
            Err(error) => return Err(refuse_roll_back(error)),
        };
        self.keep(request)?;
        if pool.rollback_replaces_tree() {
            // The old tree goes once nothing is on its way into the pool.
            self.recover_due = true;
        }
        fail::fail_point!("volume-rollback-answer", |_| outcome.clone());
        outcome
    }

    /// Once more for those that did not take it.
    fn exchange_again(
        &self,
        containers: &[ContainerMounts],
        left: Vec<(teu_protocol::ids::ContainerId, std::io::Error)>,
    ) -> Result<VolumeDone, Refusal> {
        let mut still = Vec::new();
        for (id, first) in left {
            let container = containers.iter().find(|one| one.container == id);
            let again = container.map(mounts::reconcile);
            if let Some(Err(error)) = again {
                tracing::error!(container = %id, "sees an old tree: {first}; again: {error}");
                still.push(id.short());
            }
        }
        if still.is_empty() {
            return Ok(VolumeDone::done());
        }
        let message = format!(
            "the volume was rolled back, but these containers still see what was before: {}; end \
             them",
            still.join(", ")
        );
        Err(Refusal::new(RefusalCode::Internal, message))
    }
}

fn may_discard(snapshots: &[SnapshotInfo], order: &RollBack, held: &[Tag]) -> Result<(), Refusal> {
    let Some(place) = snapshots.iter().position(|one| one.name == order.snapshot) else {
        return Err(refuse_pool(&PoolError::NoSnapshot(order.snapshot.clone())));
    };
    let later: Vec<&Tag> = snapshots[place + 1..].iter().map(|one| &one.name).collect();
    if let Some(name) = later.iter().find(|name| held.contains(name)) {
        let message = format!(
            "the snapshot `{name}`, which would have to go, is being exported; wait until that ends"
        );
        return Err(Refusal::new(RefusalCode::Busy, message));
    }
    if later.is_empty() || order.discard_later {
        return Ok(());
    }
    let mut names: Vec<String> = later
        .iter()
        .take(SHOWN)
        .map(|name| format!("`{name}`"))
        .collect();
    if later.len() > SHOWN {
        names.push(format!("and {} more", later.len() - SHOWN));
    }
    let message = format!(
        "snapshots were made after `{}`: {}; they would be destroyed. Say so (discard later ones), \
         or make a clone of it instead",
        order.snapshot,
        names.join(", ")
    );
    Err(Refusal::new(RefusalCode::WrongState, message))
}

fn refuse_roll_back(error: RollBackError<PoolError>) -> Refusal {
    match error {
        RollBackError::RollBack(error) => refuse_pool(&error),
        RollBackError::Held(held) => {
            let total = held.len();
            let mut shown: Vec<String> = held
                .iter()
                .take(SHOWN)
                .map(|(container, holder)| {
                    format!("{} in container {}", describe(holder), container.short())
                })
                .collect();
            if total > SHOWN {
                shown.push(format!("and {} more", total - SHOWN));
            }
            let message = format!(
                "the volume is in use: {}; stop these, or force it (they keep what they have open, \
                 stale)",
                shown.join("; ")
            );
            Refusal::new(RefusalCode::Busy, message)
        }
        error @ (RollBackError::Freeze { .. }
        | RollBackError::Look(_)
        | RollBackError::Exchange(_)) => refuse_internal("the volume was not rolled back", &error),
    }
}

fn describe(holder: &Holder) -> String {
    let Holder {
        program,
        pid_in_container: pid,
        what,
    } = holder;
    match what {
        Held::File(path) => format!("{program} (pid {pid}) has {path} open"),
        Held::WorkingDirectory => format!("{program} (pid {pid}) works in it"),
        Held::Root => format!("{program} (pid {pid}) has its root in it"),
        Held::Mapping(path) => format!("{program} (pid {pid}) has {path} in memory"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_snapshots_are_named_and_exported_ones_stay() {
        let info = |name: &str| SnapshotInfo {
            name: name.parse().unwrap(),
            created_ms: 0,
            referenced_bytes: 0,
            exclusive_bytes: 0,
        };
        let all = [info("a"), info("b"), info("c")];
        let order = |snapshot: &str, discard_later| RollBack {
            volume: teu_protocol::ids::VolumeId::from_bytes([1; 16]),
            snapshot: snapshot.parse().unwrap(),
            discard_later,
            force: false,
        };
        let held = ["c".parse().unwrap()];
        assert_eq!(may_discard(&all, &order("c", false), &held), Ok(()));
        assert_eq!(may_discard(&all, &order("b", true), &[]), Ok(()));
        let refused = may_discard(&all, &order("a", false), &[]).unwrap_err();
        assert_eq!(refused.code, RefusalCode::WrongState);
        assert!(refused.message.contains("`b`, `c`"));
        let refused = may_discard(&all, &order("a", true), &held).unwrap_err();
        assert_eq!(refused.code, RefusalCode::Busy);
        let refused = may_discard(&all, &order("d", true), &[]).unwrap_err();
        assert_eq!(refused.code, RefusalCode::NotFound);
    }
}
