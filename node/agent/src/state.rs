//! What the agent keeps on disk: keys, its place in the network, accounts' ranges, containers.
//!
//! Owner: the agent; one at a time (see [`DataDir::lock`]). Invariants: files are whole or absent;
//! everything is readable by root only; a damaged file is set aside (`*.damaged`), told by the doctor,
//! and costs what was in it and nothing else. Layers are the layer store's, logs the keepers'.
//! Next: `key`, `container`.

mod container;
mod key;

pub use container::{ContainerDir, FoundRecord, StoredContainer};
pub use key::load_or_make_key;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use teu_daemon::file;
use teu_node_core::accounts::UidRanges;
use teu_protocol::{
    ids::ContainerId,
    message::{Topology, decode_record},
};

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
        source: teu_protocol::message::DecodeError,
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
    /// Set aside, and there is no copy.
    #[error(
        "{path} was damaged and has no copy; mend `{path}.damaged` and move it back, or move the data directory away"
    )]
    NoCopy {
        /// Which.
        path: PathBuf,
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
        // One that somebody made before, for everybody.
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700))
            .map_err(StateError::io("close to others", &root))?;
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

    /// The master's word on the node's addresses, if it has given it before. A damaged one is set aside:
    /// the master gives it again.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn topology(&self) -> Result<Option<Topology>, StateError> {
        read_or_set_aside(&self.root.join("topology.mp")).map(Kept::into_option)
    }

    /// Keeps it.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn keep_topology(&self, topology: &Topology) -> Result<(), StateError> {
        write(&self.root.join("topology.mp"), topology)
    }

    /// Accounts' ranges of user ids. A damaged file is set aside and its copy is used: files on disk
    /// belong to these ranges, so they cannot be made anew.
    ///
    /// # Errors
    /// [`StateError`]; [`StateError::Damaged`] if the copy is damaged too.
    pub fn accounts(&self) -> Result<UidRanges, StateError> {
        let (path, copy) = self.accounts_files();
        match read_or_set_aside(&path)? {
            Kept::Whole(accounts) => Ok(accounts),
            Kept::None if !copy.exists() => Ok(UidRanges::default()),
            Kept::None | Kept::SetAside => {
                let accounts =
                    read(&copy)?.ok_or_else(|| StateError::NoCopy { path: path.clone() })?;
                write(&path, &accounts)?;
                Ok(accounts)
            }
        }
    }

    /// Keeps them, and a copy of them.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn keep_accounts(&self, accounts: &UidRanges) -> Result<(), StateError> {
        let (path, copy) = self.accounts_files();
        write(&copy, accounts)?;
        write(&path, accounts)
    }

    fn accounts_files(&self) -> (PathBuf, PathBuf) {
        (
            self.root.join("accounts.mp"),
            self.root.join("accounts-copy.mp"),
        )
    }

    /// Files that were set aside because they are damaged.
    #[must_use]
    pub fn damaged(&self) -> Vec<PathBuf> {
        let mut found = damaged_in(&self.root);
        for entry in fs::read_dir(self.containers())
            .into_iter()
            .flatten()
            .flatten()
        {
            found.extend(damaged_in(&entry.path()));
        }
        found
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

/// What was found where a record should be.
enum Kept<T> {
    None,
    Whole(T),
    /// Damaged; moved away.
    SetAside,
}

impl<T> Kept<T> {
    fn into_option(self) -> Option<T> {
        match self {
            Self::Whole(value) => Some(value),
            Self::None | Self::SetAside => None,
        }
    }
}

fn read_or_set_aside<T: DeserializeOwned>(path: &Path) -> Result<Kept<T>, StateError> {
    match read(path) {
        Ok(found) => Ok(found.map_or(Kept::None, Kept::Whole)),
        Err(StateError::Damaged { path, source }) => {
            let aside = file::set_aside(&path).map_err(StateError::io("set aside", &path))?;
            tracing::error!(
                "{} is damaged ({source}); it is now {}",
                path.display(),
                aside.display()
            );
            Ok(Kept::SetAside)
        }
        Err(error) => Err(error),
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
    decode_record(&bytes).map(Some).map_err(damaged)
}

fn encode<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, StateError> {
    let failed = |source| StateError::Encode {
        path: path.to_owned(),
        source,
    };
    rmp_serde::to_vec_named(value).map_err(failed)
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), StateError> {
    file::write(path, &encode(path, value)?).map_err(StateError::io("write", path))
}

fn damaged_in(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let named = entries.filter(|entry| {
        entry
            .file_name()
            .as_encoded_bytes()
            .ends_with(file::DAMAGED.as_bytes())
    });
    named.map(|entry| entry.path()).collect()
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
        let free = |_| false;
        let range = accounts
            .range_of(PublicKey::from_bytes([2; 32]), free)
            .unwrap();
        data.keep_accounts(&accounts).unwrap();
        let again = data
            .accounts()
            .unwrap()
            .range_of(PublicKey::from_bytes([2; 32]), free)
            .unwrap();
        assert_eq!((again.base, again.is_new), (range.base, false));
        fs::write(data.path().join("topology.mp"), b"\xc1").unwrap();
        assert_eq!(data.topology().unwrap(), None, "the master gives it again");
        assert_eq!(data.damaged(), [data.path().join("topology.mp.damaged")]);
    }

    #[test]
    fn ranges_of_user_ids_survive_the_damage_of_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let mut accounts = data.accounts().unwrap();
        accounts
            .range_of(PublicKey::from_bytes([2; 32]), |_| false)
            .unwrap();
        data.keep_accounts(&accounts).unwrap();
        // Cut off, overwritten, emptied, and with something behind it.
        let whole = fs::read(data.path().join("accounts.mp")).unwrap();
        for damage in [&whole[..9], b"nonsense", b"", &[&whole[..], b"\0"].concat()] {
            fs::write(data.path().join("accounts.mp"), damage).unwrap();
            assert_eq!(data.accounts().unwrap(), accounts);
            assert_eq!(data.accounts().unwrap(), accounts, "and it is whole again");
        }
        fs::write(data.path().join("accounts.mp"), b"\xc1").unwrap();
        fs::remove_file(data.path().join("accounts-copy.mp")).unwrap();
        let refused = data.accounts();
        assert!(
            matches!(refused, Err(StateError::NoCopy { .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn a_directory_that_was_open_to_everybody_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("node");
        fs::create_dir(&root).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).unwrap();
        DataDir::open(&root).unwrap();
        let mode = fs::metadata(&root).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
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
