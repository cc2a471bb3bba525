//! What went wrong with a pool, as its user should read it.
//!
//! Invariant: the message says what happened, why, and what to do.

use teu_protocol::message::{Refusal, RefusalCode};

use crate::{link::chain, volumes::pool::PoolError};

/// A pool's error, for people.
#[must_use]
pub fn refuse_pool(error: &PoolError) -> Refusal {
    let (code, cure) = match error {
        PoolError::NoVolume(_) | PoolError::NoSnapshot(_) => (RefusalCode::NotFound, ""),
        PoolError::SnapshotExists(_) => (RefusalCode::TagTaken, "; choose another name"),
        PoolError::HasClone { .. } => (RefusalCode::WrongState, ""),
        PoolError::QuotaTooSmall => (
            RefusalCode::WrongState,
            "; remove files from it first, or allow more",
        ),
        PoolError::Busy(_) => (RefusalCode::Busy, ""),
        PoolError::Full => (
            RefusalCode::NoSpace,
            "; destroy snapshots or volumes, or give the pool more room",
        ),
        PoolError::Faulted(_) => (RefusalCode::Faulted, "; `teu doctor` looks at the node"),
        PoolError::NoTool { .. } => (RefusalCode::Faulted, " on the node"),
        PoolError::BadStream(_) => (RefusalCode::BadRequest, ""),
        PoolError::Tool { .. } | PoolError::Io { .. } => {
            (RefusalCode::Internal, "; `teu doctor` looks at the node")
        }
    };
    Refusal::new(code, format!("{}{cure}", chain(error)))
}
