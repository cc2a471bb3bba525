//! The kernel kills others first when memory runs out: without its master a location takes no requests.
//!
//! Owner: `main`. Invariant: the score is only ever lowered, and it is read back.

use std::{fs, io};

const FILE: &str = "/proc/self/oom_score_adj";
/// Below containers (0) and most services, above keepers.
const SCORE: i32 = -500;

/// Lowers this process's score, if it is higher.
pub(crate) fn protect() -> io::Result<()> {
    let current = || {
        let text = fs::read_to_string(FILE)?;
        text.trim()
            .parse::<i32>()
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
    };
    if current()? <= SCORE {
        return Ok(());
    }
    fs::write(FILE, SCORE.to_string())?;
    match current()? {
        kept if kept <= SCORE => Ok(()),
        kept => Err(io::Error::other(format!(
            "the kernel keeps {kept} instead of {SCORE}"
        ))),
    }
}
