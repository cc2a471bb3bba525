//! Before and after the start: keys, enrolment, the client's pinned location, readiness.

use std::{fs, time::Duration};

use serde::Serialize;
use teu::{
    Location, NodeState, Session, Severity,
    config::{Account, Config, LocationEntry},
};
use tokio::time::Instant;

use super::{DevError, Layout, error::file_error, layout::SERIAL, mark::USUAL_POOL};
use crate::{args::Globals, failure::Failure, output};

/// How long a start may take: keys, store, bridge, firewall, warm slots; on a slow machine.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How long a pool may take to be opened: a file system that was not unmounted is checked.
const POOL_WITHIN: Duration = Duration::from_secs(30);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Who may connect: the master reads this at its start.
#[derive(Debug, Serialize)]
struct Bootstrap {
    accounts: Vec<BootstrapAccount>,
    nodes: Vec<BootstrapNode>,
}

#[derive(Debug, Serialize)]
struct BootstrapAccount {
    key: teu::PublicKey,
    name: String,
    admin: bool,
}

#[derive(Debug, Serialize)]
struct BootstrapNode {
    key: String,
    name: String,
}

/// Makes what is missing: keys, the enrolment of both, the pinned location. Gives the master's key.
pub(super) async fn settle(layout: &Layout) -> Result<String, Failure> {
    let account = Account::load_or_create(layout.home())?;
    let node = layout.node_key().await?;
    let bootstrap = Bootstrap {
        accounts: vec![BootstrapAccount {
            key: account.public_key(),
            name: "dev".to_owned(),
            admin: true,
        }],
        nodes: vec![BootstrapNode {
            key: node,
            name: host_name(),
        }],
    };
    let path = layout.bootstrap();
    fs::write(&path, serde_json::to_vec_pretty(&bootstrap)?).map_err(file_error("write", &path))?;
    let key = layout.master_key().await?;
    pin(layout, &key)?;
    Ok(key)
}

/// Tells this user's commands where the location is and what its key is. (That the name is free for it,
/// the claim has seen to.)
fn pin(layout: &Layout, key: &str) -> Result<(), Failure> {
    let mut config = Config::load(layout.home())?;
    let entry = LocationEntry {
        fqdn: layout.fqdn(),
        endpoint: layout.endpoint(),
        key: parsed(key)?,
        serial: SERIAL,
    };
    config.add(layout.name(), entry);
    Ok(config.save()?)
}

/// Takes that back.
pub(super) fn forget(layout: &Layout) -> Result<(), Failure> {
    let mut config = Config::load(layout.home())?;
    let known = config.locations.get(layout.name());
    // It may be another's by now.
    if known.is_none_or(|known| known.endpoint != layout.endpoint()) {
        return Ok(());
    }
    config.locations.remove(layout.name());
    if config.default.as_deref() == Some(layout.name()) {
        config.default = None;
    }
    Ok(config.save()?)
}

fn parsed(key: &str) -> Result<teu::PublicKey, DevError> {
    key.parse().map_err(|_| DevError::Failed {
        program: "teu-master",
        said: format!("it printed `{key}` instead of its key"),
    })
}

fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// The command that asks this location, as a shell takes it.
pub(super) fn client_command(globals: &Globals, layout: &Layout, verb: &str) -> String {
    let mut words = vec!["teu".to_owned()];
    if let Some(home) = &globals.home {
        words.push(format!(
            "--home {}",
            output::quoted(&home.display().to_string())
        ));
    }
    let config = Config::load(layout.home()).ok();
    if config.and_then(|config| config.default).as_deref() != Some(layout.name()) {
        words.push(format!("--location {}", layout.name()));
    }
    words.push(verb.to_owned());
    words.join(" ")
}

/// Waits until the location's offer has a node that takes containers.
pub(super) async fn wait_ready(globals: &Globals, layout: &Layout) -> Result<(), Failure> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        if is_ready(globals, layout, deadline).await {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let seconds = READY_WITHIN.as_secs();
            return Err(DevError::NotReady { seconds }.into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn is_ready(globals: &Globals, layout: &Layout, deadline: Instant) -> bool {
    let Ok(Ok(location)) = tokio::time::timeout_at(deadline, connect(globals, layout)).await else {
        return false;
    };
    let mut offer = location.offer();
    let up = offer.wait_for(|offer| offer.nodes.iter().any(|node| node.state == NodeState::Up));
    let ready = matches!(tokio::time::timeout_at(deadline, up).await, Ok(Ok(_)));
    location.close().await;
    ready
}

/// Connects as the location's administrator.
pub(super) async fn connect(globals: &Globals, layout: &Layout) -> Result<Location, Failure> {
    let session = globals.session.parse().map_err(Failure::SessionName)?;
    let location = Location::builder()
        .home(layout.home())
        .location(layout.name())
        .session(Session::Persistent(session))
        .name("teu dev")
        .connect();
    Ok(location.await?)
}

/// A pool that somebody has asked for by name must be there: says why it is not. (That of `auto` need
/// not be.)
pub(super) async fn check_pool(globals: &Globals, layout: &Layout) -> Result<(), Failure> {
    let pool = &layout.mark.pool;
    if matches!(pool.as_str(), USUAL_POOL | "none") {
        return Ok(());
    }
    let location = connect(globals, layout).await?;
    let why = tokio::time::timeout(POOL_WITHIN, pool_trouble(&location)).await;
    location.close().await;
    let why = match why {
        Ok(why) => why?,
        Err(_) => Some(format!(
            "the node has not opened it within {} s; `teu doctor` says more",
            POOL_WITHIN.as_secs()
        )),
    };
    match why {
        None => Ok(()),
        Some(why) => Err(DevError::Pool {
            pool: pool.clone(),
            why,
        }
        .into()),
    }
}

/// Waits until the node has opened its pool; gives the reason if it cannot.
async fn pool_trouble(location: &Location) -> Result<Option<String>, Failure> {
    loop {
        let nodes = location.nodes();
        if nodes.iter().any(|node| node.capacity.pool_bytes > 0) {
            return Ok(None);
        }
        let report = location.doctor().await?;
        let bad = report.findings.into_iter().find(|finding| {
            finding.severity == Severity::Bad && finding.subject.contains("volumes")
        });
        if let Some(finding) = bad {
            return Ok(Some(finding.message));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
