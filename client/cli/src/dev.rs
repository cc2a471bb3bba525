//! `teu dev`: a one-machine location. Master and node run as child processes of a supervisor.
//!
//! ```text
//! teu dev            supervises in the foreground until Ctrl-C
//! teu dev --detach   starts `teu dev` in the background and waits until the node is in the offer
//! teu dev --stop     ends everything: containers, node, master, network
//! teu dev --purge    and removes the data as well
//! ```
//! Invariants: what the supervisor started, it ends; what crashes, it starts again. A data directory is
//! a location's only by its mark (`mark.rs`), and no two living locations of a machine share what they
//! cannot (`choose.rs`, `registry.rs`). Next: `claim.rs` for a start, `stop.rs` for the end.

mod backoff;
mod choose;
mod claim;
mod detach;
mod error;
mod layout;
mod mark;
mod processes;
mod registry;
mod settle;
mod stop;
mod supervise;
mod values;

use std::{path::PathBuf, process::ExitCode};

use choose::Wanted;
use clap::Args;
pub(crate) use error::DevError;
use layout::Layout;
use supervise::Told;
use values::{Instance, LocationName, Range};

use crate::{args::Globals, consent::Consent, failure::Failure, output};

/// Arguments of `teu dev`.
#[derive(Debug, Args)]
#[command(after_help = "\
The location is called `dev`, unless --name says otherwise, and becomes the default location if
there is none yet. Its data directory remembers name, port, instance, range and pool: later starts
need --data only, and what does not match is refused. Beside another location of this machine, what
is not given is chosen so that the two do not meet. Needs root: containers need namespaces, a bridge
and a firewall table.")]
pub(crate) struct DevArgs {
    /// Run in the background; returns when containers can be spawned
    #[arg(short, long)]
    detach: bool,
    /// Stop the location and all of its containers
    #[arg(long, conflicts_with = "detach")]
    stop: bool,
    /// Stop it and remove its data (images, logs, keys of master and node, and the
    /// volumes that lie there; a pool elsewhere stays as it is)
    #[arg(long, conflicts_with = "detach")]
    purge: bool,
    #[command(flatten)]
    consent: Consent,
    /// What to call the location [default: dev]
    #[arg(long)]
    name: Option<LocationName>,
    /// The TCP port of the master, on 127.0.0.1 [default: 5555]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Where data is kept
    #[arg(long, value_name = "DIR", default_value = layout::USUAL_DATA)]
    data: PathBuf,
    /// Prefix of the bridge, the firewall table and the cgroups: locations on one machine need
    /// different ones [default: teu]
    #[arg(long)]
    instance: Option<Instance>,
    /// Addresses for containers [default: 10.77.0.0/16]
    #[arg(long, value_name = "SUBNET")]
    range: Option<Range>,
    /// Where the node keeps volumes [default: auto, a btrfs in a file among the data]
    #[arg(long, value_name = "auto|none|DIR|loop:FILE|zfs:DATASET", value_parser = pool)]
    pool: Option<String>,
    /// For `--detach`: the supervisor itself
    #[arg(long, hide = true, conflicts_with_all = ["detach", "stop", "purge"])]
    supervised: bool,
}

/// What `teu-node run --pool` takes; a relative path means the same wherever the node runs.
fn pool(text: &str) -> Result<String, String> {
    let absolute = |path: &str| {
        std::path::absolute(path)
            .map(|path| path.display().to_string())
            .map_err(|error| error.to_string())
    };
    match text.split_once(':') {
        _ if matches!(text, "auto" | "none") => Ok(text.to_owned()),
        Some(("loop", file)) if !file.is_empty() => Ok(format!("loop:{}", absolute(file)?)),
        Some(("zfs", dataset)) if !dataset.is_empty() => Ok(text.to_owned()),
        _ if text.contains('/') => absolute(text),
        _ => {
            Err("auto, none, a directory on btrfs, loop:FILE or zfs:DATASET is expected".to_owned())
        }
    }
}

/// Runs `teu dev`.
pub(crate) async fn run(globals: &Globals, args: DevArgs) -> Result<ExitCode, Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(DevError::NotRoot.into());
    }
    let data = claim::resolved(&args.data)?;
    let wanted = Wanted {
        name: args.name,
        instance: args.instance,
        range: args.range,
        port: args.port,
        pool: args.pool,
    };
    if args.stop || args.purge {
        stop::stop(globals, &wanted, &data, args.purge, args.consent).await?;
    } else if args.supervised {
        let claim = claim::claimed(&data)?;
        supervise::supervise(globals, &claim.layout, Told::Starter).await?;
    } else {
        let home = teu::config::home(globals.home.as_deref());
        let home = std::path::absolute(&home).map_err(error::file_error("find", &home))?;
        let claim = claim::claim(&wanted, &data, home)?;
        start(globals, &claim, args.detach).await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn start(globals: &Globals, claim: &claim::Claim, detach: bool) -> Result<(), Failure> {
    let layout = &claim.layout;
    if detach {
        detach::detach(globals, claim).await?;
        output::note(&format!(
            "location `{}` is ready at {}; try: {}",
            layout.name(),
            layout.endpoint(),
            settle::client_command(globals, layout, "resources")
        ));
        return Ok(());
    }
    let told = Told::Person { new: claim.is_new };
    let outcome = supervise::supervise(globals, layout, told).await;
    if outcome.is_err() {
        stop::undo(claim).await;
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::pool;

    #[test]
    fn pools_are_named_as_the_node_takes_them() {
        for same in ["auto", "none", "/mnt/b", "loop:/big/pool", "zfs:tank/teu"] {
            assert_eq!(pool(same).as_deref(), Ok(same));
        }
        let here = std::env::current_dir().unwrap().join("p");
        assert_eq!(pool("loop:p"), Ok(format!("loop:{}", here.display())));
        assert_eq!(pool("./p"), Ok(here.display().to_string()));
        for bad in ["", "zfs:", "loop:", "btrfs", "tank"] {
            assert!(pool(bad).is_err(), "{bad}");
        }
    }
}
