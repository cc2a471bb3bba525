//! `teu-master`: a location's master.
//!
//! Parses, starts a [`Server`], waits for a signal, shuts down. Next: `server.rs` of the library.

mod oom;
mod ready;

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use clap::{Args, Parser, Subcommand};
use miette::{Context as _, IntoDiagnostic as _, miette};
use rustix::process::{Resource, getrlimit, setrlimit};
use teu_daemon::log;
#[cfg(not(feature = "failpoints"))]
use teu_daemon::tasks;
use teu_master::{AdmissionLimits, Bootstrap, Config, Server, load_or_create_key};
use tokio::signal::unix::{SignalKind, signal};

/// The master of a TEU location: broker, image cache, network manager.
///
/// Runs in the foreground until SIGTERM or SIGINT; prints one line when it is ready. Its key, its
/// records and the layers are in the data directory.
#[derive(Debug, Parser)]
#[command(
    name = "teu-master",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Prints the location's public key, making the key if there is none
    #[command(visible_alias = "show-key")]
    PublicKey {
        #[command(flatten)]
        data: Data,
    },
    /// Makes the location's key if there is none, and prints its public half
    Keygen {
        #[command(flatten)]
        data: Data,
    },
}

#[derive(Debug, Args)]
struct Data {
    /// Directory of the key, the records and the layers
    #[arg(long = "data", value_name = "DIR", env = "TEU_MASTER_DATA")]
    path: PathBuf,
}

#[derive(Debug, Args)]
struct Run {
    /// Address and port to listen on
    #[arg(
        long,
        value_name = "ADDR:PORT",
        default_value = "0.0.0.0:5555",
        env = "TEU_MASTER_LISTEN"
    )]
    listen: SocketAddr,
    /// Directory of the key, the records and the layers
    // An Option because a subcommand lifts the requirement.
    #[arg(long, value_name = "DIR", env = "TEU_MASTER_DATA", required = true)]
    data: Option<PathBuf>,
    /// The location's DNS name; clients and nodes must use the same
    #[arg(long, value_name = "NAME", env = "TEU_MASTER_FQDN", required = true)]
    fqdn: Option<String>,
    /// Serial number of the location's key; clients and nodes must use the same
    #[arg(long, value_name = "N", default_value_t = 1, env = "TEU_MASTER_SERIAL")]
    serial: u64,
    /// Addresses for containers; each node gets a subnet of it
    #[arg(long, value_name = "NET/LEN", default_value = "10.77.0.0/16", value_parser = parse_range,
          env = "TEU_MASTER_RANGE")]
    range: (Ipv4Addr, u8),
    /// Length in bits of the subnets that nodes get from now on, 16 to 24: a /20 has 4093 addresses, a /24 has 253.
    /// A node has at most 960 containers
    #[arg(long = "node-subnet", value_name = "BITS", default_value_t = teu_master_core::subnet::DEFAULT,
          value_parser = clap::value_parser!(u8).range(16..=24), env = "TEU_MASTER_NODE_SUBNET")]
    node_prefix: u8,
    /// JSON file of accounts and nodes to enrol at the start
    #[arg(long, value_name = "FILE", env = "TEU_MASTER_BOOTSTRAP")]
    bootstrap: Option<PathBuf>,
    /// File to write the listening address to when ready
    #[arg(long, value_name = "FILE", env = "TEU_MASTER_READY_FILE")]
    ready_file: Option<PathBuf>,
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = AdmissionLimits::default().connections,
          env = "TEU_MASTER_CONNECTIONS")]
    connections: usize,
}

fn parse_range(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let expected = || format!("`{text}` is not like 10.77.0.0/16, with 8 to 24 bits");
    let (address, length) = text.split_once('/').ok_or_else(expected)?;
    let address: Ipv4Addr = address.parse().map_err(|_| expected())?;
    let length: u8 = length.parse().map_err(|_| expected())?;
    let outside = u32::MAX.checked_shr(u32::from(length)).unwrap_or_default();
    if !(8..=24).contains(&length) || u32::from(address) & outside != 0 {
        return Err(expected());
    }
    Ok((address, length))
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

fn main() -> miette::Result<()> {
    // Reads FAILPOINTS; held until the end.
    #[cfg(feature = "failpoints")]
    let _failpoints = failpoints();
    let cli = Cli::parse();
    // Whatever whoever starts this has: nothing that is made here can be written by others.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    log::start(true);
    match cli.verb {
        Some(Verb::PublicKey { data } | Verb::Keygen { data }) => print_key(&data.path),
        None => {
            #[cfg(not(feature = "failpoints"))]
            tasks::end_on_panic();
            raise_file_limit();
            if let Err(error) = oom::protect() {
                tracing::warn!(%error, "the kernel may kill the master early when memory runs out");
            }
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build();
            runtime.into_diagnostic()?.block_on(serve(cli.run))
        }
    }
}

fn print_key(data: &Path) -> miette::Result<()> {
    let key = load_or_create_key(data).into_diagnostic()?;
    say(&key.public().to_string())
}

fn say(line: &str) -> miette::Result<()> {
    writeln!(std::io::stdout(), "{line}").into_diagnostic()
}

async fn serve(run: Run) -> miette::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).into_diagnostic()?;
    let mut interrupt = signal(SignalKind::interrupt()).into_diagnostic()?;
    let bootstrap = run
        .bootstrap
        .as_deref()
        .map(Bootstrap::read)
        .transpose()
        .into_diagnostic()?;
    let needed = || miette!("--data and --fqdn are needed; see `teu-master --help`");
    let (data, fqdn) = run.data.zip(run.fqdn).ok_or_else(needed)?;
    let mut config = Config::new(run.listen, data, fqdn.clone());
    config.serial = run.serial;
    config.range = run.range;
    config.node_prefix = run.node_prefix;
    config.bootstrap = bootstrap.unwrap_or_default();
    config.admission.connections = run.connections;
    let mut server = Box::pin(Server::start(config))
        .await
        .into_diagnostic()
        .wrap_err("the master cannot start")?;
    tell_ready(&server, &fqdn, run.ready_file.as_deref())?;
    let outcome = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        failed = server.failed() => failed.into_diagnostic().wrap_err("the master cannot go on"),
    };
    tracing::info!("stopping");
    let _ = ready::notify_systemd("STOPPING=1");
    server.shutdown().await;
    outcome
}

fn tell_ready(server: &Server, fqdn: &str, file: Option<&Path>) -> miette::Result<()> {
    let (address, key) = (server.local_addr(), server.public_key());
    if let Some(file) = file {
        ready::write_file(file, address)
            .into_diagnostic()
            .wrap_err("cannot write --ready-file")?;
    }
    if let Err(error) = ready::notify_systemd("READY=1") {
        tracing::warn!(%error, "systemd could not be told");
    }
    tracing::info!(%address, %fqdn, "ready");
    if let Err(error) = say(&format!("ready {address} {fqdn} {key}")) {
        tracing::warn!("standard output cannot be written: {error}");
    }
    Ok(())
}

/// A connection is a file: the soft limit is often 1024.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if setrlimit(Resource::Nofile, limit).is_err() {
        tracing::warn!("the limit of open files could not be raised");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
        let run = Cli::try_parse_from(["teu-master", "--data", "d", "--fqdn", "dev.localhost"]);
        assert!(run.is_ok_and(|cli| cli.run.fqdn.is_some()));
        assert!(Cli::try_parse_from(["teu-master", "--data", "d"]).is_err());
        let key = Cli::try_parse_from(["teu-master", "public-key", "--data", "d"]).unwrap();
        assert!(matches!(key.verb, Some(Verb::PublicKey { .. })));
    }

    #[test]
    fn a_range_is_a_network() {
        assert_eq!(
            parse_range("10.77.0.0/16"),
            Ok((Ipv4Addr::new(10, 77, 0, 0), 16))
        );
        for bad in [
            "10.77.0.0",
            "10.77.0.1/16",
            "10.0.0.0/7",
            "10.0.0.0/25",
            "x/16",
            "10.0.0.0/99",
        ] {
            assert!(parse_range(bad).is_err(), "{bad}");
        }
    }
}
