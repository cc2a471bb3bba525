//! `teu-node`: the agent of one machine.
//!
//! Owner: systemd, or `teu dev`. Invariant: the hidden subcommands `launcher` and `unpack` are
//! dispatched before any thread exists: keepers are forked from the one, the other confines itself.

use std::{net::Ipv4Addr, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use miette::{IntoDiagnostic, WrapErr, miette};
use teu_daemon::log;
use teu_node::{
    agent::{self, AgentConfig, Ended},
    purge,
    state::{DataDir, load_or_make_key},
    sys::{names::InstanceName, oom},
    volumes::pool::PoolChoice,
};
use teu_protocol::{ids::PublicKey, noise::LocationIdentity};

/// Runs containers for a TEU location.
#[derive(Debug, Parser)]
#[command(name = "teu-node", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Connect to a location's master and run what it orders.
    Run {
        /// Where the master listens.
        #[arg(long, value_name = "HOST:PORT")]
        master: String,
        /// The location's name.
        #[arg(long, value_name = "NAME")]
        fqdn: String,
        /// The location's public key.
        #[arg(long, value_name = "BASE64")]
        master_key: PublicKey,
        /// The serial number of the location's DNS record.
        #[arg(long, value_name = "N", default_value_t = 1)]
        serial: u64,
        /// Where the node keeps its key, layers and containers.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Tells several nodes on one machine apart: up to 8 of a-z and 0-9.
        #[arg(long, value_name = "NAME", default_value_t)]
        instance: InstanceName,
        /// How people call this node [default: the host's name].
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Where volumes lie: `auto` (a file in the data directory that grows, with btrfs in it),
        /// `none`, a directory on a btrfs, `loop:/a/file`, or `zfs:pool/dataset`.
        #[arg(long, value_name = "POOL", env = "TEU_POOL", default_value_t)]
        pool: PoolChoice,
        /// Sandboxes to keep prepared, so that a spawn takes milliseconds.
        #[arg(long, value_name = "N", default_value_t = 4)]
        slots: usize,
    },
    /// Print the node's public key, to be enrolled at the master. Makes the key on first use.
    PublicKey {
        /// Where the node keeps its key.
        #[arg(long, value_name = "DIR", default_value = "/var/lib/teu/node")]
        data: PathBuf,
    },
    /// Destroy everything that a stopped node has left on this machine, its data included.
    Purge {
        /// Only end and remove what lives: containers, bridge, firewall table, control groups.
        #[arg(long)]
        keep_data: bool,
        /// Where volumes lie: the loop device of that file is given back, the file stays.
        #[arg(long, value_name = "POOL", default_value_t)]
        pool: PoolChoice,
        /// Which node.
        #[arg(long, value_name = "NAME", default_value_t)]
        instance: InstanceName,
        /// Where it keeps its key, layers and containers.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
}

/// One for the event loop and what it wakes, one for bulk.
const WORKERS: usize = 2;

/// Whatever whoever starts this has: nothing that is made here can be written by others.
const UMASK: u32 = 0o022;

fn main() -> ExitCode {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(UMASK));
    match std::env::args_os().nth(1) {
        Some(verb) if verb == "launcher" => return teu_node::launcher::main(),
        Some(verb) if verb == "unpack" => {
            return teu_node::layers::unpack::main(&std::env::args().nth(2).unwrap_or_default());
        }
        _ => {}
    }
    match perform(Cli::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(report) => {
            log::say(format_args!("{report:?}"));
            ExitCode::FAILURE
        }
    }
}

fn perform(verb: Verb) -> miette::Result<()> {
    match verb {
        Verb::PublicKey { data } => {
            let data = DataDir::open(&data).into_diagnostic()?;
            let key = load_or_make_key(&data).into_diagnostic()?;
            print_line(&key.public().to_string())
        }
        Verb::Purge {
            keep_data,
            pool,
            instance,
            data,
        } => {
            let kept = match keep_data {
                true => purge::Data::Keep,
                false => purge::Data::Remove { pool },
            };
            runtime()?
                .block_on(purge::run(&instance, &data, &kept))
                .into_diagnostic()
        }
        Verb::Run {
            master,
            fqdn,
            master_key,
            serial,
            data,
            instance,
            name,
            pool,
            slots,
        } => {
            log::start(false);
            #[cfg(feature = "failpoints")]
            let _failpoints = failpoints();
            #[cfg(not(feature = "failpoints"))]
            teu_daemon::tasks::end_on_panic();
            let location = LocationIdentity::new(&fqdn, master_key, serial).into_diagnostic()?;
            let name = name.unwrap_or_else(host_name);
            let config = AgentConfig {
                master,
                location,
                data,
                instance,
                name,
                pool,
                slots,
            };
            check_root()?;
            if let Err(error) = oom::protect(oom::DAEMON) {
                tracing::warn!(
                    "the kernel may kill the node before containers when memory runs out: {error}"
                );
            }
            raise_file_limit();
            let runtime = runtime()?;
            while runtime
                .block_on(agent::run(&config))
                .into_diagnostic()
                .wrap_err("the node cannot run")?
                == Ended::Restart
            {
                tracing::info!("beginning again with other addresses");
            }
            Ok(())
        }
    }
}

/// Reads FAILPOINTS. `name=panic` there ends the process as `kill -9` does: nothing is unwound.
#[cfg(feature = "failpoints")]
fn failpoints() -> fail::FailScenario<'static> {
    use rustix::process::{Signal, getpid, kill_process};
    std::panic::set_hook(Box::new(|panic| {
        log::say(format_args!("{panic}"));
        let _ = kill_process(getpid(), Signal::KILL);
        std::process::abort();
    }));
    fail::FailScenario::setup()
}

fn runtime() -> miette::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(16)
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .enable_all()
        .build()
        .into_diagnostic()
}

fn check_root() -> miette::Result<()> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err(miette!(
            help = "start it with sudo, or as a systemd service",
            "teu-node must run as root: it makes namespaces, cgroups and firewall rules"
        ))
    }
}

/// A tunnel is a file, and so is a keeper's socket: the soft limit is often 1024. Containers get theirs
/// from their keepers.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if setrlimit(Resource::Nofile, limit).is_err() {
        tracing::warn!("failed to raise the limit of open files: few connections can be carried");
    }
}

fn host_name() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    if name.is_empty() {
        Ipv4Addr::LOCALHOST.to_string()
    } else {
        name
    }
}

fn print_line(text: &str) -> miette::Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{text}").into_diagnostic()
}
