//! A volume to be: its name, bounds and schedule, and what it begins as.

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    time::Duration,
};

use teu_protocol::{
    ids::{NodeId, Tag, VolumeId},
    message::{ImportTarget, ReplyBody, RequestBody, SnapshotSchedule, VolumeSpec},
};
use tokio::io::AsyncRead;

use super::{ImportBuilder, PATIENCE, Volume};
use crate::{
    chosen_tag::ChosenTag,
    error::{Error, Result},
    session::SessionHandle,
};

const ATTEMPT: &str = "make the volume";

/// Describes a volume; made by [`crate::Location::create_volume`], `ensure_volume` and
/// [`Volume::clone_from`]. Await it (or [`VolumeBuilder::start`]) to make the volume.
#[derive(Debug)]
#[must_use = "no volume is made until this is awaited"]
pub struct VolumeBuilder {
    session: SessionHandle,
    begins: Begins,
    node: Option<NodeId>,
    tag: ChosenTag,
    /// Without its name, which is `tag`.
    spec: VolumeSpec,
}

#[derive(Debug)]
enum Begins {
    Empty,
    /// As it is, if there is one of this name.
    Ensured(Result<Tag>),
    Cloned(VolumeId, Result<Tag>),
}

impl VolumeBuilder {
    pub(super) fn new(session: SessionHandle) -> Self {
        Self::beginning(session, Begins::Empty)
    }

    pub(super) fn ensuring(session: SessionHandle, tag: Result<Tag>) -> Self {
        Self::beginning(session, Begins::Ensured(tag))
    }

    pub(super) fn cloning(session: SessionHandle, of: VolumeId, snapshot: Result<Tag>) -> Self {
        Self::beginning(session, Begins::Cloned(of, snapshot))
    }

    fn beginning(session: SessionHandle, begins: Begins) -> Self {
        Self {
            session,
            begins,
            node: None,
            tag: ChosenTag::default(),
            spec: VolumeSpec::default(),
        }
    }

    pub(super) fn spec(mut self, spec: VolumeSpec) -> Self {
        self.tag = ChosenTag::known_as(spec.tag);
        self.spec = VolumeSpec { tag: None, ..spec };
        self
    }

    /// Names the volume; unique among the account's volumes. Text that cannot be a name makes the
    /// operation fail with [`Error::Tag`].
    pub fn tag(mut self, tag: impl AsRef<str>) -> Self {
        self.tag = ChosenTag::parse(tag);
        self
    }

    /// The most bytes that its tree may refer to (snapshots are not counted); at least 1 MiB.
    pub const fn quota(mut self, bytes: u64) -> Self {
        self.spec.quota_bytes = Some(bytes);
        self
    }

    /// Lies on this node; default: the location chooses.
    pub const fn node(mut self, node: NodeId) -> Self {
        self.node = Some(node);
        self
    }

    /// Has its node make a snapshot so often (at least 10 s) and keep so many of those (1 to 1000).
    pub const fn schedule(mut self, every: Duration, keep: u32) -> Self {
        self.spec.schedule = Some(SnapshotSchedule {
            every_s: every.as_secs(),
            keep,
        });
        self
    }

    /// Attaches a label, for programs that list volumes.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.spec.labels.insert(key.into(), value.into());
        self
    }

    /// Lets it begin as what `reader` exports (a full export, not one with a base).
    pub fn import_from<R: AsyncRead + Unpin + Send>(self, reader: R) -> ImportBuilder<R> {
        let Self {
            begins,
            node,
            tag,
            spec,
            session,
        } = self;
        let target = match begins {
            Begins::Empty => tag.check().map(|tag| ImportTarget::New {
                node,
                spec: VolumeSpec { tag, ..spec },
            }),
            Begins::Ensured(_) | Begins::Cloned(..) => Err(Error::Invalid {
                attempt: "import the volume",
                why: "only a new volume can be imported; begin with create_volume".to_owned(),
            }),
        };
        ImportBuilder::new(session, target, reader)
    }

    /// Makes it: ready when it is durable on its node.
    ///
    /// Not cancel-safe: dropped midway, the volume may be made all the same; it then shows in
    /// [`crate::Location::volumes`].
    ///
    /// # Errors
    /// [`Error::Refused`] with `TagTaken`, `NoCapacity` (no node has a pool), `NoSpace`, `Faulted` (its pool
    /// is out of order), `NodeLost`, `LimitReached`, `NotFound` (no such snapshot to clone), ….
    pub async fn start(self) -> Result<Volume> {
        let Self {
            session,
            begins,
            node,
            tag,
            spec,
        } = self;
        let mut spec = VolumeSpec {
            tag: tag.check()?,
            ..spec
        };
        let body = match begins {
            Begins::Empty => RequestBody::CreateVolume {
                node,
                spec,
                ensure: false,
            },
            Begins::Ensured(tag) => {
                spec.tag = Some(tag?);
                RequestBody::CreateVolume {
                    node,
                    spec,
                    ensure: true,
                }
            }
            Begins::Cloned(..) if node.is_some() => {
                return Err(Error::Invalid {
                    attempt: ATTEMPT,
                    why: "a clone lies on its origin's node; copy_to makes one elsewhere"
                        .to_owned(),
                });
            }
            Begins::Cloned(volume, snapshot) => RequestBody::CloneVolume {
                volume,
                snapshot: snapshot?,
                spec,
            },
        };
        match session.request(ATTEMPT, body, PATIENCE).await? {
            ReplyBody::Volume(info) => Ok(Volume::new(session, *info)),
            _ => Err(Error::Nonsense { attempt: ATTEMPT }),
        }
    }
}

impl IntoFuture for VolumeBuilder {
    type Output = Result<Volume>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}
