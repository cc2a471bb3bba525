//! The locations of this machine: a file that all starts, stops and purges agree by.
//!
//! Owner: whoever holds its lock. Invariant: between two that start at once, one sees the other.
//! A location whose mark is gone is forgotten.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{DevError, choose::Other, error::file_error, mark::Mark, processes};

/// Outside of every location's own directory. (Not below `/run`: one that is stopped is known too.)
const DIRECTORY: &str = "/var/lib/teu-dev";

const FILE: &str = "locations.toml";

/// The registry, locked.
#[derive(Debug)]
pub(super) struct Registry {
    _lock: fs::File,
    path: PathBuf,
    entries: Entries,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Entries {
    #[serde(default, rename = "location")]
    list: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    data: PathBuf,
    /// The network namespace that it was started in last: addresses and ports are that one's.
    network: u64,
    /// Counts starts: of two of the same instance, the processes are the later one's.
    start: u64,
}

impl Registry {
    /// Waits for the lock: it is held for milliseconds.
    pub(super) fn open() -> Result<Self, DevError> {
        Self::open_in(Path::new(DIRECTORY))
    }

    fn open_in(directory: &Path) -> Result<Self, DevError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(file_error("make", directory))?;
        let lock_path = directory.join("lock");
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(file_error("open", &lock_path))?;
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(|errno| file_error("lock", &lock_path)(errno.into()))?;
        let path = directory.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(file_error("read", &path)(error)),
        };
        let entries = toml::from_str(&text).map_err(|error| DevError::BadMark {
            path: path.clone(),
            why: error.message().to_owned(),
        })?;
        Ok(Self {
            _lock: lock,
            path,
            entries,
        })
    }

    /// The other locations of this machine. Those that are no more are forgotten.
    pub(super) fn others(&mut self, data: &Path) -> Vec<Other> {
        let known: Vec<(Entry, Mark)> = self
            .entries
            .list
            .iter()
            .filter_map(|entry| Some((entry.clone(), Mark::read(&entry.data).ok()??)))
            .collect();
        self.entries
            .list
            .retain(|entry| known.iter().any(|(other, _)| other.data == entry.data));
        let here = network();
        let other = |(entry, mark): &(Entry, Mark)| Other {
            is_alive: is_alive(entry, mark, &known),
            same_network: Some(entry.network) == here,
            data: entry.data.clone(),
            mark: mark.clone(),
        };
        known
            .iter()
            .filter(|(entry, _)| entry.data != data)
            .map(other)
            .collect()
    }

    /// Writes down that the location of this directory starts here now.
    pub(super) fn put(&mut self, data: &Path) -> Result<(), DevError> {
        let last = self.entries.list.iter().map(|entry| entry.start).max();
        self.entries.list.retain(|entry| entry.data != data);
        self.entries.list.push(Entry {
            data: data.to_owned(),
            network: network().unwrap_or_default(),
            start: last.unwrap_or_default().saturating_add(1),
        });
        self.save()
    }

    /// Forgets the location of this directory.
    pub(super) fn remove(&mut self, data: &Path) -> Result<(), DevError> {
        self.entries.list.retain(|entry| entry.data != data);
        self.save()
    }

    fn save(&self) -> Result<(), DevError> {
        let failed = || file_error("write", &self.path);
        let text =
            toml::to_string(&self.entries).map_err(|error| failed()(io::Error::other(error)))?;
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed())?;
        file.write_all(text.as_bytes()).map_err(failed())?;
        file.persist(&self.path)
            .map_err(|error| failed()(error.error))?;
        Ok(())
    }
}

/// Which network namespace this process is in.
fn network() -> Option<u64> {
    fs::metadata("/proc/self/ns/net")
        .ok()
        .map(|found| found.ino())
}

/// Whether something of it runs: its supervisor, its daemons, or its containers.
fn is_alive(entry: &Entry, mark: &Mark, known: &[(Entry, Mark)]) -> bool {
    let owns_instance = !known.iter().any(|(other, theirs)| {
        other.data != entry.data && theirs.instance == mark.instance && other.start > entry.start
    });
    processes::supervisor(&entry.data).is_some()
        || !processes::daemons(&entry.data).is_empty()
        || (owns_instance && processes::has_containers(&mark.instance))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::mark::USUAL_POOL;

    fn location(directory: &Path, name: &str) -> PathBuf {
        let data = directory.join(name);
        fs::create_dir(&data).unwrap();
        let mark = Mark::new(
            name.parse().unwrap(),
            // Nothing on this machine is called so.
            "zzq9x".parse().unwrap(),
            "10.77.0.0/16".parse().unwrap(),
            5555,
            USUAL_POOL.to_owned(),
            directory.to_owned(),
        );
        mark.write(&data).unwrap();
        data
    }

    #[test]
    fn a_location_sees_the_others_until_they_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("registry");
        let (one, two) = (location(dir.path(), "one"), location(dir.path(), "two"));
        let mut registry = Registry::open_in(&place).unwrap();
        assert!(registry.others(&one).is_empty());
        registry.put(&one).unwrap();
        registry.put(&two).unwrap();
        registry.put(&two).unwrap();
        drop(registry);
        let mut registry = Registry::open_in(&place).unwrap();
        let others = registry.others(&one);
        let names: Vec<_> = others
            .iter()
            .map(|other| other.mark.name.as_str())
            .collect();
        assert_eq!(names, ["two"]);
        assert!(
            others
                .iter()
                .all(|other| other.same_network && !other.is_alive)
        );
        fs::remove_dir_all(&two).unwrap();
        assert!(registry.others(&one).is_empty());
        registry.remove(&one).unwrap();
        drop(registry);
        assert!(Registry::open_in(&place).unwrap().entries.list.is_empty());
    }
}
