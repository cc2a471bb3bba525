//! What the agent keeps on disk: keys, its place in the network, accounts' ranges, containers.
//!
//! Owner: the agent; one at a time (see [`DataDir::lock`]). Invariants: files are whole or absent;
//! everything is readable by root only. Layers are the layer store's, logs the keepers'.
//! Next: `key`, `container`.

mod container;
mod key;
mod whole_file;

pub use container::{ContainerDir, StoredContainer};
pub use key::load_or_make_key;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use teu_node_core::accounts::UidRanges;
use teu_protocol::{ids::ContainerId, message::Topology};

use crate::scratch::Scratch;

/// Something on disk cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system said so.
    #[error("cannot {action} {path}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Not what was written there.
    #[error("{path} is damaged; move it away and start again")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Where.
        #[source]
        source: rmp_serde::decode::Error,
    },
    /// Cannot be written as MessagePack (only by a defect).
    #[error("cannot write {path}")]
    Encode {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rmp_serde::encode::Error,
    },
    /// The key file is not a key.
    #[error("{path} is not a node key: base64 of 32 bytes is expected")]
    Key {
        /// Which.
        path: PathBuf,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
    /// Another agent runs on it.
    #[error("another agent uses {0}; stop it first, or use another --data and --instance")]
    InUse(PathBuf),
}

impl StateError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// The agent's data directory.
#[derive(Debug, Clone)]
pub struct DataDir {
    root: PathBuf,
    scratch: Scratch,
}

/// Held while the agent runs.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataDir {
    /// Opens or makes it.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn open(root: &Path) -> Result<Self, StateError> {
        let scratch = Scratch::none("it is not opened yet");
        let this = Self {
            root: root.to_owned(),
            scratch: scratch.clone(),
        };
        for dir in [root, &this.containers()] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(StateError::io("make", dir))?;
        }
        let root = fs::canonicalize(root).map_err(StateError::io("find", root))?;
        Ok(Self { root, scratch })
    }

    /// Gives containers' writable layers and logs a file system of their own. Blocking.
    #[must_use]
    pub fn with_scratch(self) -> Self {
        let scratch = Scratch::open(&self.root);
        Self { scratch, ..self }
    }

    /// Where containers' writable layers and logs lie.
    #[must_use]
    pub const fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Makes sure that no other agent uses it.
    ///
    /// # Errors
    /// [`StateError::InUse`].
    pub fn lock(&self) -> Result<DataLock, StateError> {
        let path = self.root.join("agent.lock");
        let file = File::create(&path).map_err(StateError::io("make", &path))?;
        let operation = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        match rustix::fs::flock(&file, operation) {
            Ok(()) => Ok(DataLock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::InUse(self.root.clone())),
            Err(error) => Err(StateError::io("lock", &path)(error.into())),
        }
    }

    /// The master's word on the node's addresses, if it has given it before.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn topology(&self) -> Result<Option<Topology>, StateError> {
        read(&self.root.join("topology.mp"))
    }

    /// Keeps it.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn keep_topology(&self, topology: &Topology) -> Result<(), StateError> {
        write(&self.root.join("topology.mp"), topology)
    }

    /// Accounts' ranges of user ids.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn accounts(&self) -> Result<UidRanges, StateError> {
        Ok(read(&self.root.join("accounts.mp"))?.unwrap_or_default())
    }

    /// Keeps them.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn keep_accounts(&self, accounts: &UidRanges) -> Result<(), StateError> {
        write(&self.root.join("accounts.mp"), accounts)
    }

    /// Where containers' directories are.
    #[must_use]
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// One container's directory.
    #[must_use]
    pub fn container(&self, id: ContainerId) -> ContainerDir {
        let path = self.containers().join(id.to_string());
        ContainerDir::new(id, path, self.scratch.clone())
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StateError::io("read", path)(error)),
    };
    let damaged = |source| StateError::Damaged {
        path: path.to_owned(),
        source,
    };
    rmp_serde::from_slice(&bytes).map(Some).map_err(damaged)
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), StateError> {
    let encode = |source| StateError::Encode {
        path: path.to_owned(),
        source,
    };
    let bytes = rmp_serde::to_vec_named(value).map_err(encode)?;
    whole_file::write(path, &bytes).map_err(StateError::io("write", path))
}

#[cfg(test)]
mod tests {
    use teu_protocol::ids::{NodeId, PublicKey};

    use super::*;

    #[test]
    fn what_is_kept_is_found_again_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(&dir.path().join("node")).unwrap();
        assert_eq!(data.topology().unwrap(), None);
        let topology = Topology {
            node: NodeId::from_bytes([1; 16]),
            subnet: ([10, 77, 1, 0].into(), 24),
            range: ([10, 77, 0, 0].into(), 16),
        };
        data.keep_topology(&topology).unwrap();
        assert_eq!(data.topology().unwrap(), Some(topology));
        let mut accounts = data.accounts().unwrap();
        let range = accounts.range_of(PublicKey::from_bytes([2; 32])).unwrap();
        data.keep_accounts(&accounts).unwrap();
        let again = data
            .accounts()
            .unwrap()
            .range_of(PublicKey::from_bytes([2; 32]))
            .unwrap();
        assert_eq!((again.base, again.is_new), (range.base, false));
        fs::write(data.path().join("topology.mp"), b"\xc1").unwrap();
        assert!(matches!(data.topology(), Err(StateError::Damaged { .. })));
    }

    #[test]
    fn two_agents_cannot_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let lock = data.lock().unwrap();
        assert!(matches!(data.lock(), Err(StateError::InUse(_))));
        drop(lock);
        data.lock().unwrap();
    }
}
