//! Putting the agent together, and taking over what an earlier one left.
//!
//! Owner: `main` calls [`run`]. Invariants: nothing is adopted or swept before the data directory is
//! locked; the network stands before the first slot; the report comes after the adoption.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use teu_daemon::tasks::{Vital, VitalEnds};
use teu_link::Dialer;
use teu_node_core::{
    Input, NodeCore,
    accounts::UidRanges,
    firewall::{Ipv4Subnet, Pair, SubnetError},
    input::ProcessEnd,
    node::Found,
    stream::LogProgress,
};
use teu_protocol::{
    ids::{ContainerId, ProcessId},
    message::Topology,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};

use super::{Agent, AgentConfig, Event, platform};
use crate::{
    containers::{
        Entry, FoundContainer, ProcessProgress, Sandbox, Table, Yard, YardInner, find, process_end,
        watch_keeper,
    },
    keeper::KeeperHello,
    launcher::LauncherConfig,
    layers::{LayerError, LayerStore, UnpackLimits},
    link::{self, LinkUp},
    slots::{NetworkReleaser, SlotsHandle},
    state::{DataDir, StateError, load_or_make_key},
    streams::TunnelWindows,
    sys::{
        net::{Adopted, NetConfig, NetError, NetworkHandle},
        subid,
    },
    usage,
    volumes::{
        pool,
        worker::{FirstLook, WorkerHandle},
    },
};

/// Events on their way to the loop: tasks wait when it is full, and it is empty in microseconds.
const EVENTS: usize = 1_024;

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Its files.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its layers.
    #[error("the layer store cannot be opened")]
    Layers(#[from] LayerError),
    /// Its network.
    #[error("the container network cannot be set up")]
    Network(#[from] NetError),
    /// The master gave addresses that are none.
    #[error("the location gave this node unusable addresses")]
    Subnet(#[from] SubnetError),
    /// A part of the agent has ended.
    #[error(transparent)]
    Task(#[from] teu_daemon::tasks::Ended),
    /// A directory, a signal handler.
    #[error("cannot {action}")]
    Io {
        /// What was attempted.
        action: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Stopped,
    /// The location gave it other addresses, and it has no containers: begin again.
    Restart,
}

/// Runs until it is told to end.
///
/// # Errors
/// [`AgentError`]: what is missing on this machine.
pub async fn run(config: &AgentConfig) -> Result<Ended, AgentError> {
    let data = DataDir::open(&config.data)?;
    let _lock = data.lock()?;
    let data = open_scratch(data).await?;
    let run_dir = config.run_dir();
    make_run_dir(&run_dir)?;
    let key = load_or_make_key(&data)?;
    let (events_out, mut events) = mpsc::channel(EVENTS);
    let dialer = Dialer::new(config.master.clone(), config.location.clone(), key);
    let (vital, ends) = Vital::new();
    let link = link::run(dialer, config.name.clone(), events_out.clone());
    let link_task = tokio::spawn(vital.watch("link to the master", link));
    let stop_task = tokio::spawn(stop_on_signal(ends, events_out.clone()));
    let outcome = async {
        let (topology, mut early) = match data.topology()? {
            Some(topology) => (topology, None),
            None => match first_topology(&mut events).await? {
                Some(up) => {
                    data.keep_topology(&up.topology)?;
                    (up.topology.clone(), Some(up))
                }
                None => return Ok(Ended::Stopped),
            },
        };
        let mut agent = assemble(config, data, run_dir, topology, events_out).await?;
        if let Some(up) = early.take()
            && let Some(ended) = agent.link_up(*up)
        {
            return Ok(ended);
        }
        agent.run(events).await
    }
    .await;
    link_task.abort();
    stop_task.abort();
    outcome
}

/// Before anything looks at containers, and before the first keeper.
async fn open_scratch(data: DataDir) -> Result<DataDir, AgentError> {
    let opened = tokio::task::spawn_blocking(move || data.with_scratch()).await;
    opened.map_err(|error| AgentError::Io {
        action: "open the file system of containers".to_owned(),
        source: std::io::Error::other(error),
    })
}

fn make_run_dir(run_dir: &Path) -> Result<(), AgentError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(run_dir);
    made.map_err(|source| AgentError::Io {
        action: format!("make {}; is this root?", run_dir.display()),
        source,
    })
}

/// Waits for a signal, or for the end of a task without which the agent is not whole.
async fn stop_on_signal(mut ends: VitalEnds, events: mpsc::Sender<Event>) {
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        tracing::error!("signals cannot be received");
        return;
    };
    let event = tokio::select! {
        _ = term.recv() => Event::Stop,
        _ = int.recv() => Event::Stop,
        ended = ends.next() => Event::Failed(ended),
    };
    let _ = events.send(event).await;
}

/// A node that was never connected does not know its addresses yet.
async fn first_topology(
    events: &mut mpsc::Receiver<Event>,
) -> Result<Option<Box<LinkUp>>, AgentError> {
    loop {
        match events.recv().await {
            Some(Event::LinkUp(up)) => return Ok(Some(up)),
            None | Some(Event::Stop) => return Ok(None),
            Some(Event::Failed(ended)) => return Err(ended.into()),
            Some(_) => {}
        }
    }
}

async fn assemble(
    config: &AgentConfig,
    data: DataDir,
    run_dir: PathBuf,
    topology: Topology,
    events: mpsc::Sender<Event>,
) -> Result<Agent, AgentError> {
    let cgroup_parent = config.instance.as_str().to_owned();
    let accounts = data.accounts()?;
    warn_of_shared_ids(&accounts, data.path());
    let found = find(&data, &run_dir, &cgroup_parent).await?;
    data.scratch().sweep(&data.containers());
    data.scratch().keep_growing();
    let name_servers = name_servers();
    let network = open_network(config, &topology, &name_servers, &found).await?;
    let program = std::env::current_exe().map_err(|source| AgentError::Io {
        action: "find this program's own path".to_owned(),
        source,
    })?;
    let layers = LayerStore::open(data.path(), &program, UnpackLimits::default())?;
    let launcher = LauncherConfig {
        program,
        run_dir: run_dir.clone(),
        volumes: data.path().join("volumes"),
        cgroup_parent: cgroup_parent.clone(),
    };
    let releaser = NetworkReleaser::start(network.clone());
    let slots = SlotsHandle::start(launcher, network.clone(), releaser.clone(), config.slots);
    let (volumes, first_look) = start_volumes(config, &data, &cgroup_parent, events.clone())?;
    let (link, link_now) = watch::channel(None);
    let yard = Yard::new(YardInner {
        data,
        run_dir,
        cgroup_parent,
        slots,
        network,
        releaser,
        tunnels: TunnelWindows::new(),
        layers,
        volumes,
        name_servers: name_servers.into_iter().map(Into::into).collect(),
        link: link_now,
        events: events.clone(),
    });
    let (capacity, measured) = usage::start(yard.data.path(), events);
    let mut agent = Agent {
        core: NodeCore::new(platform()),
        table: Table::new(),
        yard,
        accounts,
        topology,
        link,
        outbox: None,
        starts: HashMap::new(),
        records: super::records::Records::default(),
        capacity,
        measured,
        told: measured,
        epoch: Instant::now(),
    };
    for one in found {
        agent.adopt(one);
    }
    // Dropped unanswered, or too slow: it is told later, when the pool is looked at again.
    let listed = tokio::time::timeout(FIRST_LOOK_PATIENCE, first_look).await;
    agent.show_current_trees(listed.is_err()).await;
    agent.input(Input::Volumes(listed.ok().and_then(Result::ok).flatten()));
    Ok(agent)
}

/// Files are owned by ranges that were given before anybody asked whose they are.
fn warn_of_shared_ids(accounts: &UidRanges, data: &Path) {
    for base in accounts.bases() {
        if let Some(user) = subid::user_of(base) {
            tracing::warn!(
                "ids from {base} on are an account's of this node, and in /etc/subuid or /etc/subgid the user {user}'s: \
                 give that user others, or its processes own the account's files"
            );
        }
        if matches!(subid::claim(base, data), Ok(false)) {
            tracing::warn!(
                "ids from {base} on belong to another location of this machine too: purge one of the two and start it anew"
            );
        }
    }
}

/// A pool that is slower than this (a file system that is checked) comes later.
const FIRST_LOOK_PATIENCE: Duration = Duration::from_secs(30);

fn start_volumes(
    config: &AgentConfig,
    data: &DataDir,
    cgroup_parent: &str,
    events: mpsc::Sender<Event>,
) -> Result<(WorkerHandle, FirstLook), AgentError> {
    let choice = config.pool.clone();
    let dir = data.path().to_owned();
    let open = Box::new(move || pool::open(&choice, &dir));
    WorkerHandle::start(open, data.path(), cgroup_parent.to_owned(), events).map_err(|source| {
        AgentError::Io {
            action: "start the thread of volumes".to_owned(),
            source,
        }
    })
}

async fn open_network(
    config: &AgentConfig,
    topology: &Topology,
    name_servers: &[Ipv4Addr],
    found: &[FoundContainer],
) -> Result<NetworkHandle, AgentError> {
    let subnet = Ipv4Subnet::new(topology.subnet.0, topology.subnet.1)?;
    let range = Ipv4Subnet::new(topology.range.0, topology.range.1)?;
    let mut net = NetConfig::new(config.instance.clone(), subnet, range);
    net.resolvers = name_servers.to_vec();
    let living = || found.iter().filter(|one| one.keeper.is_some());
    let adopted = living().filter_map(|one| {
        Some(Adopted {
            slot: one.stored.slot.clone(),
            ip: one.stored.record.ip?,
        })
    });
    let network = NetworkHandle::open(net, adopted.collect()).await?;
    let allowed = living().flat_map(|one| {
        let to = one.stored.record.ip;
        let from = one.stored.record.allowed_from.iter();
        from.filter_map(move |(_, from)| {
            Some(Pair {
                from: *from,
                to: to?,
            })
        })
    });
    network.replace_allowed(allowed.collect()).await?;
    Ok(network)
}

/// The host's name servers that a container can reach; if it has none such (a stub on loopback),
/// the ones behind it; else public ones, as Docker does.
fn name_servers() -> Vec<Ipv4Addr> {
    let files = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
    let found = files.iter().map(|path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        parse_name_servers(&text)
    });
    let first = found.into_iter().find(|servers| !servers.is_empty());
    first.unwrap_or_else(|| vec![Ipv4Addr::new(1, 1, 1, 1), Ipv4Addr::new(8, 8, 8, 8)])
}

fn parse_name_servers(text: &str) -> Vec<Ipv4Addr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok())
        .filter(|ip: &Ipv4Addr| !ip.is_loopback() && !ip.is_unspecified())
        .take(3)
        .collect()
}

impl Agent {
    fn adopt(&mut self, one: FoundContainer) {
        let FoundContainer {
            stored,
            found,
            keeper,
            log_end,
        } = one;
        let container = stored.record.container;
        let mut entry = Entry::default();
        let mut processes = Vec::new();
        let mut ended = Vec::new();
        let mut readers = Vec::new();
        match keeper {
            Some((keeper, hello)) => {
                (processes, ended) = adopt_processes(container, &mut entry, &hello);
                readers.extend(hello.processes.iter().flat_map(|one| one.readers.iter()));
                if let Some(ip) = stored.record.ip {
                    let net = self.slot_net(stored.slot.clone(), ip);
                    let gone = watch_keeper(&self.yard, container, &keeper);
                    let known = self.yard.data.container(container).layers();
                    entry.sandbox = Some(Sandbox {
                        keeper,
                        net,
                        gone,
                        layers: std::sync::Arc::new(self.yard.layers.pin_found(known)),
                    });
                }
            }
            None => {
                let mut progress = ProcessProgress {
                    stdin_closed: true,
                    ..Default::default()
                };
                if let Found::Exited { termination, .. } = found {
                    progress.log = LogProgress {
                        end: log_end,
                        ended: Some(termination),
                    };
                }
                entry.add_found(container.main_process(), progress);
            }
        }
        entry.process(container.main_process());
        self.table.insert(container, entry);
        tracing::info!(%container, ?found, "taken over");
        self.core.adopt(stored.record, found, &processes, &readers);
        for input in ended {
            self.input(input);
        }
    }

    fn slot_net(
        &self,
        slot: crate::sys::names::SlotName,
        ip: Ipv4Addr,
    ) -> crate::sys::net::SlotNet {
        let veth = self.yard.network.config().veth(ip);
        crate::sys::net::SlotNet { slot, ip, veth }
    }
}

/// What the keeper's processes are; and those ends that nobody was there to hear.
fn adopt_processes(
    container: ContainerId,
    entry: &mut Entry,
    hello: &KeeperHello,
) -> (Vec<ProcessId>, Vec<Input>) {
    let mut processes = Vec::new();
    let mut ended = Vec::new();
    for process in &hello.processes {
        let progress = ProcessProgress {
            log: LogProgress {
                end: process.log_end,
                ended: None,
            },
            stdin_consumed: process.stdin_consumed,
            stdin_closed: false,
        };
        entry.add_found(process.id, progress);
        let is_main = process.id == container.main_process();
        if !is_main {
            processes.push(process.id);
        }
        if let Some(exit) = process.exit {
            let end: ProcessEnd = process_end(exit);
            ended.push(if is_main {
                Input::Exited { container, end }
            } else {
                Input::ProcessEnded {
                    container,
                    process: process.id,
                    end,
                }
            });
        }
    }
    (processes, ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_name_servers_that_a_container_reaches_count() {
        let text = "# x\nnameserver 127.0.0.53\nnameserver 10.0.0.2 \nnameserver ::1\n\
                    options edns0\nnameserver 9.9.9.9\n";
        assert_eq!(
            parse_name_servers(text),
            [Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(9, 9, 9, 9)]
        );
    }
}
