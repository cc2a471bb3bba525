//! A process's output: into its log, or kept in memory while the log cannot be written.
//!
//! Owner: the process. Invariants: what is kept unwritten follows what is in the log, in order, and is
//! bounded; what had to be dropped is a gap in the log's cursors.

use std::collections::VecDeque;

use super::log::{Channel, LogRecord, LogWriter, RECORD_MAX};

/// Output that is kept for a process whose log cannot be written (a full disk): enough for the pipes
/// of a process that has ended, little for a keeper.
const UNWRITTEN_MAX: u64 = 1 << 20;

/// Of it in one answer: at least one record, and far less than what an agent may leave unread.
const ANSWER_MAX: usize = 4 * RECORD_MAX;

/// See the module.
#[derive(Debug)]
pub(super) struct Output {
    log: LogWriter,
    unwritten: VecDeque<LogRecord>,
    unwritten_bytes: u64,
}

impl Output {
    pub(super) const fn new(log: LogWriter) -> Self {
        Self {
            log,
            unwritten: VecDeque::new(),
            unwritten_bytes: 0,
        }
    }

    /// The cursor behind the last byte.
    pub(super) const fn end(&self) -> u64 {
        self.log.end() + self.unwritten_bytes
    }

    /// How far a place may lag.
    pub(super) fn lag_max(&self) -> u64 {
        self.log.limits().lag_max()
    }

    /// No more fits until somebody has read it.
    pub(super) const fn is_full(&self) -> bool {
        self.unwritten_bytes >= UNWRITTEN_MAX
    }

    /// Takes what the process wrote. Without a live reader the oldest goes if there is too much.
    pub(super) fn take(&mut self, channel: Channel, time_ms: u64, bytes: &[u8], is_read: bool) {
        self.write();
        if self.unwritten.is_empty() && self.log.append(channel, time_ms, bytes).is_ok() {
            return;
        }
        let start = self.end();
        self.unwritten_bytes += bytes.len() as u64;
        self.unwritten.push_back(LogRecord {
            start,
            cursor: start,
            channel,
            time_ms,
            bytes: bytes.to_vec(),
        });
        while !is_read && self.unwritten_bytes > UNWRITTEN_MAX {
            self.drop_first();
        }
    }

    /// Tries again to write what is kept.
    pub(super) fn write(&mut self) {
        while let Some(first) = self.unwritten.front() {
            if self
                .log
                .append(first.channel, first.time_ms, &first.bytes)
                .is_err()
            {
                return;
            }
            self.unwritten_bytes -= first.bytes.len() as u64;
            self.unwritten.pop_front();
        }
    }

    /// Every reader has what is before `cursor`: it makes room if there is too much.
    pub(super) fn was_read(&mut self, cursor: u64) {
        self.write();
        while self.unwritten_bytes > UNWRITTEN_MAX / 2
            && self
                .unwritten
                .front()
                .is_some_and(|one| one.end() <= cursor)
        {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(first) = self.unwritten.pop_front() {
            let bytes = first.bytes.len() as u64;
            self.unwritten_bytes -= bytes;
            self.log.skip(bytes);
        }
    }

    /// What is kept, from `cursor` on: as much as one answer holds.
    pub(super) fn unwritten(&self, cursor: u64) -> Vec<LogRecord> {
        let mut bytes = 0;
        let wanted = self.unwritten.iter().filter(|one| one.end() > cursor);
        let fits = wanted.take_while(|one| {
            bytes += one.bytes.len();
            bytes <= ANSWER_MAX
        });
        fits.cloned().collect()
    }
}
