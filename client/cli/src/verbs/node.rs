//! `teu node …`: which machines may be nodes of the location.

use std::process::ExitCode;

use clap::Subcommand;
use teu::PublicKey;

use crate::{args::Globals, failure::Failure, output};

/// Verbs of `teu node`.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// Let a machine's agent connect as a node (for administrators); prints the node's id
    Enrol {
        /// Its public key (base64), as `teu-node public-key` prints it there
        key: PublicKey,
        /// A name for people, such as the machine's
        #[arg(long, value_name = "NAME")]
        name: String,
    },
}

/// Runs `teu node …`.
pub(crate) async fn run(globals: &Globals, verb: NodeVerb) -> Result<ExitCode, Failure> {
    let NodeVerb::Enrol { key, name } = verb;
    let location = super::connect(globals, "node enrol").await?;
    let id = location.enrol_node(key, name).await?;
    location.close().await;
    output::line(&id.to_string())?;
    Ok(ExitCode::SUCCESS)
}
