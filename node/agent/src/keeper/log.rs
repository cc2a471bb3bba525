//! A process's output on disk: records in bounded segments under one growing cursor.
//!
//! Owner: the keeper writes ([`LogWriter`]), the agent reads ([`LogReader`]), at the same time and
//! without a lock. Invariants: a cursor names the same byte for ever; a record says where it
//! begins, so what was rotated away or could not be written is a gap that every reader sees; a record
//! that is not complete yet is not there yet.
//!
//! A segment is `<process>.<cursor of its first byte, 20 digits>.out`. A record is
//! `channel: u8, unix time in ms: u64, length: u32, cursor: u64` (little endian) and its bytes; it
//! never crosses segments. Cursors count bytes of output.
//!
//! Keepers of version 0 wrote `.log` segments: no cursor in the record, and cursors counted the headers
//! too. They are still read, and followed by segments of the present form.

mod reader;
mod segment;
mod writer;

pub use reader::{LogChunk, LogReadError, LogReader, Spot};
pub use writer::LogWriter;

/// Bytes before each record's contents.
pub const HEADER_BYTES: u64 = 21;
/// The same in a segment of version 0.
const OLD_HEADER_BYTES: u64 = 13;
/// Largest contents of one record: one full pipe.
pub(super) const RECORD_MAX: usize = 64 << 10;

/// Where output came from. A terminal's output is `Stdout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Channel {
    Stdout,
    Stderr,
}

impl Channel {
    const fn byte(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            _ => None,
        }
    }
}

/// One piece of output.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogRecord {
    /// Where the record begins. Behind the end of the one before: what is in between is lost.
    pub start: u64,
    /// Of its first byte of output: `start`, but in a log of version 0.
    pub cursor: u64,
    pub channel: Channel,
    /// Unix time in milliseconds.
    pub time_ms: u64,
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

impl LogRecord {
    /// Where the next record begins.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.cursor + self.bytes.len() as u64
    }
}

fn header(channel: Channel, time_ms: u64, len: u32, cursor: u64) -> [u8; HEADER_BYTES as usize] {
    let mut head = [0; HEADER_BYTES as usize];
    head[0] = channel.byte();
    head[1..9].copy_from_slice(&time_ms.to_le_bytes());
    head[9..13].copy_from_slice(&len.to_le_bytes());
    head[13..].copy_from_slice(&cursor.to_le_bytes());
    head
}

/// What the front of a buffer is.
enum Parsed {
    Record(Head),
    /// More bytes are needed.
    Partial,
    /// No record begins here.
    Damaged,
}

/// A record's header.
struct Head {
    channel: Channel,
    time_ms: u64,
    /// Bytes before the contents.
    header: usize,
    len: usize,
    /// `None` in a segment of version 0.
    cursor: Option<u64>,
}

impl Head {
    const fn size(&self) -> usize {
        self.header + self.len
    }
}

fn parse(buffer: &[u8], form: segment::Form) -> Parsed {
    let header = match form {
        segment::Form::Old => OLD_HEADER_BYTES,
        segment::Form::Present => HEADER_BYTES,
    } as usize;
    let Some(head) = buffer.first_chunk::<{ OLD_HEADER_BYTES as usize }>() else {
        return Parsed::Partial;
    };
    let [channel, t0, t1, t2, t3, t4, t5, t6, t7, l0, l1, l2, l3] = *head;
    let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let Some(channel) = Channel::from_byte(channel).filter(|_| len <= RECORD_MAX) else {
        return Parsed::Damaged;
    };
    if buffer.len() < header + len {
        return Parsed::Partial;
    }
    let cursor = buffer
        .get(OLD_HEADER_BYTES as usize..header)
        .and_then(|bytes| Some(u64::from_le_bytes(*bytes.first_chunk()?)));
    Parsed::Record(Head {
        channel,
        time_ms: u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
        header,
        len,
        cursor,
    })
}

#[cfg(test)]
mod tests;
