//! The way of one blob: hashed here, piped into the confined child, made durable, put in place.
//!
//! Owner: the task that called `LayerStore::ensure`. Invariant: the temporary directory vanishes
//! unless [`TemporaryLayer::finish`] succeeded, also if the task is dropped midway; the child is
//! killed with it. The blob is hashed to its end even when the child has refused it, so that damage
//! on the way is told from a bad archive.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use teu_protocol::{ids::Digest, message::LayerRef};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, Command},
};

use super::{
    error::LayerError,
    opaque,
    record::LayerRecord,
    store::{FS, remove_tree},
    unpack::{Extracted, Report, UnpackLimits, UnpackRequest},
};

/// Read, hashed and written at a time.
const CHUNK: usize = 256 * 1024;

/// So that hashing here and unpacking there overlap. The usual limit for anyone but root.
const PIPE_BYTES: usize = 1024 * 1024;

/// A report lists the opaque directories; the child's own bounds keep it far below this.
const MAX_REPORT_BYTES: u64 = 128 * 1024 * 1024;

/// How long a killed child may take to be gone: together, a second.
const REMOVAL_RETRIES: usize = 50;
const REMOVAL_PAUSE: Duration = Duration::from_millis(20);

/// A layer being made; removed when dropped.
#[derive(Debug)]
pub(super) struct TemporaryLayer {
    digest: Digest,
    path: PathBuf,
    kept: bool,
}

impl TemporaryLayer {
    pub(super) fn random_name(digest: Digest) -> Result<String, LayerError> {
        let number = getrandom::u64().map_err(|source| LayerError::Store {
            action: "name a temporary directory",
            path: PathBuf::new(),
            source: source.into(),
        })?;
        Ok(format!("tmp.{}.{number:016x}", digest.short()))
    }

    pub(super) fn create(store: &Path, digest: Digest) -> Result<Self, LayerError> {
        let path = store.join(Self::random_name(digest)?);
        let made = fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .and_then(|()| {
                let root = path.join(FS);
                fs::create_dir(&root)?;
                // What a layer's root is unless the layer says otherwise.
                fs::set_permissions(&root, fs::Permissions::from_mode(0o755))
            });
        let temporary = Self {
            digest,
            path,
            kept: false,
        };
        made.map_err(|source| temporary.failed("create", source))?;
        Ok(temporary)
    }

    /// Feeds the blob to a child that extracts it.
    pub(super) async fn extract(
        &self,
        unpacker: &Path,
        limits: &UnpackLimits,
        layer: &LayerRef,
        blob: impl AsyncRead + Unpin,
    ) -> Result<Extracted, LayerError> {
        let digest = self.digest;
        let failed = |source| LayerError::Unpacker { digest, source };
        let request = UnpackRequest {
            target: self.path.join(FS),
            compression: layer.compression,
            limits: *limits,
        };
        let mut child = spawn(unpacker, &request).map_err(failed)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        let mut report = Vec::new();
        let mut stdout = stdout.take(MAX_REPORT_BYTES);
        let (fed, read) = tokio::join!(feed(layer, blob, stdin), stdout.read_to_end(&mut report));
        // If the blob did not come whole, what the child thinks of it is of no interest; it is
        // killed as `child` goes.
        let actual = fed?;
        read.map_err(failed)?;
        let status = child.wait().await.map_err(failed)?;
        if actual != digest {
            return Err(LayerError::Corrupt {
                expected: digest,
                actual,
            });
        }
        match teu_protocol::message::decode_record(&report) {
            Ok(Report::Done(extracted)) if status.success() => Ok(extracted),
            Ok(Report::Refused(source)) => Err(LayerError::Refused { digest, source }),
            _ => Err(LayerError::UnpackerDied { digest, status }),
        }
    }

    /// Makes it durable and visible. Blocking.
    pub(super) fn finish(
        mut self,
        record: &LayerRecord,
        opaque: &[Vec<u8>],
        target: &Path,
    ) -> Result<(), LayerError> {
        let root = self.path.join(FS);
        opaque::mark(&root, opaque).map_err(|source| self.failed("mark", source))?;
        record
            .write(&self.path)
            .map_err(|source| self.failed("describe", source))?;
        // One syncfs instead of an fsync for each of its files.
        let synced = File::open(&self.path).and_then(|dir| Ok(rustix::fs::syncfs(&dir)?));
        synced.map_err(|source| self.failed("sync", source))?;
        // In its place may lie what `open` could not read a record of; nobody knows it.
        remove_tree(target).map_err(|source| self.failed("replace", source))?;
        fs::rename(&self.path, target).map_err(|source| self.failed("rename", source))?;
        self.kept = true;
        let parent = target.parent().unwrap_or(target);
        File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(|source| self.failed("sync", source))
    }

    fn failed(&self, action: &'static str, source: io::Error) -> LayerError {
        LayerError::Store {
            action,
            path: self.path.clone(),
            source,
        }
    }
}

impl Drop for TemporaryLayer {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let path = std::mem::take(&mut self.path);
        // Removing thousands of files takes too long for whoever drops a future. If the thread
        // does not come to it, the next `open` will.
        let _ = std::thread::Builder::new().name("layer-cleanup".to_owned()).spawn(move || {
            let mut removed = remove_tree(&path);
            for _ in 0..REMOVAL_RETRIES {
                // The child has been killed, but may be within its last system call.
                match &removed {
                    Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                        std::thread::sleep(REMOVAL_PAUSE);
                        removed = remove_tree(&path);
                    }
                    _ => break,
                }
            }
            if let Err(error) = removed {
                tracing::warn!(path = %path.display(), %error, "cannot remove a temporary layer");
            }
        });
    }
}

fn spawn(unpacker: &Path, request: &UnpackRequest) -> io::Result<Child> {
    let request = serde_json::to_string(request)?;
    let child = Command::new(unpacker)
        .arg("unpack")
        .arg(request)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(stdin) = &child.stdin {
        // A smaller pipe works as well.
        let _ = rustix::pipe::fcntl_setpipe_size(stdin, PIPE_BYTES);
    }
    Ok(child)
}

/// Pipes the blob to the child, returns its digest.
async fn feed(
    layer: &LayerRef,
    mut blob: impl AsyncRead + Unpin,
    stdin: ChildStdin,
) -> Result<Digest, LayerError> {
    let digest = layer.digest;
    let mut stdin = Some(stdin);
    let mut hash = Sha256::new();
    let mut received = 0_u64;
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = blob.read(&mut buffer).await;
        let count = read.map_err(|source| LayerError::Source { digest, source })?;
        received += count as u64;
        if received > layer.size || (count == 0 && received < layer.size) {
            let (expected, actual) = (layer.size, received);
            return Err(LayerError::WrongSize {
                digest,
                expected,
                actual,
            });
        }
        if count == 0 {
            // Dropping the pipe is what tells the child.
            return Ok(hash.into());
        }
        hash.update(&buffer[..count]);
        if let Some(pipe) = &mut stdin
            && let Err(error) = pipe.write_all(&buffer[..count]).await
        {
            if error.kind() != io::ErrorKind::BrokenPipe {
                return Err(LayerError::Unpacker {
                    digest,
                    source: error,
                });
            }
            // It has seen enough; its report says why.
            stdin = None;
        }
    }
}
