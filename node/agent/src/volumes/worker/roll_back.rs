//! Giving a volume back as it was, also under containers that have it mounted.
//!
//! Owner: the worker. Invariants: refused before anything is done, or done wholly; containers go on
//! in any case; one that cannot be given the new tree now is given it later (`owed`), and the answer says
//! so. Next: `volumes::mounts` for how they are stopped and what they see.

use std::{fs::File, io, os::unix::fs::MetadataExt, path::Path, time::Instant};

use teu_node_core::volume::VolumeDone;
use teu_protocol::{
    ids::{ContainerId, RequestId, Tag, VolumeId},
    message::{Refusal, RefusalCode, RollBack, SnapshotInfo},
};

use super::{Job, Mounted, Recovery, Worker, refuse_pool};
use crate::{
    containers::refuse_internal,
    link::chain,
    volumes::{
        mounts::{self, ContainerMounts, NewTree, RollBackError},
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
        let old = Old::of(pool, &tree)
            .map_err(|error| refuse_internal("the volume cannot be looked at", &error))?;
        let containers = self.containers(pool, &job.mounted)?;
        let rolled = mounts::roll_back_mounted(&containers, order.force, &tree, || {
            let done = pool.roll_back(id, &order.snapshot);
            fail::fail_point!("volume-rollback-made");
            outcome(pool, id, &old, done)
        });
        let names = Names(&job.mounted);
        let left = match rolled {
            Ok(()) => Vec::new(),
            Err(RollBackError::Exchange(left)) => exchange_again(&containers, left),
            Err(RollBackError::RollBack(Unrolled { error, is_clear })) => {
                let mut refusal = refuse_pool(&error);
                if !is_clear {
                    refusal.message += &names.of_all();
                    self.recovery = Recovery::First;
                    self.owe(job.mounted);
                }
                return Err(refusal);
            }
            Err(error) => return Err(refuse_roll_back(error, &names)),
        };
        self.keep(request)?;
        if pool.rollback_replaces_tree() {
            self.recovery.once_quiet(Instant::now());
        }
        if left.is_empty() {
            fail::fail_point!("volume-rollback-answer");
            return Ok(VolumeDone::done());
        }
        let message = format!(
            "the volume was rolled back, but these containers cannot be given the new tree yet: {}; the \
             node goes on trying, or end them",
            names.list(&left)
        );
        let mut mounted = job.mounted;
        mounted.retain(|one| left.contains(&one.container));
        self.owe(mounted);
        Err(Refusal::new(RefusalCode::Internal, message))
    }

    fn owe(&mut self, mounted: Vec<Mounted>) {
        for one in mounted {
            self.owed.add(one);
        }
    }
}

/// A roll-back that failed.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
struct Unrolled {
    error: PoolError,
    /// The volume is as before. Else it shows when the pool can be read again.
    is_clear: bool,
}

/// The tree of before, if a roll-back replaces it; open, so that it can be asked what became of it.
struct Old(Option<(File, u64)>);

impl Old {
    fn of(pool: &dyn Pool, tree: &Path) -> io::Result<Self> {
        if !pool.rollback_replaces_tree() {
            return Ok(Self(None));
        }
        let file = File::open(tree)?;
        let device = file.metadata()?.dev();
        Ok(Self(Some((file, device))))
    }

    /// Whether it still has its device number, which a removed subvolume has lost.
    fn is_there(&self) -> bool {
        let same =
            |(file, device): &(File, u64)| file.metadata().is_ok_and(|now| now.dev() == *device);
        self.0.as_ref().is_some_and(same)
    }

    fn is_current(&self, device: u64) -> bool {
        self.is_there() && self.0.as_ref().is_some_and(|(_, own)| *own == device)
    }
}

/// What came of a roll-back: the tree that containers have to be given, if they need that. One that
/// failed half-way is finished or undone at once, while nobody can write.
fn outcome(
    pool: &dyn Pool,
    id: VolumeId,
    old: &Old,
    done: Result<(), PoolError>,
) -> Result<Option<NewTree>, Unrolled> {
    let failed = |is_clear| move |error| Unrolled { error, is_clear };
    let new = |tree| {
        let old_is_there = old.is_there();
        old.0.as_ref().map(|_| NewTree { tree, old_is_there })
    };
    let Err(error) = done else {
        return pool.tree(id).map(new).map_err(failed(false));
    };
    tracing::warn!(volume = %id.short(), "a roll-back failed: {}", chain(&error));
    let tree = pool.recover().and_then(|()| pool.tree(id));
    let tree = tree.map_err(failed(false))?;
    match mounts::device(&tree) {
        Ok(device) if old.0.is_none() || old.is_current(device) => Err(failed(true)(error)),
        Ok(_) => Ok(new(tree)),
        Err(_) => Err(failed(false)(error)),
    }
}

/// Once more for those that did not take it. Returns which still have not.
fn exchange_again(
    containers: &[ContainerMounts],
    left: Vec<(ContainerId, io::Error)>,
) -> Vec<ContainerId> {
    let still = left.into_iter().filter(|(id, first)| {
        let container = containers.iter().find(|one| one.container == *id);
        let again = container.map(mounts::reconcile);
        if let Some(Err(error)) = &again {
            tracing::error!(container = %id, "sees an old tree: {first}; again: {error}");
        }
        matches!(again, Some(Err(_)))
    });
    still.map(|(id, _)| id).collect()
}

/// What containers are called.
struct Names<'a>(&'a [Mounted]);

impl Names<'_> {
    fn of(&self, container: ContainerId) -> String {
        let known = self.0.iter().find(|one| one.container == container);
        known.map_or_else(|| container.short(), |one| one.name.clone())
    }

    fn list(&self, containers: &[ContainerId]) -> String {
        let names: Vec<String> = containers.iter().map(|one| self.of(*one)).collect();
        names.join(", ")
    }

    /// For a volume of which it is not clear what it is now.
    fn of_all(&self) -> String {
        let all: Vec<ContainerId> = self.0.iter().map(|one| one.container).collect();
        let mut text =
            "; whether the volume was rolled back is known when the pool can be used again"
                .to_owned();
        if !all.is_empty() {
            text += &format!(
                ": until then, these may see it as it was and what they write may be lost: {}",
                self.list(&all)
            );
        }
        text
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

fn refuse_roll_back(error: RollBackError<Unrolled>, names: &Names<'_>) -> Refusal {
    match error {
        RollBackError::RollBack(unrolled) => refuse_pool(&unrolled.error),
        RollBackError::Held(held) => {
            let total = held.len();
            let mut shown: Vec<String> = held
                .iter()
                .take(SHOWN)
                .map(|(container, holder)| {
                    format!("{holder} in container {}", names.of(*container))
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
