//! Stopping a one-machine location: containers first, then node and master, then the network. Purging it:
//! its data as well.
//!
//! Invariants: only what a mark names is stopped; only what TEU has made is removed, entry by entry; what
//! is lost is listed, and asked for.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;

use super::{
    DevError, Layout,
    choose::{self, Wanted},
    claim::{self, Claim},
    error::file_error,
    layout::{self, ENTRIES},
    mark::{MARK_FILE, Mark},
    processes::{self, Daemon},
    registry::Registry,
    settle,
    supervise::END_WITHIN,
};
use crate::{args::Globals, consent::Consent, failure::Failure, output};

/// How long the location may take to end its sessions.
const SESSIONS_WITHIN: Duration = Duration::from_secs(20);

/// How long the supervisor may take: it gives each child ten seconds.
pub(super) const SUPERVISOR_WITHIN: Duration = Duration::from_secs(25);

/// Containers that are named when it is asked whether they may go.
const NAMED: usize = 10;

/// What of the location there is.
struct Found {
    supervisor: Option<u32>,
    daemons: Vec<Daemon>,
    /// Ids of its containers, those that have ended too.
    containers: Vec<String>,
}

impl Found {
    fn look(layout: &Layout) -> Self {
        let entries = fs::read_dir(layout.node_data().join("containers"));
        let entries = entries.into_iter().flatten().flatten();
        Self {
            supervisor: processes::supervisor(&layout.data),
            daemons: processes::daemons(&layout.data),
            containers: entries
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect(),
        }
    }

    /// In words, for who has stopped it.
    fn told(&self) -> String {
        let mut parts = Vec::new();
        if let Some(pid) = self.supervisor {
            parts.push(format!("its supervisor (process {pid})"));
        }
        for daemon in &self.daemons {
            parts.push(format!("{} (process {})", daemon.program, daemon.pid));
        }
        if !self.containers.is_empty() {
            parts.push(output::count(self.containers.len(), "container"));
        }
        if parts.is_empty() {
            return "nothing of it was running".to_owned();
        }
        format!("ended: {}", parts.join(", "))
    }
}

/// Stops the location; with `purge`, removes its data too.
pub(super) async fn stop(
    globals: &Globals,
    wanted: &Wanted,
    data: &Path,
    purge: bool,
    consent: Consent,
) -> Result<(), Failure> {
    let flag = if purge { "--purge" } else { "--stop" };
    let mark = Mark::read(data)?.ok_or_else(|| claim::no_location(data))?;
    choose::same(wanted, &mark, data, &[flag])?;
    let layout = Layout::new(data.to_owned(), mark)?;
    let found = Found::look(&layout);
    let gone = lost(&layout, &found, purge);
    if !gone.is_empty() && !consent.given(&gone)? {
        return Ok(());
    }
    end(globals, &layout, &found).await?;
    layout.clear_node(purge).await?;
    output::note(&format!(
        "location `{}` is stopped; {}",
        layout.name(),
        found.told()
    ));
    if purge {
        let left = remove(&layout, true)?;
        output::note(&format!(
            "the data of location `{}` in {} is removed",
            layout.name(),
            layout.data.display()
        ));
        tell_left(&layout.data, &left);
    }
    Ok(())
}

/// What is lost by it, a line each.
fn lost(layout: &Layout, found: &Found, purge: bool) -> Vec<String> {
    let mut gone = Vec::new();
    for id in found.containers.iter().take(NAMED) {
        gone.push(format!("  container {}", id.get(..12).unwrap_or(id)));
    }
    if let Some(more @ 1..) = found.containers.len().checked_sub(NAMED) {
        gone.push(format!("  and {}", output::count(more, "more container")));
    }
    if purge {
        for name in ENTRIES {
            let path = layout.data.join(name);
            if path.exists() {
                gone.push(format!("  {}: {}", path.display(), holds(name)));
            }
        }
    }
    gone
}

fn holds(entry: &str) -> &'static str {
    match entry {
        "node" => "the node's key, layers, logs, and the volumes that lie there (pool.btrfs)",
        "master" => "the location's key, its records, its images",
        "bootstrap.json" => "who may connect",
        "dev.log" => "the log of the daemons",
        MARK_FILE => "the mark of the location",
        _ => "the supervisor's process id",
    }
}

/// Ends the sessions, if the master can be asked, and all processes.
async fn end(globals: &Globals, layout: &Layout, found: &Found) -> Result<(), Failure> {
    if found.daemons.len() > 1 || found.supervisor.is_some() {
        let ended = tokio::time::timeout(SESSIONS_WITHIN, end_sessions(globals, layout)).await;
        if !matches!(ended, Ok(Ok(()))) {
            output::note("teu dev: the master does not answer; ending the processes all the same");
        }
    }
    if let Some(pid) = found.supervisor {
        end_supervisor(layout, pid).await?;
    }
    let left = processes::end(&layout.data, END_WITHIN).await;
    match left.first() {
        None => Ok(()),
        Some(daemon) => {
            let what = format!("{} (process {})", daemon.program, daemon.pid);
            Err(DevError::StillRunning(what).into())
        }
    }
}

/// Destroys every container of the account here, and with them their veths, mounts and cgroups.
async fn end_sessions(globals: &Globals, layout: &Layout) -> Result<(), Failure> {
    let location = settle::connect(globals, layout).await?;
    let own = location.session();
    for session in location.sessions().list().await? {
        if session.id != own {
            location.sessions().end(session.id).await?;
        }
    }
    for container in location.containers() {
        location
            .find(&container.id.to_string())
            .await?
            .destroy()
            .await?;
    }
    location.close().await;
    Ok(())
}

/// The supervisor holds its lock until its children have ended.
async fn end_supervisor(layout: &Layout, pid: u32) -> Result<(), DevError> {
    processes::send(pid, Signal::TERM);
    let ended = async {
        while processes::supervisor(&layout.data).is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SUPERVISOR_WITHIN, ended)
        .await
        .map_err(|_| DevError::StillRunning(format!("its supervisor (process {pid})")))
}

/// Takes back a start that failed, whose supervisor has ended: all of a location that it has made, else
/// only the processes.
pub(super) async fn undo(claim: &Claim) {
    let layout = &claim.layout;
    // Somebody else has started it meanwhile: then it is theirs.
    if processes::supervisor(&layout.data).is_some() {
        return;
    }
    if let Err(failure) = take_back(claim).await {
        output::note(&format!(
            "teu dev: something of the failed start is left in {}: {failure}; `{}` removes it",
            layout.data.display(),
            layout::command(&layout.data, &["--purge"])
        ));
    }
}

async fn take_back(claim: &Claim) -> Result<(), Failure> {
    let layout = &claim.layout;
    processes::end(&layout.data, END_WITHIN).await;
    if claim.is_new {
        layout.clear_node(true).await?;
        remove(layout, claim.made_directory)?;
    }
    Ok(())
}

/// Removes what TEU has made; gives what else is there, which stays.
fn remove(layout: &Layout, directory: bool) -> Result<Vec<PathBuf>, Failure> {
    settle::forget(layout)?;
    Registry::open()?.remove(&layout.data)?;
    Ok(remove_entries(&layout.data, directory)?)
}

fn remove_entries(data: &Path, directory: bool) -> Result<Vec<PathBuf>, DevError> {
    for name in ENTRIES {
        let path = data.join(name);
        remove_entry(&path).map_err(file_error("remove", &path))?;
    }
    let entries = fs::read_dir(data).map_err(file_error("read", data))?;
    let left: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    if left.is_empty() && directory {
        match fs::remove_dir(data) {
            // A mount point stays, empty.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            done => done.map_err(file_error("remove", data))?,
        }
    }
    Ok(left)
}

/// A link is removed, not what it leads to.
fn remove_entry(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if found.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

fn tell_left(data: &Path, left: &[PathBuf]) {
    if left.is_empty() {
        return;
    }
    let names: Vec<String> = left
        .iter()
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    output::note(&format!(
        "{} stays: it has files that TEU did not make ({})",
        data.display(),
        names.join(", ")
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_teu_made_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("kept"), "").unwrap();
        let data = dir.path().join("data");
        fs::create_dir_all(data.join("node/layers")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), data.join("master")).unwrap();
        fs::write(data.join(MARK_FILE), "").unwrap();
        fs::write(data.join("precious"), "mine").unwrap();
        let left = remove_entries(&data, true).unwrap();
        assert_eq!(left, [data.join("precious")]);
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1);
        assert!(elsewhere.path().join("kept").exists());
        fs::remove_file(data.join("precious")).unwrap();
        assert!(remove_entries(&data, true).unwrap().is_empty());
        assert!(!data.exists());
    }
}
