//! A process's output on disk: records in bounded segments under one growing byte cursor.
//!
//! Owner: the keeper writes ([`LogWriter`]), the agent reads ([`LogReader`]), at the same time and
//! without a lock. Invariant: a cursor names the same byte for ever; what was rotated away is
//! reported, not skipped in silence; a record that is not complete yet is not there yet.
//!
//! A segment is `<process>.<cursor of its first byte, 20 digits>.log`. A record is
//! `channel: u8, unix time in ms: u64, length: u32` (little endian) and its bytes; it never
//! crosses segments. Cursors count these bytes, headers included.

mod reader;
mod segment;
mod writer;

pub use reader::{LogChunk, LogReadError, LogReader};
pub use writer::LogWriter;

/// Bytes before each record's contents.
pub const HEADER_BYTES: u64 = 13;
/// Largest contents of one record: one full pipe.
pub(super) const RECORD_MAX: usize = 64 << 10;

/// Where output came from. A terminal's output is `Stdout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Where the record begins.
    pub cursor: u64,
    pub channel: Channel,
    /// Unix time in milliseconds.
    pub time_ms: u64,
    pub bytes: Vec<u8>,
}

impl LogRecord {
    /// Where the next record begins.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.cursor + HEADER_BYTES + self.bytes.len() as u64
    }
}

fn header(channel: Channel, time_ms: u64, len: u32) -> [u8; HEADER_BYTES as usize] {
    let mut head = [0; HEADER_BYTES as usize];
    head[0] = channel.byte();
    head[1..9].copy_from_slice(&time_ms.to_le_bytes());
    head[9..].copy_from_slice(&len.to_le_bytes());
    head
}

/// What the front of a buffer is.
enum Parsed {
    Record {
        channel: Channel,
        time_ms: u64,
        len: usize,
    },
    /// More bytes are needed.
    Partial,
    /// No record begins here.
    Damaged,
}

fn parse(buffer: &[u8]) -> Parsed {
    let Some(head) = buffer.first_chunk::<{ HEADER_BYTES as usize }>() else {
        return Parsed::Partial;
    };
    let [channel, t0, t1, t2, t3, t4, t5, t6, t7, l0, l1, l2, l3] = *head;
    let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let Some(channel) = Channel::from_byte(channel).filter(|_| len <= RECORD_MAX) else {
        return Parsed::Damaged;
    };
    if buffer.len() < head.len() + len {
        return Parsed::Partial;
    }
    Parsed::Record {
        channel,
        time_ms: u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
        len,
    }
}

#[cfg(test)]
mod tests;
