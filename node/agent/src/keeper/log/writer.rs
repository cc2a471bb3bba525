//! Appending to a log.
//!
//! Owner: the keeper of the process. Invariant: one write call a record, so that a reader sees
//! all of it or a part that it knows to be a part; the newest segments are kept.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IoSlice, Read, Write},
    path::{Path, PathBuf},
};

use teu_protocol::ids::ProcessId;

use super::{Channel, HEADER_BYTES, Parsed, RECORD_MAX, header, parse, segment};
use crate::keeper::LogLimits;

/// The end of one process's log.
#[derive(Debug)]
pub struct LogWriter {
    dir: PathBuf,
    process: ProcessId,
    limits: LogLimits,
    file: File,
    start: u64,
    end: u64,
}

impl LogWriter {
    /// Opens the log for appending, after what an earlier keeper left (a rebooted container): a
    /// torn last record is cut off.
    ///
    /// # Errors
    /// What the file system said.
    pub fn open(dir: &Path, process: ProcessId, limits: LogLimits) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let start = segment::list(dir, &process)?.last().copied().unwrap_or(0);
        let path = segment::path(dir, &process, start);
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(path)?;
        let whole = whole_records(&file)?;
        file.set_len(whole)?;
        Ok(Self {
            dir: dir.to_owned(),
            process,
            limits,
            file,
            start,
            end: start + whole,
        })
    }

    /// The cursor after the last record.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Where the last record is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        segment::path(&self.dir, &self.process, self.start)
    }

    /// Appends output, in as many records as it needs.
    ///
    /// # Errors
    /// What the file system said (a full disk); the bytes of a failed record are lost, and the log
    /// stays whole.
    pub fn append(&mut self, channel: Channel, time_ms: u64, bytes: &[u8]) -> io::Result<()> {
        bytes
            .chunks(RECORD_MAX)
            .try_for_each(|chunk| self.append_record(channel, time_ms, chunk))
    }

    fn append_record(&mut self, channel: Channel, time_ms: u64, bytes: &[u8]) -> io::Result<()> {
        let size = HEADER_BYTES + bytes.len() as u64;
        if self.end > self.start && self.end - self.start + size > self.limits.segment_bytes {
            self.rotate()?;
        }
        let head = header(
            channel,
            time_ms,
            u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        );
        let written = self
            .file
            .write_vectored(&[IoSlice::new(&head), IoSlice::new(bytes)]);
        match written {
            Ok(written) if written as u64 == size => {
                self.end += size;
                Ok(())
            }
            outcome => {
                self.file.set_len(self.end - self.start)?;
                Err(outcome
                    .err()
                    .unwrap_or_else(|| io::ErrorKind::StorageFull.into()))
            }
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let path = segment::path(&self.dir, &self.process, self.end);
        self.file = OpenOptions::new().create(true).append(true).open(path)?;
        self.start = self.end;
        let starts = segment::list(&self.dir, &self.process)?;
        let keep = self.limits.segments.max(1) as usize;
        for &old in starts.iter().rev().skip(keep) {
            fs::remove_file(segment::path(&self.dir, &self.process, old))?;
        }
        Ok(())
    }
}

/// How many bytes of a segment are whole records.
fn whole_records(mut file: &File) -> io::Result<u64> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut at = 0;
    while let Some(Parsed::Record { len, .. }) = bytes.get(at..).map(parse) {
        at += HEADER_BYTES as usize + len;
    }
    Ok(at as u64)
}
