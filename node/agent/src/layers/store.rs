//! The store's handle: what is there, who uses it, what it weighs.
//!
//! Owner: shared by clones; the lock is held for map look-ups only, never across an await or a
//! disk access. Invariant: what is listed is complete on disk; what is pinned is not removed; of
//! two that want the same layer one extracts and the other waits for it.

use std::{
    collections::{HashMap, HashSet},
    fs,
    future::Future,
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use teu_protocol::{ids::Digest, message::LayerRef};
use tokio::io::AsyncRead;

use super::{
    error::LayerError,
    ingest::TemporaryLayer,
    record::LayerRecord,
    room::{oldest_first, room_at},
    unpack::UnpackLimits,
};

/// Where a layer's files are, within its directory.
pub(super) const FS: &str = "fs";

/// Handle of a node's layers; cheap to clone.
#[derive(Debug, Clone)]
pub struct LayerStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    unpacker: PathBuf,
    limits: UnpackLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    layers: HashMap<Digest, LayerRecord>,
    pins: HashMap<Digest, usize>,
    /// To be removed when nothing pins them.
    unwanted: HashSet<Digest>,
    /// When each was last asked for or let go, on a clock that counts these; absent: before the store was opened.
    used: HashMap<Digest, u64>,
    uses: u64,
    /// Held while a layer is being extracted or removed.
    busy: HashMap<Digest, Weak<tokio::sync::Mutex<()>>>,
}

/// What the store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LayerUsage {
    /// Number of layers.
    pub layers: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

/// Keeps layers from being removed, until dropped.
#[derive(Debug)]
pub struct LayerPins {
    store: LayerStore,
    digests: Vec<Digest>,
}

impl LayerStore {
    /// Opens (or makes) `dir`/layers and removes what a crash left behind. Blocking.
    ///
    /// `unpacker` is the program whose subcommand `unpack` runs [`super::unpack::main`]: the
    /// agent itself, `/proc/self/exe`.
    ///
    /// # Errors
    /// [`LayerError::Store`].
    pub fn open(dir: &Path, unpacker: &Path, limits: UnpackLimits) -> Result<Self, LayerError> {
        let dir = dir.join("layers");
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| LayerError::Store {
                action,
                path,
                source,
            }
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .and_then(|()| fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)))
            .map_err(failed("create", &dir))?;
        let mut layers = HashMap::new();
        for entry in fs::read_dir(&dir).map_err(failed("list", &dir))? {
            let path = entry.map_err(failed("list", &dir))?.path();
            match complete(&path) {
                Some(record) => drop(layers.insert(record.digest, record)),
                None => {
                    tracing::info!(path = %path.display(), "removing an unfinished layer");
                    remove_tree(&path).map_err(failed("remove", &path))?;
                }
            }
        }
        let state = Mutex::new(State {
            layers,
            ..State::default()
        });
        let inner = Inner {
            dir,
            unpacker: unpacker.to_owned(),
            limits,
            state,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Whether the layer is there, ready to be mounted.
    #[must_use]
    pub fn contains(&self, digest: &Digest) -> bool {
        self.state().layers.contains_key(digest)
    }

    /// Those of `layers` that are not here, each once.
    #[must_use]
    pub fn missing(&self, layers: &[LayerRef]) -> Vec<LayerRef> {
        let state = self.state();
        let mut missing: Vec<LayerRef> = Vec::new();
        for layer in layers {
            let known = missing.iter().any(|other| other.digest == layer.digest);
            if !known && !state.layers.contains_key(&layer.digest) {
                missing.push(layer.clone());
            }
        }
        missing
    }

    /// The directories to stack, for overlayfs: *uppermost first*, each once (overlayfs refuses a
    /// directory that occurs twice; of repeated layers the uppermost counts).
    ///
    /// # Errors
    /// [`LayerError::Missing`] if one is not there.
    pub fn lower_dirs(&self, lowest_first: &[Digest]) -> Result<Vec<PathBuf>, LayerError> {
        let state = self.state();
        let mut seen = std::collections::HashSet::new();
        let mut directories = Vec::new();
        for digest in lowest_first.iter().rev() {
            if !state.layers.contains_key(digest) {
                return Err(LayerError::Missing { digest: *digest });
            }
            if seen.insert(*digest) {
                directories.push(self.path_of(digest).join(FS));
            }
        }
        Ok(directories)
    }

    /// Verifies and extracts one layer from its blob. Nothing is read if it is there already.
    /// Dropping the future ends the extraction and removes what it had written.
    ///
    /// # Errors
    /// Any [`LayerError`]; the store is as before.
    pub async fn ingest(
        &self,
        layer: &LayerRef,
        blob: impl AsyncRead + Unpin,
    ) -> Result<(), LayerError> {
        self.ensure(layer, || async { Ok(blob) }).await
    }

    /// As [`Self::ingest`], but asks for the blob only if it is needed: of several callers at a
    /// time only one fetches.
    ///
    /// # Errors
    /// Any [`LayerError`]; the store is as before.
    pub async fn ensure<F, R>(
        &self,
        layer: &LayerRef,
        fetch: impl FnOnce() -> F,
    ) -> Result<(), LayerError>
    where
        F: Future<Output = io::Result<R>>,
        R: AsyncRead + Unpin,
    {
        let digest = layer.digest;
        self.state().wanted(digest);
        let busy = self.busy(&digest);
        let turn = busy.lock_owned().await;
        if let Some(record) = self.state().layers.get(&digest) {
            return check_diff_id(layer, record.diff_id);
        }
        let blob = fetch()
            .await
            .map_err(|source| LayerError::Source { digest, source })?;
        let temporary = TemporaryLayer::create(&self.inner.dir, digest)?;
        let limits = self.inner.limits.within(&self.inner.dir);
        let extracted = temporary
            .extract(&self.inner.unpacker, &limits, layer, blob)
            .await?;
        check_diff_id(layer, extracted.diff_id)?;
        let record = LayerRecord {
            digest,
            diff_id: extracted.diff_id,
            bytes: extracted.bytes,
            members: extracted.members,
            skipped: extracted.skipped,
        };
        let target = self.path_of(&digest);
        let (written, opaque) = (record.clone(), extracted.opaque);
        let store = self.clone();
        tokio::task::spawn_blocking(move || {
            // Also if nobody waits for this any more, the next one must.
            let _turn = turn;
            temporary.finish(&written, &opaque, &target)?;
            // Here, not after the await: once it is visible on disk it must be known.
            store.state().layers.insert(digest, record);
            Ok(())
        })
        .await
        .map_err(|_| LayerError::Worker { digest })?
    }

    /// Keeps `layers` from being removed, as long as the result lives.
    ///
    /// # Errors
    /// [`LayerError::Missing`] if one is not there.
    pub fn pin(&self, layers: &[Digest]) -> Result<LayerPins, LayerError> {
        let mut state = self.state();
        if let Some(digest) = layers
            .iter()
            .find(|digest| !state.layers.contains_key(digest))
        {
            return Err(LayerError::Missing { digest: *digest });
        }
        for digest in layers {
            *state.pins.entry(*digest).or_default() += 1;
        }
        drop(state);
        Ok(LayerPins {
            store: self.clone(),
            digests: layers.to_vec(),
        })
    }

    /// Pins what a container of an earlier agent uses: all layers, if that is not known any more. What is not
    /// there cannot be kept.
    #[must_use]
    pub fn pin_found(&self, layers: Option<Vec<Digest>>) -> LayerPins {
        let mut state = self.state();
        let mut digests = layers.unwrap_or_else(|| state.layers.keys().copied().collect());
        digests.retain(|digest| state.layers.contains_key(digest));
        for digest in &digests {
            *state.pins.entry(*digest).or_default() += 1;
        }
        drop(state);
        LayerPins {
            store: self.clone(),
            digests,
        }
    }

    /// Removes a layer that nothing pins. Removing what is not there is fine.
    ///
    /// # Errors
    /// [`LayerError::InUse`] or [`LayerError::Store`].
    pub async fn remove(&self, digest: &Digest) -> Result<(), LayerError> {
        let digest = *digest;
        let busy = self.busy(&digest);
        let turn = busy.lock_owned().await;
        {
            let mut state = self.state();
            if state.pins.contains_key(&digest) {
                return Err(LayerError::InUse { digest });
            }
            state.unwanted.remove(&digest);
            state.used.remove(&digest);
            if state.layers.remove(&digest).is_none() {
                return Ok(());
            }
        }
        let path = self.path_of(&digest);
        let temporary = self.inner.dir.join(TemporaryLayer::random_name(digest)?);
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            // First out of sight, so that a crash midway leaves no half layer in its place.
            fs::rename(&path, &temporary)
                .and_then(|()| remove_tree(&temporary))
                .map_err(|source| LayerError::Store {
                    action: "remove",
                    path,
                    source,
                })
        })
        .await
        .map_err(|_| LayerError::Worker { digest })?
    }

    /// Removes those that are here, each as soon as nothing pins it; asking for one again takes that back.
    pub fn discard(&self, digests: &[Digest]) {
        let mut state = self.state();
        let here = digests.iter().filter(|one| state.layers.contains_key(one));
        let here: Vec<Digest> = here.copied().collect();
        state.unwanted.extend(here);
        let ready = state.ready_to_go();
        drop(state);
        self.remove_later(ready);
    }

    /// Removes layers that nothing pins, those first that were not used for the longest time, until `bytes` of files
    /// are gone or none is left. They are fetched again when they are wanted.
    pub async fn make_room(&self, bytes: u64) {
        let doomed = oldest_first(self.state().idle(), bytes);
        for digest in doomed {
            match self.remove(&digest).await {
                Ok(()) => {
                    tracing::info!(layer = %digest.short(), "removed an idle layer to make room")
                }
                Err(error) => tracing::warn!("{}", crate::link::chain(&error)),
            }
        }
    }

    /// Bytes that can still be written where the layers are; `None` if the file system does not tell.
    #[must_use]
    pub fn room(&self) -> Option<u64> {
        room_at(&self.inner.dir)
    }

    fn remove_later(&self, digests: Vec<Digest>) {
        // Without a runtime the agent is ending: its next start is told again what to remove.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        for digest in digests {
            let store = self.clone();
            runtime.spawn(async move {
                match store.remove(&digest).await {
                    Ok(()) | Err(LayerError::InUse { .. }) => {}
                    Err(error) => tracing::warn!("{}", crate::link::chain(&error)),
                }
            });
        }
    }

    /// What the store holds.
    #[must_use]
    pub fn usage(&self) -> LayerUsage {
        let state = self.state();
        LayerUsage {
            layers: state.layers.len() as u64,
            bytes: state.layers.values().map(|record| record.bytes).sum(),
        }
    }

    /// All layers, and whether each is pinned.
    #[must_use]
    pub fn list(&self) -> Vec<(LayerRecord, bool)> {
        let state = self.state();
        let pinned = |digest| state.pins.contains_key(digest);
        state
            .layers
            .values()
            .map(|record| (record.clone(), pinned(&record.digest)))
            .collect()
    }

    fn path_of(&self, digest: &Digest) -> PathBuf {
        self.inner.dir.join(digest.hex())
    }

    fn busy(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut state = self.state();
        state.busy.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = state.busy.get(digest).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        state.busy.insert(*digest, Arc::downgrade(&turn));
        turn
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one map operation: there is no half-made state to fear.
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LayerPins {
    fn drop(&mut self) {
        let mut state = self.store.state();
        for digest in &self.digests {
            if let Some(count) = state.pins.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    state.pins.remove(digest);
                    state.touch(*digest);
                }
            }
        }
        let ready = state.ready_to_go();
        drop(state);
        self.store.remove_later(ready);
    }
}

impl State {
    /// Somebody asks for the layer.
    fn wanted(&mut self, digest: Digest) {
        self.unwanted.remove(&digest);
        self.touch(digest);
    }

    fn touch(&mut self, digest: Digest) {
        self.uses += 1;
        self.used.insert(digest, self.uses);
    }

    fn ready_to_go(&self) -> Vec<Digest> {
        let free = |digest: &&Digest| !self.pins.contains_key(*digest);
        self.unwanted.iter().filter(free).copied().collect()
    }

    /// Layers that nothing pins: when each was used, its digest and its bytes.
    fn idle(&self) -> Vec<(u64, Digest, u64)> {
        let idle = self
            .layers
            .values()
            .filter(|record| !self.pins.contains_key(&record.digest));
        idle.map(|record| {
            let used = self.used.get(&record.digest).copied().unwrap_or_default();
            (used, record.digest, record.bytes)
        })
        .collect()
    }
}

fn check_diff_id(layer: &LayerRef, actual: Digest) -> Result<(), LayerError> {
    if layer.diff_id == actual {
        Ok(())
    } else {
        let LayerRef {
            digest,
            diff_id: expected,
            ..
        } = *layer;
        Err(LayerError::WrongDiffId {
            digest,
            expected,
            actual,
        })
    }
}

/// The record of a directory that holds a whole layer under its right name.
fn complete(path: &Path) -> Option<LayerRecord> {
    let name = path.file_name()?.to_str()?;
    let record = LayerRecord::read(path).ok()?;
    (record.digest.hex() == name && path.join(FS).is_dir()).then_some(record)
}

pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
