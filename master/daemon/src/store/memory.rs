//! A store that forgets: for tests, and for trying things out.
//!
//! Owner: whoever made it. Invariant: behaves as the real one, until the process ends.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use teu_master_core::record::{Restored, StoreOp};

use super::{Store, StoreError, tables};

/// Table and key, to value.
type Records = BTreeMap<(&'static str, Vec<u8>), Vec<u8>>;

/// Keeps records in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    records: Mutex<Records>,
}

impl Store for MemoryStore {
    fn load(&self) -> Result<Restored, StoreError> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let mut restored = Restored::default();
        for ((table, _), value) in records.iter() {
            tables::restore(&mut restored, table, value)?;
        }
        Ok(restored)
    }

    fn commit(&self, operations: &[StoreOp]) -> Result<(), StoreError> {
        let changes = operations
            .iter()
            .map(tables::change)
            .collect::<Result<Vec<_>, _>>()?;
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            let key = (change.table, change.key);
            match change.value {
                Some(value) => records.insert(key, value),
                None => records.remove(&key),
            };
        }
        Ok(())
    }
}
