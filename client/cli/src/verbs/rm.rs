//! `teu rm`: remove containers and all that they hold.

use std::process::ExitCode;

use clap::Args;
use teu::ContainerState;

use crate::{
    args::Globals,
    failure::{Failure, Usage},
};

/// Arguments of `teu rm`.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Also if it is running
    #[arg(short, long)]
    force: bool,
    /// Names or ids
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Runs `teu rm`.
pub(crate) async fn run(globals: &Globals, args: RmArgs) -> Result<ExitCode, Failure> {
    let location = super::connect(globals, "rm").await?;
    let code = super::for_each(
        globals,
        &location,
        &args.containers,
        |container| async move {
            let running = matches!(container.info().state, ContainerState::Running { .. });
            if running && !args.force {
                let id = container.id().short();
                return Err(Usage::new(
                    format!("container {id} is running"),
                    format!("stop it first (`teu stop {id}`), or use `teu rm -f {id}`"),
                )
                .into());
            }
            container.destroy().await?;
            Ok(())
        },
    )
    .await;
    location.close().await;
    code
}
