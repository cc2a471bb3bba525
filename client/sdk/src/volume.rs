//! A volume, as an object: files that outlive containers, with snapshots to go back to.
//!
//! Owner: the account, in all of its sessions. Invariant: what a call confirms is durable on the
//! volume's node; a copy that was cut short is an error, never a shorter volume.
//! Next: [`builder`] makes them, [`export`] and [`import`] move their bytes.

mod builder;
mod copy;
mod export;
mod import;
mod rollback;
#[cfg(test)]
mod tests;

pub use builder::VolumeBuilder;
pub use copy::CopyBuilder;
pub use export::VolumeExport;
pub use import::ImportBuilder;
pub use rollback::RollbackBuilder;

use std::time::Duration;

use teu_protocol::{
    ids::{NodeId, Tag, VolumeId},
    message::{
        ReplyBody, RequestBody, SnapshotInfo, SnapshotSchedule, VolumeInfo, VolumeSpec, VolumeUsage,
    },
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    error::{Error, Result, parse_tag},
    session::{Patience, SessionHandle},
};

/// The node answers when all is written out, which on a busy disk takes its time.
const DURABLE_WORK: Duration = Duration::from_secs(120);

const PATIENCE: Patience = Patience::with_work(DURABLE_WORK);

/// A volume. A cheap handle that stays valid over reconnects; dropping it destroys nothing.
#[derive(Debug, Clone)]
pub struct Volume {
    session: SessionHandle,
    /// As it was when the handle was made; newer things are in the session's view.
    first: VolumeInfo,
}

impl Volume {
    pub(crate) const fn new(session: SessionHandle, first: VolumeInfo) -> Self {
        Self { session, first }
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> VolumeId {
        self.first.id
    }

    /// The node it lies on. Containers that mount it run there.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.first.node
    }

    /// Its name, if it has one.
    #[must_use]
    pub fn tag(&self) -> Option<Tag> {
        self.info().spec.tag
    }

    /// What was last told of it.
    #[must_use]
    pub fn info(&self) -> VolumeInfo {
        let told = self.session.view().volume(self.id());
        told.unwrap_or_else(|| self.first.clone())
    }

    /// Whether the account's volumes no longer include it.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.session.view().volume(self.id()).is_none()
    }

    /// Keeps its tree as it is now, under a name to come back to. Ready when the snapshot is
    /// durable.
    ///
    /// # Errors
    /// [`Error::Tag`]; [`Error::Refused`] with `TagTaken` if it has a snapshot of that name.
    pub async fn snapshot(&self, name: impl AsRef<str>) -> Result<()> {
        let name = parse_tag(name.as_ref())?;
        let volume = self.id();
        self.done("make the snapshot", RequestBody::Snapshot { volume, name })
            .await
    }

    /// Its snapshots, oldest first. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NodeLost` while its node is away.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        const ATTEMPT: &str = "list the snapshots";
        match self.ask(ATTEMPT, RequestBody::Snapshots(self.id())).await? {
            ReplyBody::Snapshots(snapshots) => Ok(snapshots),
            _ => Err(Error::Nonsense { attempt: ATTEMPT }),
        }
    }

    /// Destroys a snapshot; its bytes become free when nothing else has them.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NotFound` if it has none of that name.
    pub async fn destroy_snapshot(&self, name: impl AsRef<str>) -> Result<()> {
        let name = parse_tag(name.as_ref())?;
        let volume = self.id();
        let body = RequestBody::DestroySnapshot { volume, name };
        self.done("destroy the snapshot", body).await
    }

    /// Gives it back the tree of a snapshot, also in the containers that have it mounted. Await the
    /// builder to do so: ready when it is durable and every container sees it.
    pub fn rollback(&self, snapshot: impl AsRef<str>) -> RollbackBuilder {
        RollbackBuilder::new(self.clone(), parse_tag(snapshot.as_ref()))
    }

    /// Describes a new volume on the same node that begins as this snapshot and shares its bytes.
    pub fn clone_from(&self, snapshot: impl AsRef<str>) -> VolumeBuilder {
        VolumeBuilder::cloning(
            self.session.clone(),
            self.id(),
            parse_tag(snapshot.as_ref()),
        )
    }

    /// What it takes, counted by its pool after all is written out. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NodeLost` while its node is away.
    pub async fn usage(&self) -> Result<VolumeUsage> {
        const ATTEMPT: &str = "ask what the volume takes";
        match self
            .ask(ATTEMPT, RequestBody::VolumeUsage(self.id()))
            .await?
        {
            ReplyBody::VolumeUsage(usage) => Ok(usage),
            _ => Err(Error::Nonsense { attempt: ATTEMPT }),
        }
    }

    /// Bounds the bytes that its tree may refer to (snapshots are not counted); `None`: no bound.
    /// Beyond it, writers get EDQUOT.
    ///
    /// # Errors
    /// [`Error::Refused`] with `BadRequest` below 1 MiB.
    pub async fn set_quota(&self, bytes: impl Into<Option<u64>>) -> Result<()> {
        let body = RequestBody::SetQuota {
            volume: self.id(),
            quota_bytes: bytes.into(),
        };
        self.changed("change the quota", body).await
    }

    /// Has its node make snapshots from now on; `None`: no longer (those it made stay).
    ///
    /// # Errors
    /// [`Error::Refused`] with `BadRequest` if a bound of [`SnapshotSchedule`] is broken.
    pub async fn set_schedule(&self, schedule: impl Into<Option<SnapshotSchedule>>) -> Result<()> {
        let body = RequestBody::SetSchedule {
            volume: self.id(),
            schedule: schedule.into(),
        };
        self.changed("change the schedule", body).await
    }

    /// Reads a snapshot as a stream that nodes of this location can import; with a `base`, only what
    /// changed since that older snapshot.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NotFound` if it has no such snapshot. Later failures come from the
    /// reader: only a whole export ends without one.
    pub async fn export(
        &self,
        snapshot: impl AsRef<str>,
        base: Option<&str>,
    ) -> Result<VolumeExport> {
        let snapshot = parse_tag(snapshot.as_ref())?;
        let base = base.map(parse_tag).transpose()?;
        VolumeExport::open(&self.session, self.id(), snapshot, base).await
    }

    /// As [`Volume::export`], written to the end of `into`; tells how many bytes that were. For a
    /// file, [`VolumeExport::save`] is safer: it leaves no half of one.
    ///
    /// # Errors
    /// As [`Volume::export`]; [`Error::Io`] if `into` takes no more.
    pub async fn export_to(
        &self,
        snapshot: impl AsRef<str>,
        base: Option<&str>,
        into: impl AsyncWrite + Unpin,
    ) -> Result<u64> {
        let export = self.export(snapshot, base).await?;
        export.write_to(into, |_| {}).await
    }

    /// Brings this volume to the snapshot that `reader` exports, which has this volume's newest
    /// snapshot as its base. What was written since that base is lost. Await the builder to do so.
    pub fn import_from<R: AsyncRead + Unpin + Send>(&self, reader: R) -> ImportBuilder<R> {
        ImportBuilder::into_volume(self.session.clone(), self.id(), reader)
    }

    /// Describes a copy of a snapshot on another node. The bytes go through this program.
    pub fn copy_to(&self, snapshot: impl AsRef<str>, node: NodeId) -> CopyBuilder {
        CopyBuilder::new(self.clone(), snapshot.as_ref().to_owned(), node)
    }

    /// Brings an earlier copy up to this snapshot, sending only what changed since the newest
    /// snapshot of the copy. What was written to the copy since is lost.
    ///
    /// # Errors
    /// [`Error::Invalid`] if this volume lacks the copy's newest snapshot; [`Error::Refused`] with
    /// `Busy` while a container has the copy mounted.
    pub async fn copy_into(&self, snapshot: impl AsRef<str>, copy: &Self) -> Result<()> {
        copy::increment(self, snapshot.as_ref(), copy).await
    }

    /// Destroys it with all of its snapshots; ready when nothing of it is left.
    ///
    /// # Errors
    /// [`Error::Refused`] with `Busy` while a container has it mounted.
    pub async fn destroy(&self) -> Result<()> {
        self.done("destroy the volume", RequestBody::DestroyVolume(self.id()))
            .await
    }

    async fn ask(&self, attempt: &'static str, body: RequestBody) -> Result<ReplyBody> {
        self.session.request(attempt, body, PATIENCE).await
    }

    async fn done(&self, attempt: &'static str, body: RequestBody) -> Result<()> {
        match self.ask(attempt, body).await? {
            ReplyBody::Done => Ok(()),
            _ => Err(Error::Nonsense { attempt }),
        }
    }

    async fn changed(&self, attempt: &'static str, body: RequestBody) -> Result<()> {
        match self.ask(attempt, body).await? {
            ReplyBody::Volume(_) => Ok(()),
            _ => Err(Error::Nonsense { attempt }),
        }
    }
}

impl crate::Location {
    /// Describes a new volume. Nothing happens until the builder is awaited.
    pub fn create_volume(&self) -> VolumeBuilder {
        VolumeBuilder::new(self.handle().clone())
    }

    /// Describes the account's volume of that name, to be made if there is none: then what the
    /// builder says holds; else the volume is taken as it is.
    pub fn ensure_volume(&self, tag: impl AsRef<str>) -> VolumeBuilder {
        VolumeBuilder::ensuring(self.handle().clone(), parse_tag(tag.as_ref()))
    }

    /// Describes a new volume that begins as what `reader` exports. Short for
    /// [`VolumeBuilder::import_from`] of [`crate::Location::create_volume`].
    pub fn import_volume<R: AsyncRead + Unpin + Send>(&self, reader: R) -> ImportBuilder<R> {
        self.create_volume().import_from(reader)
    }

    /// The account's volumes as last told, in no particular order.
    #[must_use]
    pub fn volumes(&self) -> Vec<VolumeInfo> {
        self.handle().view().offer.borrow().volumes.clone()
    }

    /// A volume of the account by tag, id, unique prefix of an id (4 digits or more) or `id:tag`.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NotFound` if there is none. Cancel-safe.
    pub async fn volume(&self, name: &str) -> Result<Volume> {
        const ATTEMPT: &str = "find the volume";
        let body = RequestBody::FindVolume(name.to_owned());
        let session = self.handle();
        match session.request(ATTEMPT, body, Patience::USUAL).await? {
            ReplyBody::Volume(info) => Ok(Volume::new(session.clone(), *info)),
            _ => Err(Error::Nonsense { attempt: ATTEMPT }),
        }
    }
}

/// The part of a spec that a copy keeps: everything but the name, which is unique.
fn nameless(spec: VolumeSpec) -> VolumeSpec {
    VolumeSpec { tag: None, ..spec }
}
