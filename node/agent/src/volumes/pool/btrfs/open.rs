//! Opening a btrfs pool.
//!
//! Owner: the btrfs pool. Invariant: a loop file that cannot be used now still makes a pool, which says
//! so; a directory that is not on a btrfs makes none.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, atomic::AtomicBool},
};

use super::{
    super::{
        LoopLimits, Pool, PoolError,
        command::{Tools, failed_io},
        loop_file::LoopFile,
    },
    BtrfsPool, btrfs,
    layout::Layout,
    require_btrfs,
    subvolume::Subvolumes,
};

impl BtrfsPool {
    /// An existing directory on a btrfs.
    ///
    /// # Errors
    ///
    /// It is not on a btrfs, a tool is missing, or another agent has it.
    pub fn open_dir(dir: &Path) -> Result<Self, PoolError> {
        let dir = fs::canonicalize(dir).map_err(failed_io(format!("open {}", dir.display())))?;
        require_btrfs(&dir)?;
        let tools = Tools::lock(&dir.join("lock"))?;
        let pool = Self::new(dir, tools, None);
        pool.prepare()?;
        Ok(pool)
    }

    /// A btrfs in a sparse file, which is made if missing, attached, and mounted at `mount_dir`.
    ///
    /// # Errors
    ///
    /// A tool is missing, the file cannot be made, or another agent has it. What else fails (a damaged
    /// file) makes a pool that says so, and is tried again by `maintain`.
    pub fn open_loop(file: &Path, mount_dir: &Path, limits: LoopLimits) -> Result<Self, PoolError> {
        let file =
            std::path::absolute(file).map_err(failed_io(format!("find {}", file.display())))?;
        // Not made: of a disk that is not mounted now, it would hide what is kept there.
        let dir = file.parent().unwrap_or(Path::new("/"));
        fs::metadata(dir).map_err(failed_io(format!(
            "find the directory {} of the pool's file",
            dir.display()
        )))?;
        let tools = Tools::lock(&file.with_extension("lock"))?;
        let file = LoopFile {
            file,
            mount_dir: mount_dir.to_owned(),
            limits,
        };
        file.make(&tools)?;
        let pool = Self::new(mount_dir.to_owned(), tools, Some(file));
        match pool.maintain() {
            Ok(()) => {}
            Err(error @ PoolError::NoTool { .. }) => return Err(error),
            Err(error) => tracing::warn!(%error, "the pool cannot be used now"),
        }
        Ok(pool)
    }

    fn new(dir: PathBuf, tools: Tools, file: Option<LoopFile>) -> Self {
        Self {
            layout: Layout(dir),
            subvolumes: Subvolumes { tools },
            file,
            making: Mutex::default(),
            rolling: Mutex::default(),
            unswept: AtomicBool::default(),
            maintaining: Mutex::default(),
        }
    }

    /// Makes the directories and turns accounting on, once the file system is there.
    pub(super) fn prepare(&self) -> Result<(), PoolError> {
        let made = self.layout.make();
        made.map_err(failed_io(format!(
            "make directories in {}",
            self.layout.0.display()
        )))?;
        match self.accounting("enabled").as_deref() {
            Some("1") => Ok(()),
            _ => self.subvolumes.enable_quotas(&self.layout.0),
        }
    }

    /// What the kernel tells about this file system's qgroups.
    pub(super) fn accounting(&self, what: &str) -> Option<String> {
        let uuid = btrfs::file_system(&self.layout.0).ok()?;
        let path = format!("/sys/fs/btrfs/{uuid}/qgroups/{what}");
        Some(fs::read_to_string(path).ok()?.trim().to_owned())
    }
}
