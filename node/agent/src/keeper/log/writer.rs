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

use super::{
    Channel, HEADER_BYTES, Parsed, RECORD_MAX, header, parse,
    segment::{self, Form, Segment},
};
use crate::keeper::LogLimits;

/// The end of one process's log.
#[derive(Debug)]
pub struct LogWriter {
    dir: PathBuf,
    process: ProcessId,
    limits: LogLimits,
    file: File,
    segment: Segment,
    /// Bytes of the segment's file that are whole records.
    length: u64,
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
        let last = segment::list(dir, &process)?.last().copied();
        let mut segment = last.unwrap_or(Segment {
            start: 0,
            form: Form::Present,
        });
        let mut file = append_to(&segment.path(dir, &process))?;
        let (mut length, end) = whole_records(&file, segment)?;
        file.set_len(length)?;
        if segment.form == Form::Old {
            segment = Segment {
                start: end,
                form: Form::Present,
            };
            file = append_to(&segment.path(dir, &process))?;
            length = 0;
        }
        Ok(Self {
            dir: dir.to_owned(),
            process,
            limits,
            file,
            segment,
            length,
            end,
        })
    }

    /// The cursor after the last record.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// What it may hold.
    #[must_use]
    pub const fn limits(&self) -> LogLimits {
        self.limits
    }

    /// Where the last record is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.segment.path(&self.dir, &self.process)
    }

    /// Appends output, in as many records as it needs.
    ///
    /// # Errors
    /// What the file system said (a full disk). What was not written is neither in the log nor counted:
    /// append it again, or [`LogWriter::skip`] it. The log stays whole.
    pub fn append(&mut self, channel: Channel, time_ms: u64, bytes: &[u8]) -> io::Result<()> {
        bytes
            .chunks(RECORD_MAX)
            .try_for_each(|chunk| self.append_record(channel, time_ms, chunk))
    }

    /// The next `bytes` bytes of output will not be in the log: readers see a gap.
    pub const fn skip(&mut self, bytes: u64) {
        self.end += bytes;
    }

    fn append_record(&mut self, channel: Channel, time_ms: u64, bytes: &[u8]) -> io::Result<()> {
        let size = HEADER_BYTES + bytes.len() as u64;
        if self.length > 0 && self.length + size > self.limits.segment_bytes {
            self.rotate()?;
        }
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let head = header(channel, time_ms, len, self.end);
        let written = self
            .file
            .write_vectored(&[IoSlice::new(&head), IoSlice::new(bytes)]);
        match written {
            Ok(written) if written as u64 == size => {
                self.length += size;
                self.end += bytes.len() as u64;
                Ok(())
            }
            outcome => {
                self.file.set_len(self.length)?;
                Err(outcome
                    .err()
                    .unwrap_or_else(|| io::ErrorKind::StorageFull.into()))
            }
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let segment = Segment {
            start: self.end,
            form: Form::Present,
        };
        self.file = append_to(&segment.path(&self.dir, &self.process))?;
        (self.segment, self.length) = (segment, 0);
        let all = segment::list(&self.dir, &self.process)?;
        let keep = self.limits.segments.max(1) as usize;
        for old in all.iter().rev().skip(keep) {
            fs::remove_file(old.path(&self.dir, &self.process))?;
        }
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .open(path)
}

/// How many bytes of a segment are whole records, and the cursor behind the last one.
fn whole_records(mut file: &File, segment: Segment) -> io::Result<(u64, u64)> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let (mut at, mut end) = (0, segment.start);
    while let Some(Parsed::Record(head)) = bytes.get(at..).map(|rest| parse(rest, segment.form)) {
        at += head.size();
        end = head
            .cursor
            .map_or(segment.start + at as u64, |cursor| cursor + head.len as u64);
    }
    Ok((at as u64, end))
}
