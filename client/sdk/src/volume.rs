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

/// A volume: a tree of files on one node that outlives containers, sessions and programs. A cheap
/// handle that stays valid over reconnects; dropping it destroys nothing.
///
/// ```no_run
/// # async fn example(location: teu::Location) -> teu::Result<()> {
/// let books = location.ensure_volume("books").quota(2 << 30).await?;
/// let db = location.spawn("postgres").volume(&books, "/var/lib/postgresql/data").await?;
/// books.snapshot("before").await?;
/// // … a migration goes wrong: let the database close its files, and take it back.
/// db.stop(None, teu::Container::usual_grace()).await?;
/// books.rollback("before").await?;
/// # Ok(()) }
/// ```
///
/// Every call is answered when its effect is on the node's disk, and is repeated by itself, with one
/// effect, when the link to the location comes back (the streams of exports and imports are not: begin
/// them again). While the volume's node is away, calls are tried for half a minute, then refused with
/// [`NodeLost`](crate::RefusalCode::NodeLost).
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
    /// durable. Takes milliseconds whatever the size, and no space until files change.
    ///
    /// It is of one instant and has all that was written before, synced or not: to a database, what a
    /// power cut leaves.
    ///
    /// # Errors
    /// [`Error::Tag`]; [`Error::Refused`] with `TagTaken` if it has a snapshot of that name, `BadRequest`
    /// if the name begins with `auto-`, as those of schedules do, `NoSpace`.
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
    /// builder to do so: ready when it is durable and every container sees it. What was written since is
    /// lost.
    ///
    /// ```no_run
    /// # async fn example(volume: teu::Volume) -> teu::Result<()> {
    /// use teu::RefusalCode;
    ///
    /// match volume.rollback("monday").await {
    ///     // The message names the programs that have files open.
    ///     Err(error) if error.code() == Some(RefusalCode::Busy) => eprintln!("{error}"),
    ///     // The message names the snapshots that were made after it.
    ///     Err(error) if error.code() == Some(RefusalCode::WrongState) => {
    ///         volume.rollback("monday").discard_later().await?;
    ///     }
    ///     other => other?,
    /// }
    /// # Ok(()) }
    /// ```
    pub fn rollback(&self, snapshot: impl AsRef<str>) -> RollbackBuilder {
        RollbackBuilder::new(self.clone(), parse_tag(snapshot.as_ref()))
    }

    /// Describes a new volume on the same node that begins as this snapshot and shares its bytes. It
    /// has neither the quota nor the schedule of this one unless they are given again.
    ///
    /// ```no_run
    /// # async fn example(location: teu::Location, books: teu::Volume) -> teu::Result<()> {
    /// let trial = books.clone_from("before").tag("trial").await?;
    /// let migration = location.spawn("migrate").volume(&trial, "/data").await?;
    /// println!("the rehearsal ended: {:?}", migration.wait_exit().await?);
    /// migration.destroy().await?;
    /// trial.destroy().await?;
    /// # Ok(()) }
    /// ```
    pub fn clone_from(&self, snapshot: impl AsRef<str>) -> VolumeBuilder {
        VolumeBuilder::cloning(
            self.session.clone(),
            self.id(),
            parse_tag(snapshot.as_ref()),
        )
    }

    /// What it takes in bytes, counted by its pool after all is written out (on btrfs by quota groups, on
    /// ZFS by the properties `referenced`, `written` and `usedbysnapshots`). Cancel-safe.
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
    /// Beyond it, writers get EDQUOT, and nobody else suffers. (`max_rfer` of a quota group in
    /// `btrfs-qgroup(8)`, `refquota` in `zfsprops(7)`.)
    ///
    /// ```no_run
    /// # async fn example(volume: teu::Volume) -> teu::Result<()> {
    /// volume.set_quota(10 << 30).await?;
    /// volume.set_quota(None).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Refused`] with `BadRequest` below 1 MiB. Below what the tree has already, ZFS refuses; btrfs
    /// takes it, and files can then be removed, not written.
    pub async fn set_quota(&self, bytes: impl Into<Option<u64>>) -> Result<()> {
        let body = RequestBody::SetQuota {
            volume: self.id(),
            quota_bytes: bytes.into(),
        };
        self.changed("change the quota", body).await
    }

    /// Has its node make snapshots from now on, also while nobody is connected; `None`: no longer
    /// (those it made stay). They are called `auto-` and the time in UTC; only they are counted and
    /// removed by the schedule.
    ///
    /// ```no_run
    /// # async fn example(volume: teu::Volume) -> teu::Result<()> {
    /// // Every hour, the last day's.
    /// volume.set_schedule(teu::SnapshotSchedule { every_s: 3600, keep: 24 }).await?;
    /// volume.set_schedule(None).await?;
    /// # Ok(()) }
    /// ```
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
    /// ```no_run
    /// # async fn example(books: teu::Volume) -> teu::Result<()> {
    /// books.export("monday", None).await?.save("monday.teu", |_| {}).await?;
    /// let changes = books.export("tuesday", Some("monday")).await?;
    /// let bytes = changes.save("tuesday.teu", |_| {}).await?;
    /// println!("{bytes} bytes changed");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Refused`] with `NotFound` if it has no such snapshot, `BadRequest` if the base is not the
    /// older one. Later failures come from the reader: only a whole export ends without one.
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
    /// No container may have it mounted.
    ///
    /// ```no_run
    /// # async fn example(location: teu::Location) -> Result<(), Box<dyn std::error::Error>> {
    /// use tokio::fs::File;
    ///
    /// let copy = location.import_volume(File::open("monday.teu").await?).await?;
    /// copy.import_from(File::open("tuesday.teu").await?).await?;
    /// # Ok(()) }
    /// ```
    pub fn import_from<R: AsyncRead + Unpin + Send>(&self, reader: R) -> ImportBuilder<R> {
        ImportBuilder::into_volume(self.session.clone(), self.id(), reader)
    }

    /// Describes a copy of a snapshot on another node. The bytes go through this program.
    ///
    /// ```no_run
    /// # async fn example(books: teu::Volume, other: teu::NodeId) -> teu::Result<()> {
    /// books.snapshot("monday").await?;
    /// let copy = books.copy_to("monday", other).tag("books-copy").await?;
    /// // A day later: only what changed travels.
    /// books.snapshot("tuesday").await?;
    /// books.copy_into("tuesday", &copy).await?;
    /// # Ok(()) }
    /// ```
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

    /// Destroys it with all of its snapshots; ready when nothing of it is left. Clones of it stay. One
    /// that is [missing](crate::VolumeState::Missing) is forgotten.
    ///
    /// # Errors
    /// [`Error::Refused`] with `Busy`, naming the containers that have it mounted; `NodeLost`.
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
    ///
    /// ```no_run
    /// # async fn example(location: teu::Location) -> teu::Result<()> {
    /// use std::time::Duration;
    ///
    /// let books = location
    ///     .create_volume()
    ///     .tag("books")
    ///     .quota(2 << 30)
    ///     .schedule(Duration::from_secs(3600), 24)
    ///     .await?;
    /// println!("{} lies on node {}", books.id(), books.node());
    /// # Ok(()) }
    /// ```
    pub fn create_volume(&self) -> VolumeBuilder {
        VolumeBuilder::new(self.handle().clone())
    }

    /// Describes the account's volume of that name, to be made if there is none: then what the
    /// builder says holds; else the volume is taken as it is, wherever it is.
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
