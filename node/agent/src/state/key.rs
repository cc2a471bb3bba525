//! The node's own key: made here on first use, never leaves the machine.
//!
//! Owner: the agent. Invariant: mode 0600, on disk before it is shown to anybody.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{fs, io};

use teu_daemon::file;
use teu_protocol::noise::StaticKey;

use super::{DataDir, StateError};

/// The key in `node.key`, made if there is none.
///
/// # Errors
/// [`StateError`].
pub fn load_or_make_key(data: &DataDir) -> Result<StaticKey, StateError> {
    let path = data.path().join("node.key");
    let no_key = || StateError::Key { path: path.clone() };
    match fs::read_to_string(&path) {
        Ok(text) => {
            let bytes = STANDARD.decode(text.trim()).map_err(|_| no_key())?;
            let bytes: [u8; 32] = bytes.try_into().map_err(|_| no_key())?;
            StaticKey::from_bytes(bytes).map_err(|_| no_key())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut bytes = [0; 32];
            getrandom::fill(&mut bytes).map_err(StateError::Random)?;
            let key = StaticKey::from_bytes(bytes).map_err(|_| no_key())?;
            let text = STANDARD.encode(key.expose_secret()) + "\n";
            file::write(&path, text.as_bytes()).map_err(StateError::io("write", &path))?;
            Ok(key)
        }
        Err(error) => Err(StateError::io("read", &path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let key = load_or_make_key(&data).unwrap();
        assert_eq!(load_or_make_key(&data).unwrap().public(), key.public());
        let path = dir.path().join("node.key");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        fs::write(&path, "short").unwrap();
        assert!(matches!(
            load_or_make_key(&data),
            Err(StateError::Key { .. })
        ));
    }
}
