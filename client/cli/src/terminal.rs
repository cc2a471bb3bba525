//! The caller's terminal: its size, and raw mode that is always undone.

use std::io::{self, IsTerminal as _};

use rustix::termios::{self, OptionalActions, Termios};
use teu::TermSize;

use crate::failure::{Failure, Usage};

/// The size of the terminal that we sit at; 24 by 80 if it does not tell.
pub(crate) fn size() -> TermSize {
    let told = termios::tcgetwinsize(rustix::stdio::stdout())
        .or_else(|_| termios::tcgetwinsize(rustix::stdio::stdin()))
        .ok()
        .filter(|size| size.ws_row > 0 && size.ws_col > 0);
    match told {
        Some(size) => TermSize {
            rows: size.ws_row,
            cols: size.ws_col,
        },
        None => TermSize { rows: 24, cols: 80 },
    }
}

/// `-it` needs a terminal to read from.
pub(crate) fn require_input() -> Result<(), Failure> {
    if io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Usage::new(
        "-t needs a terminal, and standard input is not one",
        "leave out -t to send a file or a pipe to the program",
    )
    .into())
}

/// While it lives, keys go to the program unprocessed (Ctrl-C included).
#[derive(Debug)]
pub(crate) struct RawMode(Termios);

impl RawMode {
    /// Enters raw mode, if standard input is a terminal.
    pub(crate) fn enter() -> Result<Option<Self>, Failure> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let stdin = rustix::stdio::stdin();
        let before = termios::tcgetattr(stdin).map_err(|e| Failure::Terminal(e.into()))?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(stdin, OptionalActions::Drain, &raw)
            .map_err(|e| Failure::Terminal(e.into()))?;
        Ok(Some(Self(before)))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.0);
    }
}
