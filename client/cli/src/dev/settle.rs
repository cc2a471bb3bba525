//! Before and after the start: keys, enrolment, the client's pinned location, readiness.

use std::{fs, os::unix::fs::OpenOptionsExt as _, process::Stdio, time::Duration};

use serde::Serialize;
use teu::{
    Location, NodeState, Session,
    config::{Account, Config, LocationEntry},
};
use tokio::{process::Command, time::Instant};

use super::{
    DevError, Layout,
    layout::{SERIAL, file_error},
    supervise,
};
use crate::{args::Globals, failure::Failure};

/// How long a start may take: keys, store, bridge, firewall, warm slots; on a slow machine.
const READY_WITHIN: Duration = Duration::from_secs(60);

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
pub(super) async fn settle(globals: &Globals, layout: &Layout) -> Result<String, Failure> {
    let account = Account::load_or_create(&layout.home)?;
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
    pin(globals, layout, &key)?;
    Ok(key)
}

/// Tells this user's commands where the location is and what its key is.
fn pin(_globals: &Globals, layout: &Layout, key: &str) -> Result<(), Failure> {
    let mut config = Config::load(&layout.home)?;
    let key = parsed(key)?;
    has_port(&config, layout, key)?;
    let entry = LocationEntry {
        fqdn: layout.fqdn(),
        endpoint: layout.endpoint(),
        key,
        serial: SERIAL,
    };
    config.locations.insert(layout.name.clone(), entry);
    config.default.get_or_insert_with(|| layout.name.clone());
    Ok(config.save()?)
}

fn parsed(key: &str) -> Result<teu::PublicKey, DevError> {
    key.parse().map_err(|_| DevError::Failed {
        program: "teu-master",
        said: format!("it printed `{key}` instead of its key"),
    })
}

/// Another location must not lose its place in the client's list to one that cannot start. (Ours may
/// have outlived its supervisor.)
fn has_port(config: &Config, layout: &Layout, key: teu::PublicKey) -> Result<(), DevError> {
    let known = config.locations.get(&layout.name);
    if known.is_some_and(|known| known.key == key) {
        return Ok(());
    }
    port_is_free(&layout.endpoint())
}

fn port_is_free(endpoint: &str) -> Result<(), DevError> {
    match std::net::TcpListener::bind(endpoint) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            Err(DevError::PortTaken(endpoint.to_owned()))
        }
        // Other troubles are the master's to tell.
        _ => Ok(()),
    }
}

fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Waits until the location's offer has a node that takes containers.
pub(super) async fn wait_ready(globals: &Globals, layout: &Layout) -> Result<(), Failure> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        if is_ready(globals, layout, deadline).await {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(not_ready(layout).into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn is_ready(globals: &Globals, layout: &Layout, deadline: Instant) -> bool {
    let Ok(session) = globals.session.parse() else {
        return false;
    };
    let connect = Location::builder()
        .home(&layout.home)
        .location(&layout.name)
        .session(Session::Persistent(session))
        .name("teu dev")
        .connect();
    let Ok(Ok(location)) = tokio::time::timeout_at(deadline, connect).await else {
        return false;
    };
    let mut offer = location.offer();
    let up = offer.wait_for(|offer| offer.nodes.iter().any(|node| node.state == NodeState::Up));
    let ready = matches!(tokio::time::timeout_at(deadline, up).await, Ok(Ok(_)));
    location.close().await;
    ready
}

fn not_ready(layout: &Layout) -> DevError {
    let (log, path) = end_of_log(layout);
    DevError::NotReady {
        seconds: READY_WITHIN.as_secs(),
        log,
        path,
    }
}

fn end_of_log(layout: &Layout) -> (String, String) {
    let path = layout.log_file();
    let log = fs::read_to_string(&path).unwrap_or_default();
    let tail: Vec<&str> = log.lines().rev().take(10).collect();
    let log = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
    (log, path.display().to_string())
}

/// Starts the supervisor in the background, its output in the log file, and waits until ready.
pub(super) async fn detach(globals: &Globals, layout: &Layout) -> Result<(), Failure> {
    if let Some(pid) = supervise::running(layout) {
        return Err(DevError::Running(pid).into());
    }
    fs::create_dir_all(&layout.data).map_err(file_error("make", &layout.data))?;
    // Here as well as in the child: else whoever has the port would be taken for what was started.
    let key = parsed(&layout.master_key().await?)?;
    has_port(&Config::load(&layout.home)?, layout, key)?;
    let path = layout.log_file();
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(file_error("open", &path))?;
    let also = log.try_clone().map_err(file_error("open", &path))?;
    let program = std::env::current_exe().map_err(file_error("find", "teu".as_ref()))?;
    let mut command = Command::new("setsid");
    command.arg(program);
    if let Some(home) = &globals.home {
        command.arg("--home").arg(home);
    }
    command.args([
        "dev",
        "--name",
        &layout.name,
        "--port",
        &layout.port.to_string(),
    ]);
    command.args(["--instance", &layout.instance, "--range", &layout.range]);
    command.arg("--data").arg(&layout.data);
    if let Some(pool) = &layout.pool {
        command.args(["--pool", pool]);
    }
    command.stdin(Stdio::null()).stdout(also).stderr(log);
    let mut child = command.spawn().map_err(|source| DevError::Start {
        program: "teu",
        source,
    })?;
    tokio::select! {
        outcome = wait_ready(globals, layout) => outcome,
        _ = child.wait() => {
            let (log, path) = end_of_log(layout);
            Err(DevError::Ended { log, path }.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_somebody_has_is_not_free() {
        let somebody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = somebody.local_addr().unwrap().to_string();
        let taken = port_is_free(&endpoint).unwrap_err();
        assert_eq!(
            taken.to_string(),
            format!("something listens at {endpoint} already")
        );
        drop(somebody);
        assert!(port_is_free(&endpoint).is_ok());
    }
}
