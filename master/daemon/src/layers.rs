//! The layer cache: blobs by digest, received from clients and sent to nodes.
//!
//! ```text
//!   DATA/layers/<hex>                          a verified blob; never changed
//!   DATA/layers/uploading/<hex>.<account>      what one account has sent of it so far
//!   DATA/layers/trash/<n>                      about to be removed
//! ```
//! Owner: the server; the core loop calls it for each effect, transfers run in tasks of their own.
//! Invariants: a name in `layers/` is a blob of that digest, durable before anybody is told; what one
//! account sent never counts for another; several transfers never share a file.
//! Next: [`upload`] and [`download`].

mod disk;
mod download;
mod upload;

pub(crate) use download::{Download, DownloadOrder};
pub(crate) use upload::{Upload, UploadOrder};

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use teu_master_core::record::{Possession, StoreOp};
use teu_protocol::ids::{Digest, PublicKey};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{bounds::PARTIAL_KEPT_FOR, broker::BrokerHandle, layers::upload::ActiveUpload};

/// What went wrong on the cache's disk.
#[derive(Debug, thiserror::Error)]
pub enum LayerCacheError {
    /// A directory or file cannot be used.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl LayerCacheError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

/// Which upload: a blob, and whose.
type UploadKey = (Digest, PublicKey);

/// The cache.
#[derive(Debug)]
pub(crate) struct LayerCache {
    blobs: PathBuf,
    partials: PathBuf,
    trash: PathBuf,
    trashed: AtomicU64,
    active: Mutex<HashMap<UploadKey, ActiveUpload>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl LayerCache {
    /// Opens the cache in `directory`, making it if need be.
    pub(crate) fn open(
        directory: &Path,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, LayerCacheError> {
        let cache = Self {
            blobs: directory.to_owned(),
            partials: directory.join("uploading"),
            trash: directory.join("trash"),
            trashed: AtomicU64::new(0),
            active: Mutex::default(),
            tasks,
            stop,
        };
        match std::fs::remove_dir_all(&cache.trash) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(LayerCacheError::io("remove", &cache.trash)(error));
            }
            _ => {}
        }
        for path in [&cache.partials, &cache.trash] {
            std::fs::create_dir_all(path).map_err(LayerCacheError::io("create", path))?;
        }
        Ok(Arc::new(cache))
    }

    /// Makes disk and records agree after a start: removes blobs that nobody possesses, and answers
    /// with the removal of possessions whose blob is gone or has another length.
    pub(crate) fn reconcile(
        &self,
        possessions: &mut Vec<Possession>,
    ) -> Result<Vec<StoreOp>, LayerCacheError> {
        let mut lost = Vec::new();
        possessions.retain(|possession| {
            let length = std::fs::metadata(self.blob(possession.digest)).map(|m| m.len());
            let there = length.is_ok_and(|length| length == possession.size);
            if !there {
                tracing::warn!(digest = %possession.digest, "a layer's blob is missing");
                let (account, digest) = (possession.account, possession.digest);
                lost.push(StoreOp::RemovePossession { account, digest });
            }
            there
        });
        let wanted: HashSet<String> = possessions.iter().map(|p| p.digest.hex()).collect();
        let entries = std::fs::read_dir(&self.blobs);
        for entry in entries
            .map_err(LayerCacheError::io("list", &self.blobs))?
            .flatten()
        {
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            let name = entry.file_name();
            if is_file && name.to_str().is_none_or(|name| !wanted.contains(name)) {
                let path = entry.path();
                std::fs::remove_file(&path).map_err(LayerCacheError::io("remove", &path))?;
            }
        }
        Ok(lost)
    }

    /// Removes a blob that nothing uses. Its name is free at once; the disk a little later.
    pub(crate) fn delete(&self, digest: Digest) {
        let number = self.trashed.fetch_add(1, Ordering::Relaxed);
        let (from, to) = (self.blob(digest), self.trash.join(number.to_string()));
        match std::fs::rename(&from, &to) {
            Ok(()) => {
                self.tasks.spawn_blocking(move || {
                    if let Err(error) = std::fs::remove_file(&to) {
                        tracing::warn!(%error, "a deleted layer stays in the trash");
                    }
                });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%digest, %error, "a layer cannot be deleted"),
        }
    }

    /// Removes parts of layers that nobody came back for.
    pub(crate) fn sweep(&self) {
        let Ok(entries) = std::fs::read_dir(&self.partials) else {
            return;
        };
        for entry in entries.flatten() {
            let modified = entry.metadata().and_then(|meta| meta.modified());
            let age = modified.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
            if age.is_ok_and(|age| age > PARTIAL_KEPT_FOR) && !self.is_active(&entry.path()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    fn is_active(&self, path: &Path) -> bool {
        let active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        active.keys().any(|key| self.partial(*key) == path)
    }

    fn blob(&self, digest: Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    fn partial(&self, (digest, account): UploadKey) -> PathBuf {
        let account = Digest::of(account.as_bytes()).hex();
        let account = account.get(..16).unwrap_or_default();
        self.partials.join(format!("{}.{account}", digest.hex()))
    }
}

/// What transfers need beside the cache.
#[derive(Debug, Clone)]
pub(crate) struct Transfers {
    pub(crate) cache: Arc<LayerCache>,
    pub(crate) broker: BrokerHandle,
}
