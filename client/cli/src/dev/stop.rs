//! Stopping a one-machine location: containers first, then node and master, then the network.

use std::{fs, io, path::Path, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use teu::{Location, Session};

use super::{DevError, Layout, layout::file_error, supervise};
use crate::{args::Globals, failure::Failure, output};

/// How long the location may take to end its sessions.
const SESSIONS_WITHIN: Duration = Duration::from_secs(20);

/// How long the supervisor may take: it gives each child ten seconds.
const SUPERVISOR_WITHIN: Duration = Duration::from_secs(25);

/// Stops the location; with `purge`, removes its data too.
pub(super) async fn stop(globals: &Globals, layout: &Layout, purge: bool) -> Result<(), Failure> {
    if let Some(pid) = supervise::running(layout) {
        let ended = tokio::time::timeout(SESSIONS_WITHIN, end_sessions(globals, layout)).await;
        if !matches!(ended, Ok(Ok(()))) {
            output::note("teu dev: the master does not answer; ending the processes all the same");
        }
        end_supervisor(layout, pid).await?;
    }
    if purge {
        layout.purge_node().await?;
        remove(&layout.data).map_err(file_error("remove", &layout.data))?;
        forget(layout)?;
    }
    output::note(&format!("location `{}` is stopped", layout.name));
    Ok(())
}

/// Removes a directory with all in it. If it is a mount point, it stays, empty.
fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error)
            if error.kind() == io::ErrorKind::ResourceBusy
                && fs::read_dir(dir)?.next().is_none() =>
        {
            Ok(())
        }
        done => done,
    }
}

/// Destroys every container of the account here, and with them their veths, mounts and cgroups.
async fn end_sessions(globals: &Globals, layout: &Layout) -> Result<(), Failure> {
    let own = globals.session.parse().map_err(Failure::SessionName)?;
    let location = Location::builder()
        .home(&layout.home)
        .location(&layout.name)
        .session(Session::Persistent(own))
        .name("teu dev --stop")
        .connect()
        .await?;
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
    let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    let _ = kill_process(process, Signal::TERM);
    let ended = async {
        while supervise::running(layout).is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SUPERVISOR_WITHIN, ended)
        .await
        .map_err(|_| DevError::StillRunning(pid))
}

fn forget(layout: &Layout) -> Result<(), Failure> {
    let mut config = teu::config::Config::load(&layout.home)?;
    config.locations.remove(&layout.name);
    if config.default.as_ref() == Some(&layout.name) {
        config.default = None;
    }
    Ok(config.save()?)
}
