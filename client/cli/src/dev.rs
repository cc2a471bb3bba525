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
    /// Stop it and remove its data (images, logs, keys of master and node)
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
