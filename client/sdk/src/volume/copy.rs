//! Copies on other nodes: an export that is imported elsewhere, through this program.

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
};

use teu_protocol::{ids::NodeId, message::VolumeSpec};

use super::{Volume, VolumeBuilder, nameless};
use crate::{
    chosen_tag::ChosenTag,
    error::{Error, Result},
};

const ATTEMPT: &str = "copy the volume";

/// Describes a copy; made by [`Volume::copy_to`]. Await it (or [`CopyBuilder::start`]). Quota,
/// schedule and labels are those of the original; the name is not, for names are unique.
#[derive(Debug)]
#[must_use = "nothing is copied until this is awaited"]
pub struct CopyBuilder {
    volume: Volume,
    snapshot: String,
    node: NodeId,
    tag: ChosenTag,
}

impl CopyBuilder {
    pub(super) fn new(volume: Volume, snapshot: String, node: NodeId) -> Self {
        Self {
            volume,
            snapshot,
            node,
            tag: ChosenTag::default(),
        }
    }

    /// Names the copy. Text that cannot be a name makes the copying fail with [`Error::Tag`].
    pub fn tag(mut self, tag: impl AsRef<str>) -> Self {
        self.tag = ChosenTag::parse(tag);
        self
    }

    /// Copies: ready when the copy is durable. [`Volume::copy_into`] brings it up to date later.
    ///
    /// # Errors
    /// As [`Volume::export`] and importing.
    pub async fn start(self) -> Result<Volume> {
        let spec = VolumeSpec {
            tag: self.tag.check()?,
            ..nameless(self.volume.info().spec)
        };
        let export = self.volume.export(&self.snapshot, None).await?;
        VolumeBuilder::new(self.volume.session)
            .spec(spec)
            .node(self.node)
            .import_from(export)
            .await
    }
}

impl IntoFuture for CopyBuilder {
    type Output = Result<Volume>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}

/// Sends what changed between the copy's newest snapshot and `snapshot`.
pub(super) async fn increment(volume: &Volume, snapshot: &str, copy: &Volume) -> Result<()> {
    let refused = |why: String| Error::Invalid {
        attempt: ATTEMPT,
        why,
    };
    let Some(base) = copy.snapshots().await?.pop() else {
        let why = "the copy has no snapshot to go on from; make a new one with copy_to";
        return Err(refused(why.to_owned()));
    };
    if base.name.as_str() == snapshot {
        // It was brought there before.
        return Ok(());
    }
    let known = volume.snapshots().await?;
    if !known.iter().any(|own| own.name == base.name) {
        return Err(refused(format!(
            "the copy's newest snapshot is `{}`, which the original does not have; make a new copy \
             with copy_to",
            base.name
        )));
    }
    let export = volume.export(snapshot, Some(base.name.as_str())).await?;
    copy.import_from(export).await.map(drop)
}
