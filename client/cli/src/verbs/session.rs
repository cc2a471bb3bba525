//! `teu session …`: the account's sessions.

use std::process::ExitCode;

use clap::Subcommand;
use teu::SessionInfo;

use crate::{
    args::{Format, Globals, Listing},
    failure::{Failure, Usage},
    output,
};

/// Verbs of `teu session`.
#[derive(Debug, Subcommand)]
pub(crate) enum SessionVerb {
    /// List sessions
    Ls(Listing),
    /// End sessions: everything in them is destroyed
    End {
        /// Names or ids
        #[arg(required = true)]
        sessions: Vec<String>,
    },
}

/// Runs `teu session …`.
pub(crate) async fn run(globals: &Globals, verb: SessionVerb) -> Result<ExitCode, Failure> {
    let location = super::connect(globals, "session").await?;
    let sessions = location.sessions().list().await?;
    match verb {
        SessionVerb::Ls(listing) => {
            location.close().await;
            print(&sessions, listing)?;
        }
        SessionVerb::End { sessions: wanted } => {
            for name in &wanted {
                let found = sessions.iter().find(|session| is_named(session, name));
                let session = found.ok_or_else(|| {
                    Usage::new(
                        format!("the account has no session `{name}`"),
                        "`teu session ls` lists them",
                    )
                })?;
                location.sessions().end(session.id).await?;
                output::line(name)?;
            }
            location.close().await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn is_named(session: &SessionInfo, wanted: &str) -> bool {
    session
        .name
        .as_ref()
        .is_some_and(|name| name.as_str() == wanted)
        || (wanted.len() >= 4 && session.id.to_string().starts_with(wanted))
}

fn print(sessions: &[SessionInfo], listing: Listing) -> Result<(), Failure> {
    match (listing.quiet, listing.format) {
        (true, _) => sessions
            .iter()
            .try_for_each(|one| output::line(&one.id.to_string())),
        (false, Format::Json) => output::json(&sessions),
        (false, Format::Table) => {
            let rows = sessions.iter().map(|one| {
                vec![
                    one.name
                        .as_ref()
                        .map_or_else(|| "-".to_owned(), ToString::to_string),
                    one.id.short(),
                    one.attachments.to_string(),
                    one.containers.to_string(),
                    format!("{} ago", output::ago(one.created_ms)),
                ]
            });
            let header = ["NAME", "ID", "CONNECTED", "CONTAINERS", "CREATED"];
            output::table(&header, rows.collect())
        }
    }
}
