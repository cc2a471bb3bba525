//! From a name to an image in the catalogue.
//!
//! Owner: [`Images`]. Invariant: `ensure` prefers what the location has, so that a run needs no engine.
//! Next: [`super::from_engine`], where what the location does not have may come from.

use std::sync::Arc;

use teu_protocol::message::{ImageInfo, RefusalCode};

use super::Images;
use crate::{
    Progress,
    error::{Error, Result},
};

/// The engine's newest image.
pub(super) const NEWEST: &str = ".";

pub(super) async fn ensure(
    images: &Images,
    name: &str,
    progress: &Arc<dyn Progress>,
) -> Result<ImageInfo> {
    if name != NEWEST
        && let Some(image) = in_catalogue(images, name).await?
    {
        return Ok(image);
    }
    #[cfg(feature = "engine")]
    return super::from_engine::fetch(images, name, progress).await;
    #[cfg(not(feature = "engine"))]
    {
        let _ = progress;
        Err(Error::NoImage {
            name: name.to_owned(),
            asked: "the location (this program was built without crate `teu`'s feature `engine`, \
                    so no local engine was asked)"
                .to_owned(),
        })
    }
}

pub(super) async fn in_catalogue(images: &Images, name: &str) -> Result<Option<ImageInfo>> {
    match images.find(name).await {
        Ok(image) => Ok(Some(image)),
        Err(Error::Refused { refusal, .. })
            if matches!(
                refusal.code,
                RefusalCode::ImageMissing | RefusalCode::NotFound
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
