//! Going back to a snapshot.

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
};

use teu_protocol::{
    ids::Tag,
    message::{RequestBody, RollBack},
};

use super::Volume;
use crate::error::Result;

/// Describes a rollback; made by [`Volume::rollback`]. Await it (or [`RollbackBuilder::start`]).
#[derive(Debug)]
#[must_use = "nothing is rolled back until this is awaited"]
pub struct RollbackBuilder {
    volume: Volume,
    snapshot: Result<Tag>,
    discard_later: bool,
    force: bool,
}

impl RollbackBuilder {
    pub(super) const fn new(volume: Volume, snapshot: Result<Tag>) -> Self {
        Self {
            volume,
            snapshot,
            discard_later: false,
            force: false,
        }
    }

    /// Destroys the snapshots that were made after it. Without this, if there are such, it is
    /// refused with `WrongState`, and the message names them.
    pub const fn discard_later(mut self) -> Self {
        self.discard_later = true;
        self
    }

    /// Goes on although processes have files of it open; what they have open goes stale. Without
    /// this it is refused with `Busy`, and the message names them.
    pub const fn force(mut self) -> Self {
        self.force = true;
        self
    }

    /// Rolls back: ready when it is durable and every container sees the snapshot's tree.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] with `NotFound`, `WrongState` (later snapshots) or `Busy`.
    pub async fn start(self) -> Result<()> {
        let body = RequestBody::RollBack(RollBack {
            volume: self.volume.id(),
            snapshot: self.snapshot?,
            discard_later: self.discard_later,
            force: self.force,
        });
        self.volume.done("roll the volume back", body).await
    }
}

impl IntoFuture for RollbackBuilder {
    type Output = Result<()>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}
