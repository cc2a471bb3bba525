//! The location's secret key, in a file that only its owner can read.
//!
//! Owner: the server. Invariant: made once, never shown; a file that others can read is refused.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use teu_protocol::noise::{HandshakeError, StaticKey};

use crate::random::{self, RandomError};

const FILE: &str = "master.key";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file or its directory cannot be used.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others than its owner can read it.
    #[error(
        "the key file {} can be read by others; if nobody has seen it, run: chmod 600 {}",
        path.display(),
        path.display()
    )]
    Readable {
        /// The file.
        path: PathBuf,
    },
    /// It has another length than a key.
    #[error("the key file {} is damaged: 32 bytes are expected", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// No random bytes for a new key.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The key cannot be used.
    #[error("the location's key cannot be used")]
    Key(#[from] HandshakeError),
}

/// The key in this directory; made, with the directory, if there is none.
///
/// # Errors
/// [`IdentityError`].
pub fn load_or_create(data: &Path) -> Result<StaticKey, IdentityError> {
    // Images and the store lie here too, and are their accounts' own.
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data)
        .map_err(io_error("create", data))?;
    let path = data.join(FILE);
    match File::open(&path) {
        Ok(file) => load(file, &path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(data, &path),
        Err(error) => Err(io_error("open", &path)(error)),
    }
}

fn load(mut file: File, path: &Path) -> Result<StaticKey, IdentityError> {
    let mode = file.metadata().map_err(io_error("look at", path))?.mode();
    if mode & 0o077 != 0 {
        return Err(IdentityError::Readable {
            path: path.to_owned(),
        });
    }
    let mut secret = [0; 32];
    let mut beyond = [0; 1];
    let whole = file.read_exact(&mut secret).is_ok();
    let longer = file.read(&mut beyond).map_err(io_error("read", path))? != 0;
    if !whole || longer {
        return Err(IdentityError::Damaged {
            path: path.to_owned(),
        });
    }
    Ok(StaticKey::from_bytes(secret)?)
}

/// Complete or not there: written under another name, then linked.
fn create(data: &Path, path: &Path) -> Result<StaticKey, IdentityError> {
    let key = StaticKey::from_bytes(random::bytes()?)?;
    let unique = u64::from_be_bytes(random::bytes()?);
    let draft = data.join(format!("{FILE}.{unique:016x}"));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(key.expose_secret())?;
        file.sync_all()?;
        // Fails if somebody else was faster, and then theirs is the key.
        std::fs::hard_link(&draft, path)?;
        File::open(data)?.sync_all()
    };
    let written = write();
    let _ = std::fs::remove_file(&draft);
    match written {
        Ok(()) => Ok(key),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            load(File::open(path).map_err(io_error("open", path))?, path)
        }
        Err(error) => Err(io_error("write", path)(error)),
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    move |source| IdentityError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_only_for_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("a/b");
        let made = load_or_create(&data).unwrap();
        assert_eq!(load_or_create(&data).unwrap().public(), made.public());
        let path = data.join(FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(&data).unwrap().mode() & 0o777, 0o700);
        assert_eq!(
            std::fs::read_dir(&data).unwrap().count(),
            1,
            "no draft is left"
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            load_or_create(&data),
            Err(IdentityError::Readable { .. })
        ));
    }

    #[test]
    fn a_damaged_key_is_said_to_be() {
        let directory = tempfile::tempdir().unwrap();
        for length in [0, 31, 33] {
            let path = directory.path().join(FILE);
            let _ = std::fs::remove_file(&path);
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .unwrap();
            file.write_all(&vec![1; length]).unwrap();
            let error = load_or_create(directory.path()).unwrap_err();
            assert!(
                matches!(error, IdentityError::Damaged { .. }),
                "{length}: {error}"
            );
        }
    }
}
