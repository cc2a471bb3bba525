//! `teu inspect`: all about containers, as JSON.

use std::process::ExitCode;

use clap::Args;

use crate::{args::Globals, failure::Failure, json, output};

/// Arguments of `teu inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Accepted for symmetry: the output is always JSON
    #[arg(long, value_parser = ["json"], default_value = "json", hide = true)]
    format: String,
    /// Names or ids
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Runs `teu inspect`.
pub(crate) async fn run(globals: &Globals, args: InspectArgs) -> Result<ExitCode, Failure> {
    let location = super::connect(globals, "inspect").await?;
    let mut details = Vec::new();
    for name in &args.containers {
        let detail = super::find(globals, &location, name)
            .await?
            .detail()
            .await?;
        let row = super::ps::row_of(globals, &location, detail.info.clone());
        details.push((row, detail));
    }
    location.close().await;
    let all: Vec<json::Inspected<'_>> = details
        .iter()
        .map(|(row, detail)| json::Inspected::new(row.json(), detail))
        .collect();
    output::json(&all)?;
    Ok(ExitCode::SUCCESS)
}
