//! The store in one file, by `redb`: copy-on-write B-trees, committed with fsync.
//!
//! Owner: the server opens it; `redb` locks the file against a second master. Invariant: every commit
//! is `Durability::Immediate`. The table `format` holds one number; a file of a newer format is
//! refused, never guessed at. After one failed write `redb` refuses all others until the file is opened
//! again, so a database that failed is let go and the next use opens it anew.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use redb::{Database, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use teu_master_core::record::{Restored, StoreOp};

use super::{Store, StoreError, tables};

const FORMAT: u64 = 1;
const FORMAT_TABLE: TableDefinition<'_, &str, u64> = TableDefinition::new("format");
const FORMAT_KEY: &str = "format";

/// Pages kept in memory: the records of a large location are some megabytes, and they are read once.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Keeps records in a file.
pub struct RedbStore {
    /// None: it failed, and is opened again when it is used next.
    database: Mutex<Option<Database>>,
    path: PathBuf,
    opener: Box<Opener>,
}

/// Opens the file, making it if there is none.
type Opener = dyn Fn(&Path) -> Result<Database, redb::Error> + Send + Sync;

const fn table(name: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(name)
}

impl RedbStore {
    /// Opens the file, making it if there is none.
    ///
    /// # Errors
    /// [`StoreError::Open`], [`StoreError::Newer`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(
            path,
            Box::new(|path| {
                let builder = Database::builder().set_cache_size(CACHE_BYTES).create(path);
                builder.map_err(redb::Error::from)
            }),
        )
    }

    pub(super) fn open_with(path: &Path, opener: Box<Opener>) -> Result<Self, StoreError> {
        let store = Self {
            database: Mutex::new(None),
            path: path.to_owned(),
            opener,
        };
        store
            .with_database(|_| Ok(()))
            .map_err(|failed| store.name(failed))?;
        Ok(store)
    }

    /// Does something with the database, opening it first if need be. Lets it go if it failed.
    fn with_database<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        let mut slot = self.lock();
        let database = match slot.take() {
            Some(database) => database,
            None => {
                let database = (self.opener)(&self.path).map_err(Failed::Engine)?;
                check_format(&database)?;
                database
            }
        };
        let outcome = work(&database);
        if !matches!(outcome, Err(Failed::Engine(_))) {
            *slot = Some(database);
        }
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, Option<Database>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self, failed: Failed) -> StoreError {
        match failed {
            Failed::Engine(source) => StoreError::Open {
                path: self.path.clone(),
                source: Box::new(source),
            },
            Failed::Newer(found) => StoreError::Newer {
                path: self.path.clone(),
                found,
                known: FORMAT,
            },
            Failed::Store(error) => error,
        }
    }
}

fn check_format(database: &Database) -> Result<(), Failed> {
    let write = database.begin_write()?;
    let found = {
        let mut format = write.open_table(FORMAT_TABLE)?;
        let found = format.get(FORMAT_KEY)?.map(|found| found.value());
        if found.is_none() {
            format.insert(FORMAT_KEY, FORMAT)?;
        }
        for name in tables::TABLES {
            write.open_table(table(name))?;
        }
        found
    };
    if let Some(found) = found.filter(|found| *found > FORMAT) {
        return Err(Failed::Newer(found));
    }
    write.commit()?;
    Ok(())
}

fn read(database: &Database) -> Result<Restored, Failed> {
    let read = database.begin_read()?;
    let mut restored = Restored::default();
    for name in tables::TABLES {
        for entry in read.open_table(table(name))?.iter()? {
            let (_, value) = entry?;
            tables::restore(&mut restored, name, value.value())?;
        }
    }
    Ok(restored)
}

fn write(database: &Database, operations: &[StoreOp]) -> Result<(), Failed> {
    let mut write = database.begin_write()?;
    write.set_durability(Durability::Immediate)?;
    for operation in operations {
        let change = tables::change(operation)?;
        let mut table = write.open_table(table(change.table))?;
        match change.value {
            Some(value) => table.insert(change.key.as_slice(), value.as_slice())?,
            None => table.remove(change.key.as_slice())?,
        };
    }
    write.commit()?;
    Ok(())
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Store for RedbStore {
    fn load(&self) -> Result<Restored, StoreError> {
        self.with_database(read).map_err(|failed| match failed {
            Failed::Engine(source) => StoreError::Read(Box::new(source)),
            other => self.name(other),
        })
    }

    fn commit(&self, operations: &[StoreOp]) -> Result<(), StoreError> {
        let work = |database: &Database| write(database, operations);
        self.with_database(work).map_err(|failed| match failed {
            Failed::Engine(source) => StoreError::Write(Box::new(source)),
            other => self.name(other),
        })
    }
}

/// A failure before it is known what was attempted.
enum Failed {
    Engine(redb::Error),
    Newer(u64),
    Store(StoreError),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

macro_rules! engine_errors {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for Failed {
            fn from(error: redb::$error) -> Self {
                Self::Engine(error.into())
            }
        }
    )*};
}

engine_errors!(
    TransactionError,
    TableError,
    StorageError,
    CommitError,
    SetDurabilityError
);
