//! A container's directory: record, writable layer, logs.
//!
//! ```text
//! <data>/containers/<id>/record.mp   what is remembered, its slot        (agent, 0600)
//!                        layers.mp   which layers its root is made of          (agent)
//!                        upper work  the root's writable layer           (the account's root)
//!                        logs/ exit.json                                 (its keeper)
//! ```
//! `upper`, `work` and `logs` are links into the node's scratch file system, where they have a bound
//! ([`crate::scratch`]); without one, directories.
//! Owner: the agent. Invariant: the record is there before anybody is told of the container, and
//! the directory goes only with the container's destruction.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, chown},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use teu_daemon::file;
use teu_node_core::record::ContainerRecord;
use teu_protocol::ids::{ContainerId, Digest};

use super::{Kept, StateError, damaged_in, encode, read, read_or_set_aside, write};
use crate::{scratch::Scratch, sys::names::SlotName};

/// Layers of the root, beside the record.
const LAYERS: &str = "layers.mp";

/// What is in `record.mp`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredContainer {
    /// What the core knows.
    pub record: ContainerRecord,
    /// Where it runs.
    pub slot: SlotName,
}

/// What an earlier agent left of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundRecord {
    /// It was never ready, and nobody was told of it.
    NeverReady,
    /// It may live.
    Whole(Box<StoredContainer>),
    /// Whose it is is no longer known. Its files are left to be looked at.
    Damaged,
}

/// One container's directory.
#[derive(Debug, Clone)]
pub struct ContainerDir {
    id: ContainerId,
    path: PathBuf,
    scratch: Scratch,
}

impl ContainerDir {
    /// The directory at `path`, which need not exist.
    #[must_use]
    pub const fn new(id: ContainerId, path: PathBuf, scratch: Scratch) -> Self {
        Self { id, path, scratch }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The root's writable layer.
    #[must_use]
    pub fn upper(&self) -> PathBuf {
        self.path.join("upper")
    }

    /// overlayfs's scratch directory.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.path.join("work")
    }

    /// Makes the directories; those of the root belong to the account's mapped root. `bound`: what the
    /// container may write, in bytes.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn make(&self, root: u32, bound: Option<u64>) -> Result<(), StateError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.path)
            .map_err(StateError::io("make", &self.path))?;
        self.scratch
            .make(self.id, &self.path, bound)
            .map_err(StateError::io("make the writable layer of", &self.path))?;
        for dir in [self.upper(), self.work()] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&dir)
                .map_err(StateError::io("make", &dir))?;
        }
        for dir in [self.upper(), self.work()] {
            chown(&dir, Some(root), Some(root)).map_err(StateError::io("give away", &dir))?;
        }
        Ok(())
    }

    /// Keeps the record for as long as the container can live: until the machine stops. Blocking.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn keep(&self, stored: &StoredContainer) -> Result<(), StateError> {
        let path = self.record();
        file::write_for_this_boot(&path, &encode(&path, stored)?)
            .map_err(StateError::io("write", &path))
    }

    /// Keeps which layers the root is made of, for the next agent. Blocking.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn keep_layers(&self, layers: &[Digest]) -> Result<(), StateError> {
        let path = self.path.join(LAYERS);
        file::write_for_this_boot(&path, &encode(&path, &layers)?)
            .map_err(StateError::io("write", &path))
    }

    /// The layers that the root is made of; `None` if that is not known. Blocking.
    #[must_use]
    pub fn layers(&self) -> Option<Vec<Digest>> {
        read(&self.path.join(LAYERS)).ok().flatten()
    }

    /// Keeps the record durably. Blocking.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn keep_durably(&self, stored: &StoredContainer) -> Result<(), StateError> {
        write(&self.record(), stored)
    }

    /// The record.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn load(&self) -> Result<Option<StoredContainer>, StateError> {
        read(&self.record())
    }

    /// The record as an earlier agent left it. A damaged one is set aside, and stays so.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn find(&self) -> Result<FoundRecord, StateError> {
        Ok(match read_or_set_aside(&self.record())? {
            Kept::Whole(stored) => FoundRecord::Whole(Box::new(stored)),
            Kept::None if damaged_in(&self.path).is_empty() => FoundRecord::NeverReady,
            Kept::None | Kept::SetAside => FoundRecord::Damaged,
        })
    }

    fn record(&self) -> PathBuf {
        self.path.join("record.mp")
    }

    /// Removes everything. Gone already is fine. Blocking.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn remove(&self) -> Result<(), StateError> {
        self.scratch
            .remove(self.id)
            .map_err(StateError::io("remove the writable layer of", &self.path))?;
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StateError::io("remove", &self.path)(error))
            }
            _ => Ok(()),
        }
    }
}
