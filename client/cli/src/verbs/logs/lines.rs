//! Output that may have gaps, as whole lines.
//!
//! Owner: `teu logs`. Invariants: a gap begins behind a line's end and ends before a line's beginning, on each
//! channel; what is left out for that counts as lost; every gap is told, with its bytes.

use std::io::{self, Write as _};

use teu::{Channel, OutputChunk};

use crate::{failure::Failure, output};

/// See the module.
#[derive(Debug)]
pub(super) struct Lines {
    stdout: Line,
    stderr: Line,
    /// Lost or left out since the last word on it.
    lost: u64,
    /// Nothing came yet, and the oldest byte was asked for.
    first: bool,
}

/// Where a channel stands.
#[derive(Debug, Default, Clone, Copy)]
struct Line {
    /// The last byte that was written did not end its line.
    open: bool,
    /// A gap came: nothing is written before the next line begins.
    skips: bool,
}

impl Lines {
    /// `from_start`: all that is kept was asked for, so what is not kept any more is told.
    pub(super) fn new(from_start: bool) -> Self {
        Self {
            stdout: Line::default(),
            stderr: Line::default(),
            lost: 0,
            first: from_start,
        }
    }

    /// Writes what is part of a whole line, and of the last one of a program that has ended.
    pub(super) fn write(&mut self, chunk: &OutputChunk) -> Result<(), Failure> {
        if std::mem::take(&mut self.first) && chunk.start > 0 {
            self.lost(chunk.start)?;
        }
        let line = self.line(chunk.channel);
        let skipped = line.skip(&chunk.bytes);
        self.lost += skipped as u64;
        let bytes = chunk.bytes.get(skipped..).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        self.tell();
        self.line(chunk.channel).open = !bytes.ends_with(b"\n");
        put(chunk.channel, bytes)
    }

    /// So many bytes are missing here; of which channel is not known.
    pub(super) fn lost(&mut self, bytes: u64) -> Result<(), Failure> {
        self.first = false;
        self.lost += bytes;
        for channel in [Channel::Stdout, Channel::Stderr] {
            let line = self.line(channel);
            line.skips = true;
            if std::mem::take(&mut line.open) {
                put(channel, b"\n")?;
            }
        }
        Ok(())
    }

    /// Nothing more comes.
    pub(super) fn end(&mut self) {
        self.tell();
    }

    fn tell(&mut self) {
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            output::note(&told(lost));
        }
    }

    const fn line(&mut self, channel: Channel) -> &mut Line {
        match channel {
            Channel::Stderr => &mut self.stderr,
            _ => &mut self.stdout,
        }
    }
}

fn told(lost: u64) -> String {
    format!("teu: {lost} bytes of output are missing here: they are no longer kept")
}

impl Line {
    /// How many bytes to leave out: up to where a line begins, if there was a gap.
    fn skip(&mut self, bytes: &[u8]) -> usize {
        if !self.skips {
            return 0;
        }
        match bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                self.skips = false;
                end + 1
            }
            None => bytes.len(),
        }
    }
}

fn put(channel: Channel, bytes: &[u8]) -> Result<(), Failure> {
    let written = match channel {
        Channel::Stderr => io::stderr().write_all(bytes),
        _ => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(bytes).and_then(|()| stdout.flush())
        }
    };
    written.map_err(Failure::Output)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(line: &mut Line, text: &str) -> String {
        let from = line.skip(text.as_bytes());
        text[from..].to_owned()
    }

    #[test]
    fn behind_a_gap_output_goes_on_with_the_next_line() {
        let mut line = Line::default();
        assert_eq!(skipped(&mut line, "abc\n"), "abc\n");
        line.skips = true;
        assert_eq!(skipped(&mut line, "half"), "");
        assert_eq!(skipped(&mut line, " of it\nwhole\nha"), "whole\nha");
        assert_eq!(skipped(&mut line, "lf\n"), "lf\n");
        line.skips = true;
        assert_eq!(skipped(&mut line, "\nx"), "x");
    }
}
