//! Orders that would not be the same if they were done twice, kept so that they are not.
//!
//! The master repeats an order under its id after a link or an agent was lost. Most orders can be
//! done again; a snapshot cannot (it is there: by this order, or by another?), nor its destruction
//! (it is gone), nor a roll-back (what was written since would be lost). So the id of a snapshot's
//! order is kept *before* it is done, and that of a roll-back *after*; if such an id comes again, what
//! is found there was this order's work. A change of a quota keeps its volume's id while it is under way.
//!
//! ```text
//! volumes.journal: request id (16 bytes), again and again, oldest first; a torn end is ignored;
//!                  an id that comes a second time was taken back
//! ```
//! A snapshot's order that is refused because there is one of that name is taken back. An agent that is
//! killed in the microseconds between the two, and asked again, says "done" for the one that was there.
//!
//! Owner: the worker. Invariant: an id is durable before [`Journal::keep`] returns.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use teu_protocol::ids::RequestId;

const ENTRY_BYTES: usize = 16;

/// Ids that are kept at least: a master repeats within minutes.
const KEPT: usize = 1_024;

/// Rewritten when it has this many.
const MOST: usize = 4 * KEPT;

#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Oldest first.
    order: Vec<RequestId>,
    known: HashSet<RequestId>,
    /// In the file.
    entries: usize,
}

impl Open {
    fn toggled(&mut self, id: RequestId) {
        if self.known.remove(&id) {
            self.order.retain(|known| *known != id);
        } else {
            self.known.insert(id);
            self.order.push(id);
        }
    }
}

impl Journal {
    /// The journal at `path`, which is opened when it is needed first.
    pub(super) const fn at(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    pub(super) fn has(&mut self, id: RequestId) -> io::Result<bool> {
        Ok(self.open()?.known.contains(&id))
    }

    /// Remembers it, also after a power cut.
    pub(super) fn keep(&mut self, id: RequestId) -> io::Result<()> {
        if self.has(id)? {
            return Ok(());
        }
        self.toggle(id)
    }

    /// Forgets it.
    pub(super) fn take_back(&mut self, id: RequestId) -> io::Result<()> {
        if self.has(id)? {
            return self.toggle(id);
        }
        Ok(())
    }

    fn toggle(&mut self, id: RequestId) -> io::Result<()> {
        let open = self.open()?;
        let kept = open
            .file
            .write_all(id.as_bytes())
            .and_then(|()| open.file.sync_data());
        if let Err(error) = kept {
            // It may be torn: what is read next is what is there.
            self.open = None;
            return Err(error);
        }
        open.entries += 1;
        open.toggled(id);
        if open.entries > MOST {
            return self.rewrite();
        }
        Ok(())
    }

    fn open(&mut self) -> io::Result<&mut Open> {
        if self.open.is_none() {
            let mut bytes = Vec::new();
            match File::open(&self.path) {
                Ok(mut file) => drop(file.read_to_end(&mut bytes)?),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            let entries = bytes.as_chunks::<ENTRY_BYTES>().0.iter();
            let is_whole = bytes.len().is_multiple_of(ENTRY_BYTES);
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(&self.path)?;
            let mut open = Open {
                file,
                order: Vec::new(),
                known: HashSet::new(),
                entries: bytes.len() / ENTRY_BYTES,
            };
            for entry in entries {
                open.toggled(RequestId::from_bytes(*entry));
            }
            self.open = Some(open);
            if !is_whole {
                self.rewrite()?;
            }
        }
        self.open
            .as_mut()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// The newest ones only, in a whole file.
    fn rewrite(&mut self) -> io::Result<()> {
        let Some(Open { mut order, .. }) = self.open.take() else {
            return Ok(());
        };
        order.drain(..order.len().saturating_sub(KEPT));
        let bytes: Vec<u8> = order.iter().flat_map(|id| *id.as_bytes()).collect();
        teu_daemon::file::write(&self.path, &bytes)?;
        self.open().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> RequestId {
        let mut bytes = [7; 16];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        RequestId::from_bytes(bytes)
    }

    #[test]
    fn what_is_kept_is_found_by_the_next_agent_also_behind_a_torn_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::at(path.clone());
        assert!(!journal.has(id(1)).unwrap());
        journal.keep(id(1)).unwrap();
        let mut torn = std::fs::read(&path).unwrap();
        torn.extend_from_slice(b"torn");
        std::fs::write(&path, torn).unwrap();
        let mut journal = Journal::at(path.clone());
        assert!(journal.has(id(1)).unwrap());
        journal.keep(id(2)).unwrap();
        let mut journal = Journal::at(path);
        assert!(journal.has(id(1)).unwrap() && journal.has(id(2)).unwrap());
        assert!(!journal.has(id(3)).unwrap());
        journal.take_back(id(2)).unwrap();
        let mut journal = Journal::at(dir.path().join("journal"));
        assert!(journal.has(id(1)).unwrap() && !journal.has(id(2)).unwrap());
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let before: Vec<u8> = (0..u32::try_from(MOST).unwrap())
            .flat_map(|n| *id(n).as_bytes())
            .collect();
        std::fs::write(&path, before).unwrap();
        let mut journal = Journal::at(path.clone());
        journal.keep(id(9_999_999)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap().len(), KEPT * ENTRY_BYTES);
        assert!(journal.has(id(9_999_999)).unwrap());
        assert!(!journal.has(id(0)).unwrap());
    }
}
