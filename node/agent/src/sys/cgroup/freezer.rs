//! Stopping everything in a group for a moment, and letting it go on.
//!
//! Owner: the volume worker, of a running container's group. Invariant: [`Cgroup::freeze`] either has
//! everything at a standstill or lets it run; [`Cgroup::thaw`] may be called at any time and again.
//! v1: the freezer controller, whose group the container joined ahead as all others. v2:
//! `cgroup.freeze`, which every group has.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{Cgroup, CgroupError, Controller, Hierarchy, write};

/// How long coming to a standstill may take: a process in the middle of disk I/O finishes it first.
const FREEZE_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks.
const FREEZE_POLL: Duration = Duration::from_millis(1);

/// Asks a v1 group to stop or to go on.
const LEGACY: &str = "freezer.state";
/// Does so on v2.
const UNIFIED: &str = "cgroup.freeze";

impl Cgroup {
    /// Stops every process of the group and below it, and waits until all stand still.
    ///
    /// # Errors
    /// No freezer on this host, or `TimedOut`; the group runs then.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        let (one, dir) = self.freezer()?;
        let outcome = stop(one, dir);
        if outcome.is_err() {
            let _ = self.thaw();
        }
        outcome
    }

    /// Lets the group go on. A group that runs, or is not there any more, is fine.
    ///
    /// # Errors
    /// What the write said.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        let (one, dir) = self.freezer()?;
        let (path, value) = if one.unified {
            (dir.join(UNIFIED), "0")
        } else {
            (dir.join(LEGACY), "THAWED")
        };
        match fs::write(&path, value) {
            Err(error) if is_gone(&error) => Ok(()),
            outcome => outcome.map_err(CgroupError::new("write", &path)),
        }
    }

    /// Whether everything in the group stands still.
    ///
    /// # Errors
    /// What reading said.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        let (one, dir) = self.freezer()?;
        stands_still(one, dir)
    }

    fn freezer(&self) -> Result<&(Hierarchy, PathBuf), CgroupError> {
        self.with(Controller::Freezer, LEGACY)
    }
}

fn is_gone(error: &io::Error) -> bool {
    // A group that is removed while its file is open.
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

fn stop(one: &Hierarchy, dir: &Path) -> Result<(), CgroupError> {
    let deadline = Instant::now() + FREEZE_PATIENCE;
    if one.unified {
        write(&dir.join(UNIFIED), "1")?;
    }
    loop {
        if !one.unified {
            // v1 tries once for each write: a fork at the wrong moment needs another.
            write(&dir.join(LEGACY), "FROZEN")?;
        }
        if stands_still(one, dir)? {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(CgroupError::new("freeze", dir)(
                io::ErrorKind::TimedOut.into(),
            ));
        }
        std::thread::sleep(FREEZE_POLL);
    }
}

fn stands_still(one: &Hierarchy, dir: &Path) -> Result<bool, CgroupError> {
    let path = dir.join(if one.unified { "cgroup.events" } else { LEGACY });
    let text = fs::read_to_string(&path).map_err(CgroupError::new("read", &path))?;
    Ok(if one.unified {
        super::counter(&text, "frozen") == 1
    } else {
        text.trim() == "FROZEN"
    })
}
