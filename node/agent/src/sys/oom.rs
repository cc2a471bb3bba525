//! Whom the kernel kills when memory runs out: containers before TEU's own processes.
//!
//! Invariant: a score is only ever lowered here, and it is read back. Containers' processes set theirs to 0 before they
//! begin (`keeper::stub`, `keeper::tenant`).

use std::{fs, io};

const FILE: &str = "/proc/self/oom_score_adj";

/// The agent and its launcher: killed after every container, before the keepers.
pub const DAEMON: i32 = -500;
/// A keeper: without it its container is lost.
pub const KEEPER: i32 = -900;

/// Lowers this process's score to `score`, if it is higher.
///
/// # Errors
/// The kernel refuses (no `CAP_SYS_RESOURCE`), or does not keep it.
pub fn protect(score: i32) -> io::Result<()> {
    if current()? <= score {
        return Ok(());
    }
    fs::write(FILE, score.to_string())?;
    match current()? {
        kept if kept <= score => Ok(()),
        kept => Err(io::Error::other(format!(
            "the kernel keeps {kept} instead of {score}"
        ))),
    }
}

fn current() -> io::Result<i32> {
    let text = fs::read_to_string(FILE)?;
    text.trim()
        .parse()
        .map_err(|_| io::ErrorKind::InvalidData.into())
}
