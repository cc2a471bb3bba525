//! `teu session …`: the account's sessions.

use std::process::ExitCode;

use clap::Subcommand;
use teu::{Location, SessionInfo};

use crate::{
    args::{Format, Globals, Listing},
    consent::Consent,
    failure::{Failure, Usage},
    json, output,
};

/// Verbs of `teu session`.
#[derive(Debug, Subcommand)]
pub(crate) enum SessionVerb {
    /// List sessions
    Ls(Listing),
    /// End sessions: everything in them is destroyed
    End {
        #[command(flatten)]
        consent: Consent,
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
        SessionVerb::End {
            consent,
            sessions: wanted,
        } => {
            let ended = end(&location, &sessions, &wanted, consent).await;
            location.close().await;
            ended?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn end(
    location: &Location,
    sessions: &[SessionInfo],
    wanted: &[String],
    consent: Consent,
) -> Result<(), Failure> {
    let mut found = Vec::new();
    for name in wanted {
        let session = sessions.iter().find(|session| is_named(session, name));
        let session = session.ok_or_else(|| {
            Usage::new(
                format!("the account has no session `{name}`"),
                "`teu session ls` lists them",
            )
        })?;
        found.push((name, session));
    }
    let gone: Vec<String> = found
        .iter()
        .map(|(name, session)| line_of(name, session))
        .collect();
    if consent.given(&gone)? {
        for (name, session) in found {
            location.sessions().end(session.id).await?;
            output::line(name)?;
        }
    }
    Ok(())
}

/// What goes with a session.
fn line_of(name: &str, session: &SessionInfo) -> String {
    let count =
        |count: u32, what| output::count(usize::try_from(count).unwrap_or(usize::MAX), what);
    format!(
        "  session `{name}`: {} ({} connected)",
        count(session.containers, "container"),
        count(session.attachments, "client"),
    )
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
        (false, Format::Json) => output::json(
            &sessions
                .iter()
                .map(json::SessionRow::from)
                .collect::<Vec<_>>(),
        ),
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
