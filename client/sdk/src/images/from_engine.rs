//! Images of the local Docker or Podman engine, sent to the location.
//!
//! Owner: [`Images`]. Invariant: `push` prefers what the engine has, so that a rebuilt image gets there.
//! Next: [`upload`] sends.

use std::sync::Arc;

use teu_protocol::message::ImageInfo;

use super::{
    Images,
    ensure::{NEWEST, in_catalogue},
    upload,
};
use crate::{
    Progress, ProgressEvent,
    error::{Error, Result},
    image::{Engine, EngineImage, ImageError, ImageName, Platform, no_progress},
};

/// Sends an image that the location does not have under this name.
pub(super) async fn fetch(
    images: &Images,
    name: &str,
    progress: &Arc<dyn Progress>,
) -> Result<ImageInfo> {
    let before = match name {
        NEWEST => "",
        _ => "the location and ",
    };
    let (engine, found) = in_engine(name, before).await?;
    if name == NEWEST
        && let Some(image) = same_image(images, &found).await?
    {
        return Ok(image);
    }
    send(images, &engine, &found, name, progress).await
}

pub(super) async fn push(
    images: &Images,
    name: &str,
    progress: &Arc<dyn Progress>,
) -> Result<ImageInfo> {
    let (engine, found) = in_engine(name, "").await?;
    if let Some(image) = same_image(images, &found).await?
        && found.names.iter().all(|name| image.names.contains(name))
    {
        return Ok(image);
    }
    send(images, &engine, &found, name, progress).await
}

/// The engine's image of that name; `before` tells who was asked first.
async fn in_engine(name: &str, before: &str) -> Result<(Engine, EngineImage)> {
    let asked = |engine: &ImageError| Error::NoImage {
        name: name.to_owned(),
        asked: format!("{before}the local engine ({engine})"),
    };
    let engine = match Engine::connect().await {
        Ok(engine) => engine,
        Err(error) => return Err(asked(&error)),
    };
    let found = if name == NEWEST {
        engine.newest().await
    } else {
        engine.find(name).await
    };
    match found {
        Ok(found) => Ok((engine, found)),
        Err(error @ (ImageError::NotInEngine { .. } | ImageError::EngineEmpty { .. })) => {
            Err(asked(&error))
        }
        Err(error) => Err(error.into()),
    }
}

/// The catalogue's image that has the same configuration.
async fn same_image(images: &Images, found: &EngineImage) -> Result<Option<ImageInfo>> {
    match &found.config {
        Some(id) => in_catalogue(images, &id.to_string()).await,
        None => Ok(None),
    }
}

async fn send(
    images: &Images,
    engine: &Engine,
    found: &EngineImage,
    name: &str,
    progress: &Arc<dyn Progress>,
) -> Result<ImageInfo> {
    let shown = found.names.first().map_or(name, String::as_str);
    progress.on_event(ProgressEvent::Exporting {
        image: shown.to_owned(),
    });
    let platform = Platform::default();
    let mut source = Box::pin(engine.export(found, &platform, &no_progress())).await?;
    // The name that it was asked by is one that it will be found by again.
    if let Ok(asked) = name.parse::<ImageName>().map(|name| name.to_string())
        && found.names.contains(&asked)
        && !source.names.contains(&asked)
    {
        source.names.push(asked);
    }
    let image = upload::upload(&images.session, &source, shown, progress).await?;
    progress.on_event(ProgressEvent::Done);
    Ok(image)
}
