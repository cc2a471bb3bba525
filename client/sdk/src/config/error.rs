//! What can be wrong with the client's own files.

use std::{io, path::PathBuf};

/// Why a file of the client cannot be used. Each message says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The operating system refused.
    #[error("cannot {attempt} {path}", path = path.display())]
    Io {
        /// "read", "write", "create".
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could read or replace the account's key.
    #[error(
        "{path} can be read by others (mode {mode:03o}); run `chmod 600 {path}`",
        path = path.display()
    )]
    KeyExposed {
        /// The key's file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// There is no account on this machine yet.
    #[error(
        "there is no account key at {path}; `teu account show` and `teu dev` make one, or copy yours there",
        path = path.display()
    )]
    NoAccount {
        /// Where it was expected.
        path: PathBuf,
    },
    /// The key's file holds something else.
    #[error(
        "{path} does not hold a key (base64 of 32 bytes); restore it, or remove it to get a new one",
        path = path.display()
    )]
    BadKey {
        /// The key's file.
        path: PathBuf,
    },
    /// `locations.toml` does not parse.
    #[error("{path} is not valid", path = path.display())]
    BadLocations {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// `locations.toml` cannot be written as TOML (only by a defect).
    #[error("the locations cannot be written as TOML")]
    Unwritable(#[from] toml::ser::Error),
    /// A location that is not in the file.
    #[error("there is no location `{name}` in {path}; {known}", path = path.display())]
    UnknownLocation {
        /// What was asked for.
        name: String,
        /// The file.
        path: PathBuf,
        /// What there is instead.
        known: String,
    },
    /// No location is the default one.
    #[error(
        "no location is chosen: start one with `teu dev`, or choose with `teu location use NAME`"
    )]
    NoDefault,
    /// The operating system gave no random bytes for a new key.
    #[error("no random bytes for a new account key: {0}")]
    Random(getrandom::Error),
    /// The key cannot be used.
    #[error("the account key cannot be used")]
    Key(#[from] teu_protocol::noise::HandshakeError),
}
