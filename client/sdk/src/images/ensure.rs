//! From a name to an image in the catalogue.

use std::sync::Arc;

use teu_protocol::message::{ImageInfo, RefusalCode};

use super::{Images, upload};
use crate::{
    Progress, ProgressEvent,
    error::{Error, Result},
    image::{Engine, EngineImage, ImageError, ImageName, Platform, no_progress},
};

/// The engine's newest image.
const NEWEST: &str = ".";

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
    let asked = |engine: &ImageError| Error::NoImage {
        name: name.to_owned(),
        asked: match name {
            NEWEST => format!("the local engine ({engine})"),
            _ => format!(
                "the location (it is not in the account's catalogue), then the local engine ({engine})"
            ),
        },
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
    let found = match found {
        Ok(found) => found,
        Err(error @ (ImageError::NotInEngine { .. } | ImageError::EngineEmpty { .. })) => {
            return Err(asked(&error));
        }
        Err(error) => return Err(error.into()),
    };
    if name == NEWEST
        && let Some(image) = same_image(images, &found).await?
    {
        return Ok(image);
    }
    send(images, &engine, &found, name, progress).await
}

async fn in_catalogue(images: &Images, name: &str) -> Result<Option<ImageInfo>> {
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
