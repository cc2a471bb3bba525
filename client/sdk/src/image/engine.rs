//! The local Docker or Podman engine as a source of images.
//!
//! Owner: an [`Engine`] is a connection, cheap to clone; nothing in the engine is changed. Invariant:
//! an exported image goes through the same checks as any archive. What an engine says about an image
//! (`EngineImage`) is only used to decide whether an export is needed: with Docker's classic store
//! the id is the config's digest, with the containerd store it is not, and then `config` is `None`.

use std::path::Path;

use bollard::{API_DEFAULT_VERSION, Docker, errors::Error, models::ImageInspect};
use futures::StreamExt as _;
use teu_protocol::ids::Digest;
use tokio::io::AsyncWriteExt as _;

use super::{
    ImageChoice, ImageProgress, ImageSource, Platform, ProgressFn,
    docker_archive::short_name,
    error::ImageError,
    name::ImageName,
    open::{MAX_SPOOL_BYTES, from_store},
    store::Store,
};

/// For one answer's beginning. Exporting a large image can take a busy engine long to start.
const TIMEOUT_SECONDS: u64 = 300;

/// Progress is told this often at most.
const REPORT_EVERY_BYTES: u64 = 1024 * 1024;

/// A connection to an engine.
#[derive(Debug, Clone)]
pub struct Engine {
    docker: Docker,
    socket: String,
    /// Whether images are kept by containerd, whose ids are manifests' digests.
    containerd_store: bool,
}

/// What an engine says about one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineImage {
    /// The engine's own id; names it in the engine.
    pub id: String,
    /// Short forms.
    pub names: Vec<String>,
    /// The config's digest, which is TEU's image id, if the engine's id is that.
    pub config: Option<Digest>,
    /// Of its layers, lowest first. An exported layer is uncompressed with the classic store, so
    /// its digest is its diff id.
    pub diff_ids: Vec<Digest>,
    /// What it is for.
    pub platform: Platform,
    /// The engine's idea of its size in bytes.
    pub size: u64,
}

impl Engine {
    /// The first engine that answers: `DOCKER_HOST`, or else Docker's socket, Podman's, and the
    /// user's own Podman's.
    pub async fn connect() -> Result<Self, ImageError> {
        let mut tried = candidates(|name| std::env::var(name).ok())?;
        for socket in &tried {
            if Path::new(socket).exists()
                && let Ok(engine) = Self::connect_to(socket).await
            {
                return Ok(engine);
            }
        }
        tried.dedup();
        Err(ImageError::NoEngine { tried })
    }

    /// The engine at that socket path.
    pub async fn connect_to(socket: &str) -> Result<Self, ImageError> {
        let failed = |source| engine_error(socket, "answer", source);
        let docker = Docker::connect_with_unix(socket, TIMEOUT_SECONDS, API_DEFAULT_VERSION)
            .map_err(failed)?
            .negotiate_version()
            .await
            .map_err(failed)?;
        let info = docker.info().await.map_err(failed)?;
        let containerd_store = info.driver_status.is_some_and(|status| {
            status
                .iter()
                .flatten()
                .any(|text| text.starts_with("io.containerd.snapshotter"))
        });
        Ok(Self {
            docker,
            socket: socket.to_owned(),
            containerd_store,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn socket(&self) -> &str {
        &self.socket
    }

    /// The image of that name (`nginx` means `nginx:latest`) or id (or its beginning).
    pub async fn find(&self, name: &str) -> Result<EngineImage, ImageError> {
        let is_id = name.len() >= 12 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let parsed = name.parse::<ImageName>();
        let mut spellings = Vec::new();
        if is_id || name.parse::<Digest>().is_ok() {
            spellings.push(name.to_owned());
        }
        if let Ok(parsed) = &parsed {
            // Podman knows unqualified local images as localhost/…, Docker by the short name.
            spellings.extend([parsed.to_string(), parsed.full()]);
            spellings.push(format!("localhost/{parsed}"));
        }
        if spellings.is_empty() {
            parsed?;
        }
        for spelling in &spellings {
            match self.docker.inspect_image(spelling).await {
                Ok(inspect) => return Ok(self.described(inspect)),
                Err(Error::DockerResponseServerError {
                    status_code: 404 | 400,
                    ..
                }) => {}
                Err(source) => {
                    return Err(engine_error(&self.socket, "describe the image", source));
                }
            }
        }
        Err(ImageError::NotInEngine {
            socket: self.socket.clone(),
            name: name.to_owned(),
        })
    }

    /// The image built or pulled last (`teu run .`).
    pub async fn newest(&self) -> Result<EngineImage, ImageError> {
        let options = bollard::query_parameters::ListImagesOptions::default();
        let images = self
            .docker
            .list_images(Some(options))
            .await
            .map_err(|source| engine_error(&self.socket, "list its images", source))?;
        let newest = images.into_iter().max_by_key(|image| image.created);
        let newest = newest.ok_or_else(|| ImageError::EngineEmpty {
            socket: self.socket.clone(),
        })?;
        let inspect = self.docker.inspect_image(&newest.id).await;
        let inspect =
            inspect.map_err(|source| engine_error(&self.socket, "describe the image", source))?;
        Ok(self.described(inspect))
    }

    /// Exports the image and checks it. Needs room for it in TMPDIR.
    pub async fn export(
        &self,
        image: &EngineImage,
        platform: &Platform,
        progress: &ProgressFn,
    ) -> Result<ImageSource, ImageError> {
        let what = image.names.first().unwrap_or(&image.id);
        let file = tempfile::tempfile().map_err(ImageError::Spool)?;
        let mut file = tokio::fs::File::from_std(file);
        let mut stream = std::pin::pin!(self.docker.export_image(what));
        let (mut done, mut reported) = (0_u64, 0_u64);
        while let Some(chunk) = stream.next().await {
            let chunk =
                chunk.map_err(|source| engine_error(&self.socket, "export the image", source))?;
            done += chunk.len() as u64;
            if done > MAX_SPOOL_BYTES {
                let what = "the exported image".to_owned();
                return Err(ImageError::TooLarge {
                    what,
                    limit: MAX_SPOOL_BYTES,
                });
            }
            file.write_all(&chunk).await.map_err(ImageError::Spool)?;
            if done - reported >= REPORT_EVERY_BYTES {
                reported = done;
                progress(ImageProgress::Exporting {
                    done,
                    expected: image.size,
                });
            }
        }
        file.flush().await.map_err(ImageError::Spool)?;
        progress(ImageProgress::Exporting {
            done,
            expected: done,
        });
        let file = file.into_std().await;
        let choice = ImageChoice {
            name: None,
            platform: platform.clone(),
        };
        let (names, progress) = (image.names.clone(), progress.clone());
        let opened = tokio::task::spawn_blocking(move || {
            from_store(&Store::index(file)?, &choice, &progress)
        });
        let mut source = opened.await.map_err(|_| ImageError::Worker)??;
        if !names.is_empty() {
            source.names = names;
        }
        Ok(source)
    }

    fn described(&self, inspect: ImageInspect) -> EngineImage {
        let id = inspect.id.unwrap_or_default();
        let digest = id.parse().or_else(|_| format!("sha256:{id}").parse()).ok();
        let layers = inspect
            .root_fs
            .and_then(|root| root.layers)
            .unwrap_or_default();
        EngineImage {
            config: digest.filter(|_| !self.containerd_store),
            names: inspect
                .repo_tags
                .iter()
                .flatten()
                .map(|name| short_name(name))
                .collect(),
            diff_ids: layers.iter().filter_map(|text| text.parse().ok()).collect(),
            platform: Platform {
                os: inspect.os.unwrap_or_default(),
                architecture: inspect.architecture.unwrap_or_default(),
                variant: inspect.variant.unwrap_or_default(),
            },
            size: inspect
                .size
                .and_then(|size| u64::try_from(size).ok())
                .unwrap_or_default(),
            id,
        }
    }
}

/// Socket paths to try, in order. An explicit `DOCKER_HOST` is the only one.
fn candidates(env: impl Fn(&str) -> Option<String>) -> Result<Vec<String>, ImageError> {
    if let Some(host) = env("DOCKER_HOST").filter(|host| !host.is_empty()) {
        return match host.strip_prefix("unix://") {
            Some(path) => Ok(vec![path.to_owned()]),
            None => Err(ImageError::RemoteEngine { host }),
        };
    }
    let mut sockets = vec![
        "/var/run/docker.sock".to_owned(),
        "/run/podman/podman.sock".to_owned(),
    ];
    if let Some(dir) = env("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        sockets.insert(1, format!("{dir}/docker.sock"));
        sockets.push(format!("{dir}/podman/podman.sock"));
    }
    Ok(sockets)
}

fn engine_error(socket: &str, action: &'static str, source: Error) -> ImageError {
    ImageError::Engine {
        socket: socket.to_owned(),
        action,
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_host_decides_and_podman_comes_last() {
        let none = candidates(|_| None).unwrap();
        assert_eq!(none, ["/var/run/docker.sock", "/run/podman/podman.sock"]);
        let user = candidates(|name| (name == "XDG_RUNTIME_DIR").then(|| "/run/user/1".into()));
        assert_eq!(
            user.unwrap().last().unwrap(),
            "/run/user/1/podman/podman.sock"
        );
        let host = |text: &str| candidates(|name| (name == "DOCKER_HOST").then(|| text.into()));
        assert_eq!(host("unix:///x.sock").unwrap(), ["/x.sock"]);
        assert!(matches!(
            host("tcp://1.2.3.4:2375"),
            Err(ImageError::RemoteEngine { .. })
        ));
    }
}
