//! The account's images at a location, and how they get there.

mod ensure;
#[cfg(feature = "engine")]
mod from_engine;
#[cfg(test)]
mod tests;
mod upload;

use std::{path::Path, sync::Arc};

use teu_protocol::message::{ImageInfo, ReplyBody, RequestBody};

use crate::{
    Progress, ProgressEvent,
    error::{Error, Result},
    image::{self, ImageChoice, ImageError, ImageSource},
    session::{Patience, SessionHandle},
};

/// The account's images; see [`crate::Location::images`].
#[derive(Debug, Clone)]
pub struct Images {
    session: SessionHandle,
}

impl Images {
    pub(crate) const fn new(session: SessionHandle) -> Self {
        Self { session }
    }

    /// All of them, in no particular order. Cancel-safe.
    ///
    /// # Errors
    /// If the location does not answer.
    pub async fn list(&self) -> Result<Vec<ImageInfo>> {
        const ATTEMPT: &str = "list the images";
        match self
            .session
            .request(ATTEMPT, RequestBody::Images, Patience::USUAL)
            .await?
        {
            ReplyBody::Images(images) => Ok(images),
            _ => Err(Error::Nonsense { attempt: ATTEMPT }),
        }
    }

    /// The image of that name (`nginx` means `nginx:latest`), id or unique prefix of an id.
    ///
    /// # Errors
    /// [`Error::Refused`] with `ImageMissing` if the account has none here. Cancel-safe.
    pub async fn find(&self, name: &str) -> Result<ImageInfo> {
        const ATTEMPT: &str = "find the image";
        let body = RequestBody::FindImage(name.to_owned());
        match self.session.request(ATTEMPT, body, Patience::USUAL).await? {
            ReplyBody::Image(image) => Ok(image),
            _ => Err(Error::Nonsense { attempt: ATTEMPT }),
        }
    }

    /// Removes a name, or an image by its id. Containers that run from it are not touched.
    ///
    /// # Errors
    /// [`Error::Refused`] with `ImageMissing` or `NotFound`.
    pub async fn remove(&self, name: &str) -> Result<()> {
        const ATTEMPT: &str = "remove the image";
        let body = RequestBody::RemoveImage(name.to_owned());
        match self.session.request(ATTEMPT, body, Patience::USUAL).await? {
            ReplyBody::Done => Ok(()),
            _ => Err(Error::Nonsense { attempt: ATTEMPT }),
        }
    }

    /// Imports every image of a file (`docker save`, OCI layout; plain, gzip or zstd) or of an OCI
    /// layout's directory. What the location already has does not travel.
    ///
    /// Cancel-safe: what was sent stays, and a further import goes on from there.
    ///
    /// # Errors
    /// [`Error::Image`] if the file is not an image or is damaged, [`Error::Refused`].
    pub async fn import_file(
        &self,
        path: impl AsRef<Path>,
        progress: Arc<dyn Progress>,
    ) -> Result<Vec<ImageInfo>> {
        let path = path.as_ref();
        let label = path
            .file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy()
            .into_owned();
        let sources = match open(path, None).await {
            Err(ImageError::Ambiguous { names }) => {
                let mut sources = Vec::new();
                for name in names {
                    sources.push(open(path, Some(name)).await?);
                }
                sources
            }
            source => vec![source?],
        };
        let mut images = Vec::new();
        for source in sources {
            let shown = source
                .names
                .first()
                .cloned()
                .unwrap_or_else(|| label.clone());
            images.push(upload::upload(&self.session, &source, &shown, &progress).await?);
        }
        progress.on_event(ProgressEvent::Done);
        Ok(images)
    }

    /// Sends an image that this program has opened or built.
    ///
    /// # Errors
    /// As [`Images::import_file`].
    pub async fn add(
        &self,
        source: &ImageSource,
        progress: Arc<dyn Progress>,
    ) -> Result<ImageInfo> {
        let shown = source
            .names
            .first()
            .cloned()
            .unwrap_or_else(|| source.id.short());
        let image = upload::upload(&self.session, source, &shown, &progress).await?;
        progress.on_event(ProgressEvent::Done);
        Ok(image)
    }

    /// Makes sure that the location has the image: asks its catalogue first, then the local Docker
    /// or Podman engine, whose image is then sent. `.` is the engine's newest image.
    ///
    /// Cancel-safe, as [`Images::import_file`].
    ///
    /// # Errors
    /// [`Error::NoImage`] if neither has it, [`Error::Image`] if the engine's cannot be read.
    pub async fn ensure(&self, name: &str, progress: Arc<dyn Progress>) -> Result<ImageInfo> {
        ensure::ensure(self, name, &progress).await
    }

    /// Sends the local engine's image of that name (`.` for its newest), also if the location has an
    /// older one under that name, which then loses the name. Layers that are there do not travel.
    ///
    /// Cancel-safe, as [`Images::import_file`].
    ///
    /// # Errors
    /// [`Error::NoImage`] if the engine does not have it, [`Error::Image`] if it cannot be read.
    #[cfg(feature = "engine")]
    pub async fn push(&self, name: &str, progress: Arc<dyn Progress>) -> Result<ImageInfo> {
        from_engine::push(self, name, &progress).await
    }
}

/// Opens and checks an image, on a thread that may block.
async fn open(path: &Path, name: Option<String>) -> Result<ImageSource, ImageError> {
    let path = path.to_owned();
    let choice = ImageChoice {
        name,
        ..ImageChoice::default()
    };
    let opened =
        tokio::task::spawn_blocking(move || image::open(&path, &choice, &image::no_progress()));
    opened.await.unwrap_or(Err(ImageError::Worker))
}
