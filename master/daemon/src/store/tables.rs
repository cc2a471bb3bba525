//! Records as keys and values: which table, which key, what is in it.
//!
//! Owner: the engines. Invariant: a key is made of a record's own ids and nothing else, so that
//! putting a record again replaces it.

use serde::{Serialize, de::DeserializeOwned};
use teu_master_core::record::{Restored, StoreOp};
use teu_protocol::message::decode_record;

use super::StoreError;

/// The tables.
pub(super) const TABLES: [&str; 7] = [
    ACCOUNTS,
    NODES,
    SESSIONS,
    IMAGES,
    POSSESSIONS,
    VOLUMES,
    DESTROYED,
];

const ACCOUNTS: &str = "accounts";
const NODES: &str = "nodes";
const SESSIONS: &str = "sessions";
const IMAGES: &str = "images";
const POSSESSIONS: &str = "possessions";
const VOLUMES: &str = "volumes";
const DESTROYED: &str = "destroyed";

/// An operation on a table of bytes.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) table: &'static str,
    pub(super) key: Vec<u8>,
    /// `None` removes.
    pub(super) value: Option<Vec<u8>>,
}

/// Writes an operation down.
pub(super) fn change(operation: &StoreOp) -> Result<Change, StoreError> {
    let (table, key, value) = match operation {
        StoreOp::PutAccount(record) => (
            ACCOUNTS,
            record.key.as_bytes().to_vec(),
            Some(pack(ACCOUNTS, record)?),
        ),
        StoreOp::RemoveAccount(key) => (ACCOUNTS, key.as_bytes().to_vec(), None),
        StoreOp::PutNode(record) => (
            NODES,
            record.id.as_bytes().to_vec(),
            Some(pack(NODES, record)?),
        ),
        StoreOp::PutSession(record) => (
            SESSIONS,
            record.id.as_bytes().to_vec(),
            Some(pack(SESSIONS, record)?),
        ),
        StoreOp::RemoveSession(id) => (SESSIONS, id.as_bytes().to_vec(), None),
        StoreOp::PutImage(record) => {
            let key = joined(record.account.as_bytes(), record.manifest.id.as_bytes());
            (IMAGES, key, Some(pack(IMAGES, record)?))
        }
        StoreOp::RemoveImage { account, id } => {
            (IMAGES, joined(account.as_bytes(), id.as_bytes()), None)
        }
        StoreOp::PutPossession(record) => {
            let key = joined(record.account.as_bytes(), record.digest.as_bytes());
            (POSSESSIONS, key, Some(pack(POSSESSIONS, record)?))
        }
        StoreOp::RemovePossession { account, digest } => (
            POSSESSIONS,
            joined(account.as_bytes(), digest.as_bytes()),
            None,
        ),
        StoreOp::PutVolume(record) => (
            VOLUMES,
            record.record.id.as_bytes().to_vec(),
            Some(pack(VOLUMES, record)?),
        ),
        StoreOp::RemoveVolume(id) => (VOLUMES, id.as_bytes().to_vec(), None),
        StoreOp::PutDestroyed(record) => (
            DESTROYED,
            record.volume.as_bytes().to_vec(),
            Some(pack(DESTROYED, record)?),
        ),
        StoreOp::RemoveDestroyed(id) => (DESTROYED, id.as_bytes().to_vec(), None),
    };
    Ok(Change { table, key, value })
}

/// Adds a table's record to what is restored.
pub(super) fn restore(
    restored: &mut Restored,
    table: &'static str,
    value: &[u8],
) -> Result<(), StoreError> {
    match table {
        ACCOUNTS => restored.accounts.push(unpack(table, value)?),
        NODES => restored.nodes.push(unpack(table, value)?),
        SESSIONS => restored.sessions.push(unpack(table, value)?),
        IMAGES => restored.images.push(unpack(table, value)?),
        VOLUMES => restored.volumes.push(unpack(table, value)?),
        DESTROYED => restored.destroyed.push(unpack(table, value)?),
        _ => restored.possessions.push(unpack(table, value)?),
    }
    Ok(())
}

fn joined(account: &[u8; 32], digest: &[u8; 32]) -> Vec<u8> {
    [account.as_slice(), digest.as_slice()].concat()
}

fn pack<R: Serialize>(table: &'static str, record: &R) -> Result<Vec<u8>, StoreError> {
    rmp_serde::to_vec_named(record).map_err(|source| StoreError::Encode { table, source })
}

fn unpack<R: DeserializeOwned>(table: &'static str, value: &[u8]) -> Result<R, StoreError> {
    decode_record(value).map_err(|source| StoreError::Record { table, source })
}
