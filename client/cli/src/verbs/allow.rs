//! `teu allow` and `teu disallow`: which container may connect to which.

use std::process::ExitCode;

use clap::Args;

use crate::{args::Globals, failure::Failure};

/// Arguments of both.
#[derive(Debug, Args)]
#[command(after_help = "Containers cannot reach each other unless they are allowed to.")]
pub(crate) struct AllowArgs {
    /// Who is connected to (name or id)
    to: String,
    /// Who connects (name or id)
    #[arg(long, required = true, value_name = "CONTAINER")]
    from: Vec<String>,
}

/// Runs either.
pub(crate) async fn run(
    globals: &Globals,
    args: AllowArgs,
    allowed: bool,
) -> Result<ExitCode, Failure> {
    let location = super::connect(globals, if allowed { "allow" } else { "disallow" }).await?;
    let to = super::find(globals, &location, &args.to).await?;
    for name in &args.from {
        let from = super::find(globals, &location, name).await?;
        if allowed {
            to.allow_connection_from(&from).await?;
        } else {
            to.disallow(&from).await?;
        }
    }
    location.close().await;
    Ok(ExitCode::SUCCESS)
}
