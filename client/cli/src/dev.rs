//! `teu dev`: a one-machine location. Master and node run as child processes of a supervisor.
//!
//! ```text
//! teu dev            supervises in the foreground until Ctrl-C
//! teu dev --detach   starts `teu dev` in the background and waits until the node is in the offer
//! teu dev --stop     ends everything: containers, node, master, network
//! teu dev --purge    and removes the data as well
//! ```
//! Invariant: what the supervisor started, it ends; what crashes, it starts again.

mod error;
mod layout;
mod settle;
mod stop;
mod supervise;

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
pub(crate) use error::DevError;
use layout::Layout;

use crate::{args::Globals, failure::Failure, output};

/// Arguments of `teu dev`.
#[derive(Debug, Args)]
#[command(after_help = "\
The location is called `dev`, unless --name says otherwise, and becomes the default location if
there is none yet. Needs root: containers need namespaces, a bridge and a firewall table.")]
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
    /// What to call the location
    #[arg(long, default_value = "dev")]
    name: String,
    /// The TCP port of the master, on 127.0.0.1
    #[arg(long, default_value_t = 5555)]
    port: u16,
    /// Where data is kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/teu")]
    data: PathBuf,
    /// Prefix of the bridge, the firewall table and the cgroups: locations on one machine need
    /// different ones
    #[arg(long, default_value = "teu")]
    instance: String,
    /// Addresses for containers
    #[arg(long, default_value = "10.77.0.0/16", value_name = "SUBNET")]
    range: String,
    /// Where the node keeps volumes; default: auto, a btrfs in a file among the data
    #[arg(long, value_name = "auto|none|DIR|loop:FILE|zfs:DATASET", value_parser = pool)]
    pool: Option<String>,
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
    let layout = Layout::new(globals, &args)?;
    if args.stop || args.purge {
        stop::stop(globals, &layout, args.purge).await?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.detach {
        settle::detach(globals, &layout).await?;
        output::note(&format!(
            "location `{}` is ready; try: teu resources",
            layout.name
        ));
        return Ok(ExitCode::SUCCESS);
    }
    supervise::foreground(globals, &layout).await?;
    Ok(ExitCode::SUCCESS)
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
