//! Reading a log, also while it is written.
//!
//! Owner: whoever streams output in the agent (blocking file reads: call it from a blocking task).
//! Invariant: records come in order, each once; a gap is told by `lost_before`.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use teu_protocol::ids::ProcessId;

use super::{HEADER_BYTES, LogRecord, Parsed, RECORD_MAX, parse, segment};

/// Reads one process's log.
#[derive(Debug, Clone)]
pub struct LogReader {
    dir: PathBuf,
    process: ProcessId,
}

/// Some consecutive records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    pub records: Vec<LogRecord>,
    /// Where to go on. Unchanged if there is nothing more yet.
    pub next: u64,
    /// Set if the asked-for cursor has been rotated away: the bytes before this cursor are gone,
    /// and `records` begin at it.
    pub lost_before: Option<u64>,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogReadError {
    #[error("cannot read the log of process {process}")]
    Io {
        process: ProcessId,
        source: io::Error,
    },
    #[error("the log of process {process} has no record at cursor {cursor}")]
    NotARecord { process: ProcessId, cursor: u64 },
}

impl LogReader {
    /// Of the container whose directory is `container_dir` (as in its plan).
    #[must_use]
    pub fn new(container_dir: &Path, process: ProcessId) -> Self {
        Self {
            dir: container_dir.join(crate::keeper::LOG_DIR),
            process,
        }
    }

    /// The first cursor that can still be read: 0, or later after rotation.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn first_cursor(&self) -> Result<u64, LogReadError> {
        Ok(self.starts()?.first().copied().unwrap_or(0))
    }

    /// Reads whole records from `cursor`, until about `max_bytes` are collected (at least one
    /// record, if there is one). Beyond the end it is an empty chunk.
    ///
    /// # Errors
    /// What the file system said; a cursor that is in the middle of a record.
    pub fn read(&self, cursor: u64, max_bytes: usize) -> Result<LogChunk, LogReadError> {
        let starts = self.starts()?;
        let first = starts.first().copied().unwrap_or(0);
        let lost_before = (cursor < first).then_some(first);
        let mut chunk = LogChunk {
            records: Vec::new(),
            next: cursor.max(first),
            lost_before,
        };
        let mut collected = 0;
        for (index, &start) in starts.iter().enumerate() {
            let until = starts.get(index + 1).copied();
            if until.is_some_and(|until| until <= chunk.next) {
                continue;
            }
            let file = match File::open(segment::path(&self.dir, &self.process, start)) {
                Ok(file) => file,
                // Rotated away between the listing and the opening: look again.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return if chunk.records.is_empty() {
                        self.read(cursor, max_bytes)
                    } else {
                        Ok(chunk)
                    };
                }
                Err(error) => return Err(self.failed(error)),
            };
            if start > chunk.next {
                // The previous segment ended in a torn record that nobody will complete.
                chunk.next = start;
            }
            self.read_segment(&file, start, &mut chunk, &mut collected, max_bytes)?;
            if collected >= max_bytes || until.is_some_and(|until| chunk.next < until) {
                break;
            }
        }
        Ok(chunk)
    }

    fn read_segment(
        &self,
        file: &File,
        start: u64,
        chunk: &mut LogChunk,
        collected: &mut usize,
        max_bytes: usize,
    ) -> Result<(), LogReadError> {
        let largest = RECORD_MAX + HEADER_BYTES as usize;
        let mut buffer = vec![0; largest.max(max_bytes.min(1 << 20))];
        let mut held = 0;
        loop {
            let from = chunk.next - start + held as u64;
            let got = file
                .read_at(&mut buffer[held..], from)
                .map_err(|error| self.failed(error))?;
            held += got;
            let mut at = 0;
            loop {
                match parse(&buffer[at..held]) {
                    Parsed::Record {
                        channel,
                        time_ms,
                        len,
                    } if *collected < max_bytes => {
                        let body = at + HEADER_BYTES as usize;
                        let bytes = buffer[body..body + len].to_vec();
                        let record = LogRecord {
                            cursor: chunk.next,
                            channel,
                            time_ms,
                            bytes,
                        };
                        chunk.next = record.end();
                        *collected += HEADER_BYTES as usize + len;
                        at = body + len;
                        chunk.records.push(record);
                    }
                    Parsed::Record { .. } => return Ok(()),
                    Parsed::Partial => break,
                    Parsed::Damaged => {
                        return Err(LogReadError::NotARecord {
                            process: self.process,
                            cursor: chunk.next,
                        });
                    }
                }
            }
            if got == 0 {
                return Ok(());
            }
            buffer.copy_within(at..held, 0);
            held -= at;
        }
    }

    fn starts(&self) -> Result<Vec<u64>, LogReadError> {
        segment::list(&self.dir, &self.process).map_err(|error| self.failed(error))
    }

    fn failed(&self, source: io::Error) -> LogReadError {
        LogReadError::Io {
            process: self.process,
            source,
        }
    }
}
