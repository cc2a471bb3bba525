//! Logging to standard error, which may be a file on a full disk, a closed pipe or a terminal that is
//! gone.
//!
//! Owner: a daemon's `main`. Invariant: no write to the log fails or panics as seen by who logs; lines
//! that could not be written are counted, and the count is written with the next line that can be.

use std::{
    fmt,
    io::{self, IsTerminal as _, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// Sends the log to standard error: what `TEU_LOG` asks for, or `info`.
pub fn start(with_target: bool) {
    let filter = EnvFilter::try_from_env("TEU_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(LossyLog::new(io::stderr()))
        .with_target(with_target)
        // Colours are for a terminal; a file is searched.
        .with_ansi(io::stderr().is_terminal())
        // What is said about a failed write would be said with `eprintln!`, which panics.
        .log_internal_errors(false)
        .init();
}

/// Says something on standard error, if anybody can still hear it.
pub fn say(text: fmt::Arguments<'_>) {
    // There is nowhere else to say it.
    let _ = writeln!(io::stderr(), "{text}");
}

/// An error and its sources in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A writer of lines that takes every line and loses those that cannot be written.
#[derive(Debug)]
pub struct LossyLog<W> {
    state: Mutex<State<W>>,
}

#[derive(Debug)]
struct State<W> {
    inner: W,
    /// Lines since the last one that was written.
    lost: u64,
}

impl<W: Write> LossyLog<W> {
    /// Writes to `inner`.
    pub const fn new(inner: W) -> Self {
        Self {
            state: Mutex::new(State { inner, lost: 0 }),
        }
    }
}

impl<W: Write> State<W> {
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.lost > 0 {
            // The last line may have been cut off in the middle.
            writeln!(
                self.inner,
                "\n{} log lines could not be written and are lost",
                self.lost
            )?;
            self.lost = 0;
        }
        self.inner.write_all(line)
    }
}

/// One line on its way.
#[derive(Debug)]
pub struct Line<'a, W>(MutexGuard<'a, State<W>>);

impl<W: Write> Write for Line<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.write_line(line).is_err() {
            self.0.lost += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // Standard error has no buffer.
        Ok(())
    }
}

impl<'a, W: Write + 'a> MakeWriter<'a> for LossyLog<W> {
    type Writer = Line<'a, W>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;

    /// A disk that is full or not.
    #[derive(Clone, Default)]
    struct Disk {
        full: Arc<AtomicBool>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.full.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_loses_lines_and_says_how_many() {
        let disk = Disk::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(LossyLog::new(disk.clone()))
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("one");
            disk.full.store(true, Ordering::Relaxed);
            tracing::info!("two");
            tracing::info!("three");
            disk.full.store(false, Ordering::Relaxed);
            tracing::info!("four");
            tracing::info!("five");
        });
        let written = String::from_utf8(disk.written.lock().unwrap().clone()).unwrap();
        assert_eq!(
            written,
            " INFO one\n\n2 log lines could not be written and are lost\n INFO four\n INFO five\n"
        );
    }
}
