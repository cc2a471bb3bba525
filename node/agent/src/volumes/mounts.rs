//! Volumes in running containers: who uses one, and exchanging its tree under them.
//!
//! Owner: the volume worker, on a thread that may block. Invariants: a container that was frozen here
//! is thawed on every way out; nothing of a container is exchanged while it runs; a path that a
//! container or a volume chose is never followed out of the container's root.
//!
//! How to come by a [`ContainerMounts`]: see [`ContainerMounts::new`].

use std::{
    io,
    path::{Path, PathBuf},
};

use teu_protocol::ids::ContainerId;

mod exchange;

pub use crate::sys::holders::{Held, Holder};
use crate::{
    keeper::{IdRange, KeeperLink, VolumeMountPlan},
    sys::{
        cgroup::{Cgroup, CgroupError, Hierarchies},
        holders,
        names::SlotName,
    },
};

/// A running container with the volumes that it has mounted.
#[derive(Debug, Clone)]
pub struct ContainerMounts {
    /// Which.
    pub container: ContainerId,
    /// Its first process, as the host sees it.
    pub init_pid: i32,
    /// Its slot's group.
    pub cgroup: Cgroup,
    /// Its account's range.
    pub ids: IdRange,
    /// All of its volumes as in its [`StartPlan`](crate::keeper::StartPlan); each `source` is what
    /// `Pool::tree` says now.
    pub mounts: Vec<VolumeMountPlan>,
}

/// Why a mounted volume was not rolled back, or not everywhere.
#[derive(Debug, thiserror::Error)]
pub enum RollBackError<E: std::error::Error + 'static> {
    /// Nothing was done.
    #[error("a container that has the volume mounted cannot be stopped for a moment")]
    Freeze {
        /// Which.
        container: ContainerId,
        /// Why.
        #[source]
        source: CgroupError,
    },
    /// Nothing was done; `force` would.
    #[error("the volume is in use")]
    Held(Vec<(ContainerId, Holder)>),
    /// It cannot be seen who uses it; nothing was done.
    #[error("cannot see who uses the volume")]
    Look(#[source] io::Error),
    /// The roll-back itself.
    #[error(transparent)]
    RollBack(E),
    /// It was rolled back, but these containers may still see the old tree: try [`reconcile`], or
    /// end them.
    #[error("rolled back, but a container still sees what was before")]
    Exchange(Vec<(ContainerId, io::Error)>),
}

impl ContainerMounts {
    /// Of a container whose keeper is `keeper` in `slot` (`Sandbox`, `Yard::cgroup_parent`, and the
    /// account's range). `None` if it has not started yet: then it has no mounts to look after.
    ///
    /// # Errors
    /// The host has no control groups.
    pub fn new(
        container: ContainerId,
        keeper: &KeeperLink,
        (cgroup_parent, slot): (&str, &SlotName),
        ids: IdRange,
        mounts: Vec<VolumeMountPlan>,
    ) -> io::Result<Option<Self>> {
        let Some(init_pid) = keeper.init_pid() else {
            return Ok(None);
        };
        let cgroup = Cgroup::named(&Hierarchies::detect()?, cgroup_parent, slot.as_str());
        Ok(Some(Self {
            container,
            init_pid,
            cgroup,
            ids,
            mounts,
        }))
    }

    /// Whether its first process is still there (and the pid not somebody else's by now).
    #[must_use]
    pub fn runs(&self) -> bool {
        self.cgroup.pids().contains(&self.init_pid)
    }

    /// Brings all its processes to a standstill, until the result is dropped.
    ///
    /// # Errors
    /// They do not stand still in time; they run then.
    pub fn freeze(&self) -> Result<Frozen<'_>, CgroupError> {
        self.cgroup.freeze()?;
        Ok(Frozen(self))
    }

    /// Who of its processes has something of the file system `device` open.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn holders(&self, device: u64) -> io::Result<Vec<Holder>> {
        holders::holders(&self.cgroup.pids(), device)
    }

    /// Whether each of its mounts of the volume at `tree` shows the tree that is there now.
    ///
    /// # Errors
    /// What the system said.
    pub fn shows(&self, tree: &Path) -> io::Result<bool> {
        exchange::shows(self, tree)
    }

    /// Shows it the tree at `tree` in the place of what lies on the file system `old` (a tree's
    /// `st_dev`), wherever the container has that now. To be called while it stands still. Mounts that
    /// show the new tree already stay.
    ///
    /// # Errors
    /// What the system said; may be tried again.
    pub fn exchange(&self, old: u64, tree: &Path) -> io::Result<()> {
        exchange::exchange(self, tree, exchange::Stale::Device(old)).map(drop)
    }
}

/// A container that stands still; dropped, it goes on.
#[derive(Debug)]
pub struct Frozen<'a>(&'a ContainerMounts);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.cgroup.thaw() {
            let container = self.0.container;
            tracing::error!(%container, "does not go on: {}", crate::link::chain(&error));
        }
    }
}

/// The `st_dev` of a volume's tree: each btrfs subvolume and each zfs dataset has its own.
///
/// # Errors
/// What stat(2) said.
pub fn device(tree: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata(tree)?.dev())
}

/// Decision 4, in order: stops the containers, looks who holds something of the volume at `tree` (unless
/// `force`), rolls back, shows the containers the new tree, lets them go on.
///
/// `roll_back` returns the new tree if mounts made before show something else now
/// (`Pool::rollback_replaces_tree`), else `None`. It runs while the containers stand still.
///
/// # Errors
/// [`RollBackError`]. The containers go on in any case.
pub fn roll_back_mounted<E: std::error::Error + 'static>(
    containers: &[ContainerMounts],
    force: bool,
    tree: &Path,
    roll_back: impl FnOnce() -> Result<Option<NewTree>, E>,
) -> Result<(), RollBackError<E>> {
    let old = device(tree).map_err(RollBackError::Look)?;
    // Dropped on every way out, also if something panics.
    let mut still = Vec::new();
    for one in containers.iter().filter(|one| one.runs()) {
        let frozen = one.freeze().map_err(|source| RollBackError::Freeze {
            container: one.container,
            source,
        })?;
        still.push(frozen);
    }
    if !force {
        let mut held = Vec::new();
        for Frozen(one) in &still {
            let holders = one.holders(old).map_err(RollBackError::Look)?;
            held.extend(holders.into_iter().map(|holder| (one.container, holder)));
        }
        if !held.is_empty() {
            return Err(RollBackError::Held(held));
        }
    }
    let Some(new) = roll_back().map_err(RollBackError::RollBack)? else {
        return Ok(());
    };
    let exchange = |one: &ContainerMounts| match new.old_is_there {
        true => one.exchange(old, &new.tree),
        false => catch_up(one).map(drop),
    };
    let failed: Vec<_> = still
        .iter()
        .filter_map(|Frozen(one)| Some((one.container, exchange(one).err()?)))
        .collect();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(RollBackError::Exchange(failed))
    }
}

/// What a roll-back made.
#[derive(Debug)]
pub struct NewTree {
    /// Where it is.
    pub tree: PathBuf,
    /// The old one has not been removed meanwhile: then its device number may be another tree's already,
    /// and no longer tells its mounts.
    pub old_is_there: bool,
}

/// After a restart, or a failed exchange: whatever is left to do is done. The container sees its volumes'
/// current trees, and runs. `true` if something had to be exchanged.
///
/// Old trees may have been removed before: their mounts are told by not being of current ones.
///
/// # Errors
/// What the system said; the container runs in any case.
pub fn reconcile(container: &ContainerMounts) -> io::Result<bool> {
    // An earlier agent may have left it standing: it goes on when all is done.
    let _go_on = Frozen(container);
    if !container.runs() {
        return Ok(false);
    }
    catch_up(container)
}

/// Exchanges all that is not of a current tree, while the container stands still; it is not thawed.
fn catch_up(container: &ContainerMounts) -> io::Result<bool> {
    let mut trees: Vec<&Path> = container
        .mounts
        .iter()
        .map(|one| one.source.as_path())
        .collect();
    trees.sort_unstable();
    trees.dedup();
    let current: Vec<u64> = trees
        .iter()
        .map(|tree| device(tree))
        .collect::<io::Result<_>>()?;
    let mut exchanged = false;
    for tree in trees {
        if container.shows(tree)? {
            continue;
        }
        container.cgroup.freeze().map_err(io::Error::other)?;
        exchanged |= exchange::exchange(container, tree, exchange::Stale::NotOneOf(&current))?;
    }
    Ok(exchanged)
}
