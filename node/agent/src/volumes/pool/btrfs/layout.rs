//! Where things lie in a btrfs pool.
//!
//! Owner: the btrfs pool. Invariant: what is in `volumes` is whole; `making` and `gone` hold what is
//! not yet or no longer a volume, and go at recovery.
//!
//! ```text
//! <dir>/lock
//! <dir>/volumes/<id>/tree               the volume, a subvolume
//! <dir>/volumes/<id>/record
//! <dir>/volumes/<id>/rolling            the snapshot of a roll-back that is under way
//! <dir>/volumes/<id>/next               the tree that it will have, or had
//! <dir>/volumes/<id>/snapshots/<name>   read-only subvolumes
//! <dir>/making/<id>/…                   the same
//! <dir>/gone/<id>.<n>/…                 the same; or one old tree, which containers may still show
//! ```

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use teu_protocol::ids::{Tag, VolumeId};

pub(super) const TREE: &str = "tree";
pub(super) const NEXT: &str = "next";
pub(super) const RECORD: &str = "record";
pub(super) const ROLLING: &str = "rolling";
pub(super) const SNAPSHOTS: &str = "snapshots";

/// A pool's directory.
#[derive(Debug, Clone)]
pub(super) struct Layout(pub(super) PathBuf);

impl Layout {
    /// Makes what is missing. Nobody but root looks in: volumes hold files of any owner and mode.
    pub(super) fn make(&self) -> io::Result<()> {
        for dir in [self.volumes(), self.making_dir(), self.gone_dir()] {
            make_dir(&dir)?;
        }
        Ok(())
    }

    pub(super) fn volumes(&self) -> PathBuf {
        self.0.join("volumes")
    }

    pub(super) fn making_dir(&self) -> PathBuf {
        self.0.join("making")
    }

    pub(super) fn gone_dir(&self) -> PathBuf {
        self.0.join("gone")
    }

    pub(super) fn volume(&self, id: VolumeId) -> PathBuf {
        self.volumes().join(id.to_string())
    }

    pub(super) fn making(&self, id: VolumeId) -> PathBuf {
        self.making_dir().join(id.to_string())
    }

    pub(super) fn tree(&self, id: VolumeId) -> PathBuf {
        self.volume(id).join(TREE)
    }

    pub(super) fn snapshots(&self, id: VolumeId) -> PathBuf {
        self.volume(id).join(SNAPSHOTS)
    }

    pub(super) fn snapshot(&self, id: VolumeId, name: &Tag) -> PathBuf {
        self.snapshots(id).join(name.as_str())
    }

    /// A place in `gone` for a whole volume, or for a tree that a roll-back has replaced. `number`, its
    /// tree's, makes it the only one of its name.
    pub(super) fn gone(&self, id: VolumeId, number: u64) -> PathBuf {
        self.gone_dir().join(format!("{id}.{number}"))
    }
}

/// Makes a directory for root alone. `Ok` if there is one.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

/// The entries of a directory; none if it is not there.
pub(super) fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
    }
}
