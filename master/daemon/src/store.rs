//! What the master must not forget: a narrow trait and its engines.
//!
//! Owner: the broker, which commits before it replies. Invariant: what [`Store::commit`] has answered
//! `Ok` survives `kill -9` and power loss, all of its operations or none. The trait asks for no more
//! than a replicated engine (etcd: one transaction, one range read) can give.
//! Next: [`RedbStore`]; [`MemoryStore`] is the fake that passes the same conformance suite.

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod faults;
mod memory;
mod redb;
mod tables;

pub use memory::MemoryStore;
pub use redb::RedbStore;

use std::{fmt, path::PathBuf};

use teu_master_core::record::{Restored, StoreOp};

/// Keeps the location's records.
pub trait Store: fmt::Debug + Send + Sync {
    /// All records.
    ///
    /// # Errors
    /// [`StoreError`].
    fn load(&self) -> Result<Restored, StoreError>;

    /// Performs the operations in order, all or none; returns when they are durable. Blocks.
    ///
    /// # Errors
    /// [`StoreError`]: all were performed or none; performing them again is safe, and may succeed at once.
    fn commit(&self, operations: &[StoreOp]) -> Result<(), StoreError>;
}

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened: it is damaged, in use by another process, or not readable.
    #[error("cannot open the store {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<::redb::Error>,
    },
    /// Written by a newer version.
    #[error(
        "the store {} has format {found}, this version of teu-master knows {known}: \
         install the newer version again",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u64,
        /// The newest that is known here.
        known: u64,
    },
    /// A record does not parse.
    #[error("the store's table `{table}` holds a record that cannot be read")]
    Record {
        /// Where.
        table: &'static str,
        /// Why not.
        source: teu_protocol::message::DecodeError,
    },
    /// A record cannot be written down (only by a defect).
    #[error("a record for the store's table `{table}` cannot be written down")]
    Encode {
        /// Where.
        table: &'static str,
        /// Why not.
        source: rmp_serde::encode::Error,
    },
    /// Reading failed.
    #[error("cannot read the store")]
    Read(#[source] Box<::redb::Error>),
    /// Writing failed: a full or broken disk.
    #[error("cannot write the store")]
    Write(#[source] Box<::redb::Error>),
    /// The engine panicked.
    #[error("the store's engine failed")]
    Panicked,
}

impl StoreError {
    /// Whether the same may succeed later.
    pub(crate) const fn may_pass(&self) -> bool {
        match self {
            Self::Open { .. } | Self::Read(_) | Self::Write(_) => true,
            Self::Newer { .. } | Self::Record { .. } | Self::Encode { .. } | Self::Panicked => {
                false
            }
        }
    }
}
