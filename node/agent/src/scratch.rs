//! Where containers' writable layers and logs lie: one bounded file system for each node.
//!
//! ```text
//! <data>/scratch.btrfs           a file of reserved size, with a btrfs in it, that grows to half of the host's disk
//! <data>/scratch/layers/<id>/    a subvolume with a bound: upper, work     (the container's --storage)
//!               logs/<id>/       a subvolume with a bound: its processes' output
//! <data>/containers/<id>/        the record; `upper`, `work` and `logs` are links to the above
//! ```
//! So no container can fill the host's disk, the agent's state, the pool of volumes, or another container's log (decision
//! 0018). Owner: the agent. Invariants: it is mounted before the first keeper is forked, whose mount namespace
//! keeps a copy; a machine that cannot have it keeps containers in its data directory, and `doctor` says
//! that nothing bounds them there but the node's reserve.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::AsFd,
        unix::fs::{DirBuilderExt, symlink},
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustix::fs::statvfs;
use teu_protocol::ids::ContainerId;

use crate::{
    link::chain,
    sys::btrfs::bounded,
    volumes::pool::{LoopFile, LoopLimits, PoolError, PoolSpace, Tools, no_embedded_pool},
};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What a container may write into its root, unless `--storage` says otherwise: Docker's size for drivers that
/// have one.
pub const DEFAULT_STORAGE_BYTES: u64 = 10 * GIB;
/// What a container's logs may take: 32 processes that wrote as much as is kept.
const LOG_BYTES: u64 = 512 * MIB;
/// Below this, a container that is spawned would soon fail: none is.
const RESERVE_BYTES: u64 = 64 * MIB;
/// As the pool's (`LoopLimits::default`): what is left free on the host.
const HOST_RESERVE_BYTES: u64 = 2 * GIB;
/// How often it is looked whether the file must grow: whoever writes 4 GiB a second does not meet its end.
const GROW_EVERY: Duration = Duration::from_millis(200);
const HEADROOM_BYTES: u64 = GIB;

const LAYERS: &str = "layers";
const LOGS: &str = "logs";

/// A handle; cheap to clone.
#[derive(Debug, Clone)]
pub struct Scratch(Arc<Place>);

#[derive(Debug)]
enum Place {
    Bounded(Box<Bounded>),
    /// In the data directory; why.
    Plain(String),
}

#[derive(Debug)]
struct Bounded {
    file: LoopFile,
    tools: Tools,
}

impl Scratch {
    /// None: everything lies in the data directory.
    #[must_use]
    pub fn none(why: &str) -> Self {
        Self(Arc::new(Place::Plain(why.to_owned())))
    }

    /// Opens it, or makes it. Blocking.
    #[must_use]
    pub fn open(data: &Path) -> Self {
        Self::sized(data, limits(data))
    }

    /// The same with other sizes.
    #[must_use]
    pub fn sized(data: &Path, limits: LoopLimits) -> Self {
        if let Some(why) = no_embedded_pool() {
            return Self::none(&why);
        }
        match Bounded::open(data, limits) {
            Ok(bounded) => Self(Arc::new(Place::Bounded(Box::new(bounded)))),
            Err(error) => {
                tracing::warn!("containers are not bounded on this node: {}", chain(&error));
                Self::none(&chain(&error))
            }
        }
    }

    /// Why nothing bounds containers here.
    #[must_use]
    pub fn unbounded(&self) -> Option<&str> {
        match &*self.0 {
            Place::Plain(why) => Some(why),
            Place::Bounded(_) => None,
        }
    }

    /// Makes the place of a container, and the links to it in `dir`. `false`: `dir` is the place itself.
    ///
    /// # Errors
    /// What the kernel said. What was made is removed by [`Self::remove`].
    pub fn make(&self, id: ContainerId, dir: &Path, bound: Option<u64>) -> io::Result<bool> {
        let Place::Bounded(bounded) = &*self.0 else {
            return Ok(false);
        };
        let name = id.to_string();
        let bound = bound.unwrap_or(DEFAULT_STORAGE_BYTES);
        for (kind, bytes) in [(LAYERS, bound), (LOGS, LOG_BYTES)] {
            let parent = bounded.file.mount_dir.join(kind);
            bounded::create(File::open(&parent)?.as_fd(), &parent, &name, bytes)?;
        }
        let layer = bounded.file.mount_dir.join(LAYERS).join(&name);
        for part in ["upper", "work"] {
            DirBuilder::new().mode(0o755).create(layer.join(part))?;
            symlink(layer.join(part), dir.join(part))?;
        }
        symlink(
            bounded.file.mount_dir.join(LOGS).join(&name),
            dir.join(crate::keeper::LOG_DIR),
        )?;
        Ok(true)
    }

    /// Removes what a container had. Gone already is fine.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn remove(&self, id: ContainerId) -> io::Result<()> {
        let Place::Bounded(bounded) = &*self.0 else {
            return Ok(());
        };
        bounded.remove(&id.to_string())
    }

    /// Removes what belongs to no container that is in `containers`.
    pub fn sweep(&self, containers: &Path) {
        let Place::Bounded(bounded) = &*self.0 else {
            return;
        };
        for kind in [LAYERS, LOGS] {
            let entries = fs::read_dir(bounded.file.mount_dir.join(kind));
            for entry in entries.into_iter().flatten().flatten() {
                let name = entry.file_name();
                let Some(name) = name.to_str().filter(|one| !containers.join(one).exists()) else {
                    continue;
                };
                if let Err(error) = bounded.remove(name) {
                    tracing::warn!(name, %error, "what a container left in the scratch space stays");
                }
            }
        }
    }

    /// Its room: what containers can still write, its growth included. `None`: it is the host's.
    #[must_use]
    pub fn space(&self) -> Option<PoolSpace> {
        let Place::Bounded(bounded) = &*self.0 else {
            return None;
        };
        bounded.space().ok()
    }

    /// Whether another container fits; else why not.
    ///
    /// # Errors
    /// What is full, for people.
    pub fn has_room(&self) -> Result<(), String> {
        let Place::Bounded(bounded) = &*self.0 else {
            return Ok(());
        };
        let space = bounded.space().map_err(|error| {
            format!(
                "its file system for containers cannot be used: {}",
                chain(&error)
            )
        })?;
        if space.free < RESERVE_BYTES {
            return Err(format!(
                "containers have written all but {} MiB of the {} MiB that they may take together",
                space.free / MIB,
                space.total / MIB
            ));
        }
        Ok(())
    }

    /// What a person should know.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        match &*self.0 {
            Place::Bounded(bounded) => bounded.file.warnings(&bounded.tools),
            Place::Plain(_) => Vec::new(),
        }
    }

    /// Grows the file as containers fill it, for as long as the agent runs.
    pub fn keep_growing(&self) {
        if self.unbounded().is_some() {
            return;
        }
        // An agent that begins again opens it anew, and cannot while this one has it.
        let scratch = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            let mut said = String::new();
            loop {
                tokio::time::sleep(GROW_EVERY).await;
                let Some(one) = scratch.upgrade().map(Self) else {
                    return;
                };
                let grown = tokio::task::spawn_blocking(move || one.grow()).await;
                if let Ok(Err(error)) = grown {
                    let why = chain(&error);
                    if why != said {
                        tracing::warn!("the file system of containers does not grow: {why}");
                        said = why;
                    }
                }
            }
        });
    }

    fn grow(&self) -> Result<(), PoolError> {
        match &*self.0 {
            Place::Bounded(bounded) => bounded.grow(),
            Place::Plain(_) => Ok(()),
        }
    }
}

/// Half of the host's disk at most: the other half is for images, volumes and everybody else.
fn limits(data: &Path) -> LoopLimits {
    let disk = statvfs(data).map_or(0, |disk| disk.f_blocks * disk.f_frsize);
    LoopLimits {
        initial: GIB / 2,
        headroom: HEADROOM_BYTES,
        max: (disk / 2 / MIB * MIB).max(GIB),
        host_reserve: HOST_RESERVE_BYTES,
    }
}

impl Bounded {
    fn open(data: &Path, limits: LoopLimits) -> Result<Self, PoolError> {
        let file = LoopFile {
            file: data.join("scratch.btrfs"),
            mount_dir: data.join("scratch"),
            limits,
        };
        let tools = Tools::lock(&file.file.with_extension("lock"))?;
        let containers = data.join("containers");
        let unused = fs::read_dir(&containers).is_ok_and(|mut entries| entries.next().is_none());
        if unused && !file.is_mounted() {
            // It only ever grows; with nothing in it, it begins anew.
            let _ = fs::remove_file(&file.file);
        }
        file.make(&tools)?;
        file.mount(&tools)?;
        let bounded = Self { file, tools };
        if bounded.file.is_read_only() {
            return Err(PoolError::Faulted(format!(
                "{} is read-only after an error; `dmesg` tells which. It is made anew when the node starts without containers",
                bounded.file.mount_dir.display()
            )));
        }
        bounded.prepare().map_err(|source| PoolError::Io {
            action: format!("prepare {}", bounded.file.mount_dir.display()),
            source,
        })?;
        bounded.grow()?;
        Ok(bounded)
    }

    fn prepare(&self) -> io::Result<()> {
        let dir = &self.file.mount_dir;
        bounded::enable_quotas(File::open(dir)?)?;
        for kind in [LAYERS, LOGS] {
            match DirBuilder::new().mode(0o711).create(dir.join(kind)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        for kind in [LAYERS, LOGS] {
            bounded::destroy(File::open(self.file.mount_dir.join(kind))?.as_fd(), name)?;
        }
        Ok(())
    }

    fn grow(&self) -> Result<(), PoolError> {
        let (free, _) = self.free()?;
        match self.file.should_grow(free)? {
            true => self.file.grow(&self.tools, free),
            false => Ok(()),
        }
    }

    /// Free and all bytes of the file system as it is now.
    fn free(&self) -> Result<(u64, u64), PoolError> {
        let found = statvfs(&self.file.mount_dir).map_err(|errno| PoolError::Io {
            action: format!("look at {}", self.file.mount_dir.display()),
            source: errno.into(),
        })?;
        Ok((
            found.f_bavail * found.f_frsize,
            found.f_blocks * found.f_frsize,
        ))
    }

    fn space(&self) -> Result<PoolSpace, PoolError> {
        let ((free, total), more) = (self.free()?, self.file.growable()?);
        Ok(PoolSpace {
            total: total + more,
            free: free + more,
        })
    }
}

#[cfg(test)]
mod tests;
