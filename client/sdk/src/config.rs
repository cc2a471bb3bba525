//! The client's own files: `~/.teu/account.key` and `~/.teu/locations.toml`.
//!
//! Owner: whoever runs the command or the program; the location never sees these files. Invariant:
//! a file is either the old or the new version, never half of one, and the account's key is
//! readable by its owner alone. Next: [`crate::Location`] dials what is written here.

mod account;
mod error;
mod locations;

pub use account::Account;
pub use error::ConfigError;
pub use locations::{Config, LocationEntry};

use std::{
    env,
    path::{Path, PathBuf},
};

/// The directory of the client's files: `chosen`, else `$TEU_HOME`, else `~/.teu` (else `.teu` in
/// the working directory). It need not exist.
#[must_use]
pub fn home(chosen: Option<&Path>) -> PathBuf {
    let set = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    chosen
        .map(Path::to_owned)
        .or_else(|| set("TEU_HOME"))
        .unwrap_or_else(|| set("HOME").unwrap_or_default().join(".teu"))
}
