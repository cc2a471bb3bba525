//! Reading a log, also while it is written.
//!
//! Owner: whoever streams output in the agent (blocking file reads: call it from a blocking task).
//! Invariant: records come in order, each once; a gap shows in the records' cursors.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use teu_protocol::ids::ProcessId;

use super::{
    HEADER_BYTES, LogRecord, Parsed, RECORD_MAX, parse,
    segment::{self, Segment},
};

/// Reads one process's log.
#[derive(Debug, Clone)]
pub struct LogReader {
    dir: PathBuf,
    process: ProcessId,
}

/// A place in a log. One that a read told is found again at once; one made of a cursor alone is looked
/// for from the beginning of its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// Everything before this was read.
    pub cursor: u64,
    /// In which segment, and how far into its file.
    hint: Option<(u64, u64)>,
}

impl From<u64> for Spot {
    fn from(cursor: u64) -> Self {
        Self { cursor, hint: None }
    }
}

/// Some records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// Those that end behind the asked-for cursor; the first one may begin before it. Where one
    /// begins behind the end of the one before (or behind the cursor), bytes are lost.
    pub records: Vec<LogRecord>,
    /// Where to go on.
    pub next: Spot,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogReadError {
    #[error("cannot read the log of process {process}")]
    Io {
        process: ProcessId,
        source: io::Error,
    },
    #[error("the log of process {process} has no record at byte {offset} of {path}")]
    NotARecord {
        process: ProcessId,
        path: PathBuf,
        offset: u64,
    },
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
        Ok(self.segments()?.first().map_or(0, |first| first.start))
    }

    /// Reads whole records from `spot`, until about `max_bytes` are collected (at least one
    /// record, if there is one). Beyond the end it is an empty chunk.
    ///
    /// # Errors
    /// What the file system said; a damaged segment.
    pub fn read(&self, spot: Spot, max_bytes: usize) -> Result<LogChunk, LogReadError> {
        let segments = self.segments()?;
        let mut chunk = LogChunk {
            records: Vec::new(),
            next: spot,
        };
        let mut collected = 0;
        for (index, &segment) in segments.iter().enumerate() {
            let until = segments.get(index + 1).map(|next| next.start);
            if until.is_some_and(|until| until <= chunk.next.cursor) {
                continue;
            }
            let file = match File::open(segment.path(&self.dir, &self.process)) {
                Ok(file) => file,
                // Rotated away between the listing and the opening: look again.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return if chunk.records.is_empty() {
                        self.read(spot, max_bytes)
                    } else {
                        Ok(chunk)
                    };
                }
                Err(error) => return Err(self.failed(error)),
            };
            self.read_segment(&file, segment, &mut chunk, &mut collected, max_bytes)?;
            if collected >= max_bytes {
                break;
            }
        }
        Ok(chunk)
    }

    fn read_segment(
        &self,
        file: &File,
        segment: Segment,
        chunk: &mut LogChunk,
        collected: &mut usize,
        max_bytes: usize,
    ) -> Result<(), LogReadError> {
        let largest = RECORD_MAX + HEADER_BYTES as usize;
        let mut buffer = vec![0; largest.max(max_bytes.min(1 << 20))];
        let hint = chunk.next.hint.filter(|(start, _)| *start == segment.start);
        let mut offset = hint.map_or(0, |(_, offset)| offset);
        let mut held = 0;
        loop {
            let got = file
                .read_at(&mut buffer[held..], offset + held as u64)
                .map_err(|error| self.failed(error))?;
            held += got;
            let mut at = 0;
            loop {
                let head = match parse(&buffer[at..held], segment.form) {
                    Parsed::Record(_) if *collected >= max_bytes => return Ok(()),
                    Parsed::Record(head) => head,
                    Parsed::Partial => break,
                    Parsed::Damaged => {
                        return Err(LogReadError::NotARecord {
                            process: self.process,
                            path: segment.path(&self.dir, &self.process),
                            offset: offset + at as u64,
                        });
                    }
                };
                let (start, cursor) = match head.cursor {
                    Some(cursor) => (cursor, cursor),
                    None => {
                        let start = segment.start + offset + at as u64;
                        (start, start + head.header as u64)
                    }
                };
                let body = at + head.header;
                at += head.size();
                if cursor + head.len as u64 > chunk.next.cursor {
                    let record = LogRecord {
                        start,
                        cursor,
                        channel: head.channel,
                        time_ms: head.time_ms,
                        bytes: buffer[body..body + head.len].to_vec(),
                    };
                    *collected += head.size();
                    chunk.next.cursor = record.end();
                    chunk.records.push(record);
                }
                chunk.next.hint = Some((segment.start, offset + at as u64));
            }
            offset += at as u64;
            if got == 0 {
                return Ok(());
            }
            buffer.copy_within(at..held, 0);
            held -= at;
        }
    }

    fn segments(&self) -> Result<Vec<Segment>, LogReadError> {
        segment::list(&self.dir, &self.process).map_err(|error| self.failed(error))
    }

    fn failed(&self, source: io::Error) -> LogReadError {
        LogReadError::Io {
            process: self.process,
            source,
        }
    }
}
