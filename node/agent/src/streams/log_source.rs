//! A process's log as a stream wants it: from any byte on, in pieces of any size.
//!
//! Owner: the attach task. Invariants: each byte once, in order; a cursor inside a record (where an
//! earlier stream stopped) is found again. The log's own format is the keeper's (`keeper::log`).

use std::{collections::VecDeque, path::Path};

use bytes::Bytes;
use teu_protocol::{
    ids::ProcessId,
    message::{Channel, LogStart},
};

use crate::keeper::{self, LogChunk, LogReadError, LogReader, LogRecord};

/// One look at the log while searching.
const SCAN_BYTES: usize = 256 * 1024;

#[derive(Debug)]
struct Piece {
    channel: Channel,
    bytes: Bytes,
    /// Of its first byte.
    cursor: u64,
    /// Where the next record begins.
    end: u64,
}

/// What may be sent as one message.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) channel: Channel,
    pub(super) bulk: Vec<Bytes>,
    pub(super) bytes: u64,
    /// Of the next unread byte.
    pub(super) cursor: u64,
}

#[derive(Debug)]
pub(super) struct LogSource {
    reader: LogReader,
    next: u64,
    pieces: VecDeque<Piece>,
}

impl LogSource {
    /// Opens the log at `from`; `end` is where it ends now. Blocking.
    pub(super) fn open(
        dir: &Path,
        process: ProcessId,
        from: LogStart,
        end: u64,
    ) -> Result<Self, LogReadError> {
        let reader = LogReader::new(dir, process);
        let mut this = Self {
            next: end,
            reader,
            pieces: VecDeque::new(),
        };
        match from {
            LogStart::Now => {}
            LogStart::Oldest => this.next = this.reader.first_cursor()?,
            LogStart::Cursor(cursor) if cursor >= end => {}
            LogStart::Cursor(cursor) => this.seek(cursor)?,
            LogStart::Tail(lines) => this.tail(lines, end)?,
        }
        Ok(this)
    }

    /// The next unread byte.
    pub(super) fn cursor(&self) -> u64 {
        self.pieces.front().map_or(self.next, |piece| piece.cursor)
    }

    /// Walks there from the oldest record: whether a byte begins a record cannot be told by looking
    /// at it, for a process may write what looks like one. The log's bound makes this some ms.
    fn seek(&mut self, cursor: u64) -> Result<(), LogReadError> {
        self.next = self.reader.first_cursor()?;
        while self.next < cursor && self.pieces.is_empty() {
            let chunk = self.reader.read(self.next, SCAN_BYTES)?;
            if chunk.next == self.next {
                break;
            }
            self.next = chunk.next;
            for record in chunk.records.into_iter().filter(|one| one.end() > cursor) {
                let skip = cursor.saturating_sub(contents_cursor(&record));
                self.pieces.extend(piece(record, skip));
            }
        }
        Ok(())
    }

    /// Goes to where the last `lines` lines begin; an unfinished last line counts as one. Counts
    /// first and keeps nothing meanwhile: many readers may want the whole of a log, and wait.
    fn tail(&mut self, lines: u32, end: u64) -> Result<(), LogReadError> {
        if lines == 0 {
            self.next = end;
            return Ok(());
        }
        let mut there = 0_u64;
        let mut ends_line = true;
        self.next = self.reader.first_cursor()?;
        while self.next < end && self.scan()? {
            for piece in self.pieces.drain(..) {
                there += count_lines(&piece.bytes);
                ends_line = piece.bytes.last() == Some(&b'\n');
            }
        }
        there += u64::from(!ends_line);
        let mut unwanted = there.saturating_sub(u64::from(lines));
        self.next = self.reader.first_cursor()?;
        while unwanted > 0 && self.next < end && self.scan()? {
            unwanted = self.drop_lines(unwanted);
        }
        Ok(())
    }

    /// Reads on. `false` if there was nothing.
    fn scan(&mut self) -> Result<bool, LogReadError> {
        let chunk = self.reader.read(self.next, SCAN_BYTES)?;
        let found = chunk.next != self.next;
        self.add(chunk);
        Ok(found)
    }

    /// Drops lines from the front; how many more have to go is returned.
    fn drop_lines(&mut self, mut lines: u64) -> u64 {
        while lines > 0
            && let Some(first) = self.pieces.front_mut()
        {
            let skip = first
                .bytes
                .iter()
                .position(|byte| *byte == b'\n')
                .map(|at| at + 1);
            match skip {
                Some(skip) if skip < first.bytes.len() => {
                    drop(first.bytes.split_to(skip));
                    first.cursor += skip as u64;
                    lines -= 1;
                }
                skip => {
                    lines -= u64::from(skip.is_some());
                    self.pieces.pop_front();
                }
            }
        }
        lines
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// What to read, and from where: for a thread that may block.
    pub(super) fn missing(&self) -> (LogReader, u64) {
        (self.reader.clone(), self.next)
    }

    /// What was read there.
    pub(super) fn add(&mut self, chunk: LogChunk) {
        self.next = chunk.next;
        self.pieces.extend(
            chunk
                .records
                .into_iter()
                .filter_map(|record| piece(record, 0)),
        );
    }

    /// Takes at most `max` bytes of one channel.
    pub(super) fn take(&mut self, max: u64) -> Option<Batch> {
        let channel = self.pieces.front()?.channel;
        let mut batch = Batch {
            channel,
            bulk: Vec::new(),
            bytes: 0,
            cursor: 0,
        };
        while let Some(first) = self
            .pieces
            .front_mut()
            .filter(|piece| piece.channel == channel)
        {
            let room = usize::try_from(max - batch.bytes).unwrap_or(usize::MAX);
            if room == 0 {
                break;
            }
            let bytes = first.bytes.split_to(room.min(first.bytes.len()));
            batch.bytes += bytes.len() as u64;
            first.cursor += bytes.len() as u64;
            batch.bulk.push(bytes);
            if first.bytes.is_empty() {
                batch.cursor = first.end;
                self.pieces.pop_front();
            } else {
                batch.cursor = first.cursor;
            }
        }
        Some(batch)
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Where a record's first byte of output is: behind its header.
fn contents_cursor(record: &LogRecord) -> u64 {
    record.end() - record.bytes.len() as u64
}

/// What of a record is left after `skip` bytes of its contents.
fn piece(record: LogRecord, skip: u64) -> Option<Piece> {
    let (start, end) = (contents_cursor(&record), record.end());
    let channel = match record.channel {
        keeper::Channel::Stdout => Channel::Stdout,
        keeper::Channel::Stderr => Channel::Stderr,
    };
    let mut bytes = Bytes::from(record.bytes);
    let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
    drop(bytes.split_to(skip));
    if bytes.is_empty() {
        return None;
    }
    let cursor = start + skip as u64;
    Some(Piece {
        channel,
        bytes,
        cursor,
        end,
    })
}

#[cfg(test)]
mod tests;
