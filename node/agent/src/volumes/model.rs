//! A pool in memory, for tests of what stands above one.
//!
//! Owner: unit tests. Invariant: it refuses what a real pool refuses. Its streams are the bytes
//! `stream of <snapshot>` many times over, and it takes nothing else.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use teu_protocol::{
    ids::{Tag, VolumeId},
    message::{SnapshotInfo, VolumeUsage},
};

use super::pool::{Pool, PoolError, PoolFormat, PoolSpace, Receive, StoredVolume};

#[derive(Debug)]
struct Model {
    record: Vec<u8>,
    snapshots: Vec<Tag>,
    quota: Option<u64>,
    used: u64,
    /// Its record can be replaced.
    writable: bool,
}

#[derive(Debug)]
pub(crate) struct ModelPool {
    dir: PathBuf,
    volumes: Mutex<(BTreeMap<VolumeId, Model>, bool)>,
}

/// What a stream of it has.
pub(crate) fn content(name: &Tag) -> Vec<u8> {
    format!("stream of {name}\n").repeat(20_000).into_bytes()
}

impl ModelPool {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            volumes: Mutex::default(),
        }
    }

    pub(crate) fn fault(&self, faulted: bool) {
        self.locked().1 = faulted;
    }

    /// What it holds; and whether its record can be replaced.
    pub(crate) fn fill(&self, id: VolumeId, used: u64, writable: bool) {
        if let Some(one) = self.locked().0.get_mut(&id) {
            (one.used, one.writable) = (used, writable);
        }
    }

    pub(crate) fn names(&self, id: VolumeId) -> Vec<String> {
        let volumes = self.locked();
        let found = volumes.0.get(&id);
        found.map_or_else(Vec::new, |one| {
            one.snapshots.iter().map(Tag::to_string).collect()
        })
    }

    fn locked(&self) -> MutexGuard<'_, (BTreeMap<VolumeId, Model>, bool)> {
        self.volumes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(
        &self,
        id: VolumeId,
        act: impl FnOnce(&mut Model) -> Result<T, PoolError>,
    ) -> Result<T, PoolError> {
        self.space()?;
        let mut volumes = self.locked();
        act(volumes.0.get_mut(&id).ok_or(PoolError::NoVolume(id))?)
    }
}

fn place(model: &Model, name: &Tag) -> Result<usize, PoolError> {
    let place = model.snapshots.iter().position(|one| one == name);
    place.ok_or_else(|| PoolError::NoSnapshot(name.clone()))
}

impl Pool for ModelPool {
    fn format(&self) -> PoolFormat {
        PoolFormat::Btrfs
    }

    fn describe(&self) -> String {
        "a model".into()
    }

    fn space(&self) -> Result<PoolSpace, PoolError> {
        if self.locked().1 {
            return Err(PoolError::Faulted("the model was told to fail".into()));
        }
        Ok(PoolSpace {
            total: 1 << 30,
            free: 1 << 29,
        })
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn maintain(&self) -> Result<(), PoolError> {
        self.space().map(drop)
    }

    fn recover(&self) -> Result<(), PoolError> {
        self.space().map(drop)
    }

    fn volumes(&self) -> Result<Vec<StoredVolume>, PoolError> {
        self.space()?;
        let stored = |(id, model): (&VolumeId, &Model)| StoredVolume {
            id: *id,
            record: Some(model.record.clone()),
        };
        Ok(self.locked().0.iter().map(stored).collect())
    }

    fn create(&self, id: VolumeId, record: &[u8], quota: Option<u64>) -> Result<(), PoolError> {
        self.space()?;
        self.locked().0.entry(id).or_insert_with(|| Model {
            record: record.to_vec(),
            snapshots: Vec::new(),
            quota,
            used: 0,
            writable: true,
        });
        Ok(())
    }

    fn set_record(&self, id: VolumeId, record: &[u8]) -> Result<(), PoolError> {
        self.with(id, |one| {
            if !one.writable {
                return Err(PoolError::Faulted("the record cannot be written".into()));
            }
            one.record = record.to_vec();
            Ok(())
        })
    }

    fn destroy(&self, id: VolumeId) -> Result<(), PoolError> {
        self.space()?;
        self.locked().0.remove(&id);
        Ok(())
    }

    fn tree(&self, id: VolumeId) -> Result<PathBuf, PoolError> {
        self.with(id, |_| Ok(self.dir.clone()))
    }

    fn snapshots(&self, id: VolumeId) -> Result<Vec<SnapshotInfo>, PoolError> {
        self.with(id, |one| {
            let info = |name: &Tag| SnapshotInfo {
                name: name.clone(),
                created_ms: 1,
                referenced_bytes: 0,
                exclusive_bytes: 0,
            };
            Ok(one.snapshots.iter().map(info).collect())
        })
    }

    fn snapshot(&self, id: VolumeId, name: &Tag) -> Result<(), PoolError> {
        self.with(id, |one| {
            if one.snapshots.contains(name) {
                return Err(PoolError::SnapshotExists(name.clone()));
            }
            one.snapshots.push(name.clone());
            Ok(())
        })
    }

    fn destroy_snapshot(&self, id: VolumeId, name: &Tag) -> Result<(), PoolError> {
        self.with(id, |one| {
            let place = place(one, name)?;
            one.snapshots.remove(place);
            Ok(())
        })
    }

    fn roll_back(&self, id: VolumeId, name: &Tag) -> Result<(), PoolError> {
        self.with(id, |one| {
            let place = place(one, name)?;
            one.snapshots.truncate(place + 1);
            Ok(())
        })
    }

    fn rollback_replaces_tree(&self) -> bool {
        true
    }

    fn clone_from(
        &self,
        origin: (VolumeId, &Tag),
        id: VolumeId,
        record: &[u8],
        quota: Option<u64>,
    ) -> Result<(), PoolError> {
        self.with(origin.0, |one| place(one, origin.1).map(drop))?;
        self.create(id, record, quota)
    }

    fn usage(&self, id: VolumeId) -> Result<VolumeUsage, PoolError> {
        self.with(id, |one| {
            Ok(VolumeUsage {
                referenced_bytes: 0,
                exclusive_bytes: 0,
                snapshots_bytes: 0,
                quota_bytes: one.quota,
                available_bytes: 0,
                snapshots: u32::try_from(one.snapshots.len()).unwrap_or(u32::MAX),
            })
        })
    }

    fn set_quota(&self, id: VolumeId, quota: Option<u64>) -> Result<(), PoolError> {
        self.with(id, |one| {
            if quota.is_some_and(|quota| quota < one.used) {
                return Err(PoolError::QuotaTooSmall);
            }
            one.quota = quota;
            Ok(())
        })
    }

    fn send(
        &self,
        id: VolumeId,
        name: &Tag,
        base: Option<&Tag>,
        out: OwnedFd,
    ) -> Result<(), PoolError> {
        self.with(id, |one| {
            place(one, name)?;
            base.map_or(Ok(()), |base| place(one, base).map(drop))
        })?;
        let written = File::from(out).write_all(&content(name));
        written.map_err(|source| PoolError::Io {
            action: "write the model's stream".into(),
            source,
        })
    }

    fn receive(&self, receive: Receive<'_>, input: OwnedFd) -> Result<(), PoolError> {
        let mut bytes = Vec::new();
        let read = File::from(input).read_to_end(&mut bytes);
        read.map_err(|source| PoolError::Io {
            action: "read the model's stream".into(),
            source,
        })?;
        if bytes != content(receive.name) {
            return Err(PoolError::BadStream("not the model's".into()));
        }
        if receive.base.is_none() {
            self.create(receive.id, receive.record, receive.quota)?;
        }
        self.snapshot(receive.id, receive.name)
    }

    fn maps_owners(&self) -> bool {
        true
    }
}
