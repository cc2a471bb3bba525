//! What destroys data or containers says what will be gone, and asks.
//!
//! Invariant: nothing is destroyed without `--yes` or a yes on a terminal; `--dry-run` destroys
//! nothing and prints the same list.

use std::io::{self, BufRead, IsTerminal as _, Write};

use clap::Args;

use crate::{
    failure::{Failure, Usage},
    output,
};

/// Options of every verb that destroys what cannot be had again.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Consent {
    /// Only print what would be destroyed
    #[arg(long, conflicts_with = "yes")]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

impl Consent {
    /// Says what will be gone, and asks if that is meant. False: it is not to be done.
    pub(crate) fn given(self, gone: &[String]) -> Result<bool, Failure> {
        if self.dry_run {
            output::line(&format!("would destroy:\n{}", gone.join("\n")))?;
            return Ok(false);
        }
        if self.yes {
            return Ok(true);
        }
        // The question is asked on one, the answer is read from the other.
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            return Err(Usage::new(
                "confirmation needed, but there is no terminal (use --yes)",
                "--dry-run prints what would be destroyed; --yes destroys it",
            )
            .into());
        }
        ask(gone, &mut io::stdin().lock(), &mut io::stderr())?;
        Ok(true)
    }
}

/// Says what will be gone, and waits for an answer; anything but a yes is a no.
pub(crate) fn ask(
    gone: &[String],
    from: &mut impl BufRead,
    to: &mut impl Write,
) -> Result<(), Failure> {
    let text = output::harmless(&format!("this destroys:\n{}\n", gone.join("\n")));
    let asked = write!(to, "{text}Go on? [y/N] ").and_then(|()| to.flush());
    asked.map_err(Failure::Terminal)?;
    let mut answer = String::new();
    from.read_line(&mut answer).map_err(Failure::Terminal)?;
    if is_yes(&answer) {
        return Ok(());
    }
    if !answer.ends_with('\n') {
        // Ctrl-D: the cursor still stands behind the question.
        let _ = writeln!(to);
    }
    Err(Failure::Declined)
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}
