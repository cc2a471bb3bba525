//! A process's log as a stream wants it: from any byte on, in pieces of any size.
//!
//! Owner: the attach task. Invariants: each byte once, in order; a batch has no gap in it, and says where it
//! begins, so that a gap before it is seen. The log's own format is the keeper's (`keeper::log`).

use std::{collections::VecDeque, path::Path};

use bytes::Bytes;
use teu_protocol::{
    ids::ProcessId,
    message::{Channel, LogStart},
};

use crate::keeper::{self, LogChunk, LogReadError, LogReader, LogRecord, Spot};

/// One look at the log while searching.
const SCAN_BYTES: usize = 256 * 1024;

#[derive(Debug)]
struct Piece {
    channel: Channel,
    bytes: Bytes,
    /// Where it follows on the byte before it.
    start: u64,
    /// Where the next record begins.
    end: u64,
}

/// What may be sent as one message.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) channel: Channel,
    pub(super) bulk: Vec<Bytes>,
    pub(super) bytes: u64,
    /// Where it begins: if that is behind the end of the batch before, bytes are lost.
    pub(super) from: u64,
    /// Of the next unread byte.
    pub(super) cursor: u64,
}

#[derive(Debug)]
pub(super) struct LogSource {
    reader: LogReader,
    next: Spot,
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
            next: end.into(),
            reader,
            pieces: VecDeque::new(),
        };
        match from {
            LogStart::Now => {}
            LogStart::Oldest => this.next = this.reader.first_cursor()?.into(),
            LogStart::Cursor(cursor) => this.next = cursor.into(),
            LogStart::Tail(lines) => this.tail(lines, end)?,
        }
        Ok(this)
    }

    /// The next unread byte.
    pub(super) fn cursor(&self) -> u64 {
        self.pieces
            .front()
            .map_or(self.next.cursor, |piece| piece.start)
    }

    /// Goes to where the last `lines` lines begin; an unfinished last line counts as one. Counts
    /// first and keeps nothing meanwhile: many readers may want the whole of a log, and wait.
    fn tail(&mut self, lines: u32, end: u64) -> Result<(), LogReadError> {
        if lines == 0 {
            self.next = end.into();
            return Ok(());
        }
        let mut there = 0_u64;
        let mut ends_line = true;
        self.next = self.reader.first_cursor()?.into();
        while self.next.cursor < end && self.scan()? {
            for piece in self.pieces.drain(..) {
                there += count_lines(&piece.bytes);
                ends_line = piece.bytes.last() == Some(&b'\n');
            }
        }
        there += u64::from(!ends_line);
        let mut unwanted = there.saturating_sub(u64::from(lines));
        self.next = self.reader.first_cursor()?.into();
        while unwanted > 0 && self.next.cursor < end && self.scan()? {
            unwanted = self.drop_lines(unwanted);
        }
        Ok(())
    }

    /// Reads on. `false` if there was nothing.
    fn scan(&mut self) -> Result<bool, LogReadError> {
        let chunk = self.reader.read(self.next, SCAN_BYTES)?;
        let found = !chunk.records.is_empty();
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
                    first.take(skip);
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
    pub(super) fn missing(&self) -> (LogReader, Spot) {
        (self.reader.clone(), self.next)
    }

    /// What was read there.
    pub(super) fn add(&mut self, chunk: LogChunk) {
        let from = self.next.cursor;
        let pieces = chunk.records.into_iter();
        self.pieces
            .extend(pieces.filter_map(|record| piece(record, from)));
        self.next = chunk.next;
    }

    /// What is not in the log yet: it follows on what was read.
    pub(super) fn add_unwritten(&mut self, records: Vec<LogRecord>) {
        for record in records {
            let (from, end) = (self.next.cursor, record.end());
            self.pieces.extend(piece(record, from));
            self.next.cursor = self.next.cursor.max(end);
        }
    }

    /// What is before `cursor` is nowhere to be had.
    pub(super) fn give_up(&mut self, cursor: u64) {
        self.next.cursor = self.next.cursor.max(cursor);
    }

    /// Takes at most `max` bytes of one channel.
    pub(super) fn take(&mut self, max: u64) -> Option<Batch> {
        let first = self.pieces.front()?;
        let (channel, from) = (first.channel, first.start);
        let mut batch = Batch {
            channel,
            bulk: Vec::new(),
            bytes: 0,
            from,
            cursor: from,
        };
        while let Some(first) = self
            .pieces
            .front_mut()
            .filter(|piece| piece.channel == channel && piece.start == batch.cursor)
        {
            let room = usize::try_from(max - batch.bytes).unwrap_or(usize::MAX);
            if room == 0 {
                break;
            }
            let bytes = first.take(room.min(first.bytes.len()));
            batch.bytes += bytes.len() as u64;
            batch.cursor = first.start;
            batch.bulk.push(bytes);
            if first.bytes.is_empty() {
                self.pieces.pop_front();
            }
        }
        Some(batch)
    }
}

impl Piece {
    /// Takes this many bytes off its front.
    fn take(&mut self, bytes: usize) -> Bytes {
        let taken = self.bytes.split_to(bytes);
        self.start = self.end - self.bytes.len() as u64;
        taken
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// What of a record is left for who has everything before `from`.
fn piece(record: LogRecord, from: u64) -> Option<Piece> {
    let (start, cursor, end) = (record.start, record.cursor, record.end());
    let channel = match record.channel {
        keeper::Channel::Stdout => Channel::Stdout,
        keeper::Channel::Stderr => Channel::Stderr,
    };
    let mut piece = Piece {
        channel,
        bytes: Bytes::from(record.bytes),
        start,
        end,
    };
    if from > cursor {
        let skip = usize::try_from(from - cursor).unwrap_or(usize::MAX);
        piece.take(skip.min(piece.bytes.len()));
    }
    (!piece.bytes.is_empty()).then_some(piece)
}

#[cfg(test)]
mod tests;
