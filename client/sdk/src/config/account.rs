//! The account: a key pair whose secret half never leaves this machine.

use std::{
    fmt, fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use teu_protocol::{ids::PublicKey, noise::StaticKey};
use zeroize::Zeroizing;

use super::ConfigError;
use crate::Result;

const KEY_FILE: &str = "account.key";

/// Longest sensible key file: 44 characters of base64 and some white space.
const MAX_KEY_FILE_BYTES: u64 = 256;

/// Who connects: an X25519 key pair. The secret is wiped from memory when the last clone goes.
#[derive(Clone)]
pub struct Account {
    key: StaticKey,
}

impl Account {
    /// Reads the account's key from `home`.
    ///
    /// # Errors
    /// [`ConfigError::NoAccount`] if there is none, [`ConfigError::KeyExposed`] if others may read
    /// it, [`ConfigError::BadKey`] if the file holds something else.
    pub fn load(home: &Path) -> Result<Self> {
        Ok(Self::read(home)?)
    }

    fn read(home: &Path) -> Result<Self, ConfigError> {
        let path = Self::key_path(home);
        let io = |source| ConfigError::Io {
            attempt: "read",
            path: path.clone(),
            source,
        };
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ConfigError::NoAccount { path });
            }
            Err(error) => return Err(io(error)),
        };
        let mode = file.metadata().map_err(io)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(ConfigError::KeyExposed { path, mode });
        }
        // Reserved at once: a growing buffer would leave copies of the secret behind.
        let mut text = Zeroizing::new(String::with_capacity(MAX_KEY_FILE_BYTES as usize));
        file.take(MAX_KEY_FILE_BYTES)
            .read_to_string(&mut text)
            .map_err(io)?;
        let mut secret = Zeroizing::new([0; 33]);
        let length = STANDARD.decode_slice(text.trim(), secret.as_mut());
        match (length, secret.first_chunk::<32>()) {
            (Ok(32), Some(secret)) => Ok(Self {
                key: StaticKey::from_bytes(*secret)?,
            }),
            _ => Err(ConfigError::BadKey { path }),
        }
    }

    /// Reads the account's key from `home`, or makes a new one there (mode 0600, directory 0700).
    /// Two programs that do so at once end up with the same key.
    ///
    /// # Errors
    /// As [`Account::load`], and if the file cannot be written.
    pub fn load_or_create(home: &Path) -> Result<Self> {
        Ok(match Self::read(home) {
            Err(ConfigError::NoAccount { path }) => Self::create(home, path)?,
            other => other?,
        })
    }

    fn create(home: &Path, path: PathBuf) -> Result<Self, ConfigError> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(secret.as_mut()).map_err(ConfigError::Random)?;
        let text = Zeroizing::new(STANDARD.encode(secret.as_ref()));
        let io = |source| ConfigError::Io {
            attempt: "write",
            path: path.clone(),
            source,
        };
        make_private_dir(home)?;
        // Temporary files are made with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(home).map_err(io)?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.write_all(b"\n"))
            .and_then(|()| file.as_file().sync_all())
            .map_err(io)?;
        match file.persist_noclobber(&path) {
            Ok(_) => Ok(Self {
                key: StaticKey::from_bytes(*secret)?,
            }),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Self::read(home),
            Err(error) => Err(io(error.error)),
        }
    }

    /// An account whose key is kept elsewhere, such as in a secret store.
    #[must_use]
    pub const fn from_key(key: StaticKey) -> Self {
        Self { key }
    }

    /// Where `home`'s key lies.
    #[must_use]
    pub fn key_path(home: &Path) -> PathBuf {
        home.join(KEY_FILE)
    }

    /// The public half: what a location enrols.
    #[must_use]
    pub const fn public_key(&self) -> PublicKey {
        self.key.public()
    }

    pub(crate) const fn key(&self) -> &StaticKey {
        &self.key
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("public_key", &self.public_key())
            .finish_non_exhaustive()
    }
}

/// Makes `home` with mode 0700 if it is not there.
pub(super) fn make_private_dir(home: &Path) -> Result<(), ConfigError> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(home);
    made.map_err(|source| ConfigError::Io {
        attempt: "create",
        path: home.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_private_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("teu");
        assert!(matches!(
            Account::read(&home),
            Err(ConfigError::NoAccount { .. })
        ));
        let made = Account::load_or_create(&home).unwrap();
        let mode = fs::metadata(Account::key_path(&home))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            fs::metadata(&home).unwrap().permissions().mode() & 0o777,
            0o700
        );
        assert_eq!(
            Account::load_or_create(&home).unwrap().public_key(),
            made.public_key()
        );
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Account::load_or_create(dir.path()).unwrap();
        let path = Account::key_path(dir.path());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Account::read(dir.path()).unwrap_err();
        assert!(matches!(error, ConfigError::KeyExposed { mode: 0o640, .. }));
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn what_is_no_key_is_refused_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        Account::load_or_create(dir.path()).unwrap();
        for text in [
            "",
            "sesame",
            &STANDARD.encode([1; 31]),
            &STANDARD.encode([1; 33]),
        ] {
            fs::write(Account::key_path(dir.path()), text).unwrap();
            let error = Account::read(dir.path()).unwrap_err();
            assert!(matches!(error, ConfigError::BadKey { .. }), "{text}");
            assert!(text.is_empty() || !error.to_string().contains(text));
        }
    }
}
