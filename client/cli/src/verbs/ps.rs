//! `teu ps`: the session's containers.

use std::process::ExitCode;

use clap::Args;
use teu::{ContainerInfo, ContainerState, Location, NodeOffer, NodeState, VolumeInfo, VolumeMount};

mod filter;

use filter::Filter;

use crate::{
    args::{Format, Globals, Listing},
    failure::Failure,
    json, output,
    published::{self, Published},
};

/// Arguments of `teu ps`.
#[derive(Debug, Args)]
#[command(after_help = "\
Filters: name=TEXT (part of it), id=PREFIX, status=STATE (requested, preparing, asleep, running, exited),
exited=CODE, label=KEY[=VALUE], ancestor=IMAGE, node=NAME, volume=NAME, session=NAME. Of one kind any may fit, of
several kinds all must.")]
pub(crate) struct PsArgs {
    /// Also those that have exited
    #[arg(short, long)]
    all: bool,
    /// Only those that fit
    #[arg(short, long, value_name = "KIND=VALUE")]
    filter: Vec<Filter>,
    /// Only the newest, whether or not it has exited
    #[arg(short, long, conflicts_with = "last")]
    latest: bool,
    /// Only the newest ones, whether or not they have exited
    #[arg(short = 'n', long, value_name = "COUNT")]
    last: Option<usize>,
    /// Ids and commands in full
    #[arg(long)]
    no_trunc: bool,
    /// Those of all of the account's named sessions
    #[arg(long)]
    all_sessions: bool,
    #[command(flatten)]
    listing: Listing,
}

/// A container with what its record does not tell.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) info: ContainerInfo,
    pub(super) session: String,
    pub(super) node_name: String,
    /// The node's link is down: the state is the one that was last heard.
    pub(super) node_lost: bool,
    ports: Vec<String>,
    pub(super) mounts: Vec<String>,
}

impl Row {
    /// As JSON.
    pub(super) fn json(&self) -> json::Container<'_> {
        json::Container::new(
            &self.info,
            &self.session,
            &self.node_name,
            &self.ports,
            &self.mounts,
        )
        .on_lost_node(self.node_lost)
    }
}

/// Runs `teu ps`.
pub(crate) async fn run(globals: &Globals, args: PsArgs) -> Result<ExitCode, Failure> {
    let location = super::connect(globals, "ps").await?;
    let mut rows = rows(globals, &location);
    if args.all_sessions {
        let others = super::other_sessions(globals, &location, "ps").await;
        for other in others? {
            rows.extend(self::rows(globals, &other));
            other.close().await;
        }
    }
    location.close().await;
    let newest = args.last.or(args.latest.then_some(1));
    let asks_for_ended = args.filter.iter().any(Filter::is_about_state);
    let all = args.all || newest.is_some() || asks_for_ended;
    rows.retain(|row| {
        let shown = all || !matches!(row.info.state, ContainerState::Exited { .. });
        shown && filter::fits(&args.filter, row)
    });
    rows.sort_by_key(|row| std::cmp::Reverse(row.info.created_ms));
    rows.truncate(newest.unwrap_or(usize::MAX));
    print(&rows, &args)?;
    Ok(ExitCode::SUCCESS)
}

fn print(rows: &[Row], args: &PsArgs) -> Result<(), Failure> {
    match (args.listing.quiet, args.listing.format) {
        (true, _) => rows
            .iter()
            .try_for_each(|row| output::line(&row.info.id.to_string())),
        (false, Format::Json) => output::json(&rows.iter().map(Row::json).collect::<Vec<_>>()),
        (false, Format::Table) => {
            let mut columns = vec!["NAME", "ID", "IMAGE", "COMMAND", "STATUS", "NODE"];
            // What nobody has takes no room.
            let optional: [(&str, bool); 4] = [
                ("SESSION", args.all_sessions),
                ("PORTS", rows.iter().any(|row| !row.ports.is_empty())),
                ("VOLUMES", rows.iter().any(|row| !row.mounts.is_empty())),
                ("IP", args.no_trunc),
            ];
            let shown = optional.iter().filter(|(_, shown)| *shown);
            columns.extend(shown.map(|(name, _)| *name));
            let cells = |row: &Row| -> Vec<String> {
                columns.iter().map(|name| cell(row, name, args)).collect()
            };
            output::table(&columns, rows.iter().map(cells).collect())
        }
    }
}

/// The containers of a connection's session.
fn rows(globals: &Globals, location: &Location) -> Vec<Row> {
    let (nodes, volumes) = (location.nodes(), location.volumes());
    let published = published::all(globals);
    let containers = location.containers().into_iter();
    containers
        .map(|info| row(info, location, &nodes, &volumes, &published))
        .collect()
}

/// One container of a connection's session.
pub(super) fn row_of(globals: &Globals, location: &Location, info: ContainerInfo) -> Row {
    let (nodes, volumes) = (location.nodes(), location.volumes());
    row(info, location, &nodes, &volumes, &published::all(globals))
}

fn row(
    info: ContainerInfo,
    location: &Location,
    nodes: &[NodeOffer],
    volumes: &[VolumeInfo],
    published: &[Published],
) -> Row {
    let node = nodes.iter().find(|node| node.id == info.node);
    let session = location.session_name();
    Row {
        node_lost: node.is_some_and(|node| node.state == NodeState::Lost),
        session: session.map(ToString::to_string).unwrap_or_default(),
        node_name: node.map(|node| node.name.clone()).unwrap_or_default(),
        ports: published
            .iter()
            .filter(|published| published.container == info.id)
            .map(|published| format!("{}->{}", published.local, published.port))
            .collect(),
        mounts: info
            .volumes
            .iter()
            .map(|mount| mounted(mount, volumes))
            .collect(),
        info,
    }
}

/// As `-v` is written.
fn mounted(mount: &VolumeMount, volumes: &[VolumeInfo]) -> String {
    let volume = volumes.iter().find(|volume| volume.id == mount.volume);
    let name = volume.map_or_else(|| mount.volume.short(), super::volume::name);
    let read_only = if mount.read_only { ":ro" } else { "" };
    format!("{name}:{}{read_only}", mount.path)
}

fn cell(row: &Row, column: &str, args: &PsArgs) -> String {
    let info = &row.info;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    match column {
        "NAME" => or_dash(info.tag.as_ref().map(ToString::to_string)),
        "ID" if args.no_trunc => info.id.to_string(),
        "ID" => info.id.short(),
        "IMAGE" if args.no_trunc => info.image_name.clone(),
        "IMAGE" => shortened(&info.image_name, SHORT),
        "COMMAND" if args.no_trunc => clean(&info.command.join(" ")),
        "COMMAND" => shortened(&info.command.join(" "), SHORT),
        "STATUS" => told(&info.state, row.node_lost),
        "NODE" => row.node_name.clone(),
        "SESSION" => row.session.clone(),
        "PORTS" => row.ports.join(", "),
        "VOLUMES" => row.mounts.join(", "),
        _ => or_dash(info.ip.map(|ip| ip.to_string())),
    }
}

/// Letters of a column that may be long: with these a line has 80, if names are short.
const SHORT: usize = 16;

/// A state in words, and whether it is only what was last heard. An end stays what it is.
fn told(state: &ContainerState, node_lost: bool) -> String {
    match state {
        ContainerState::Exited { .. } | ContainerState::Destroyed => status(state),
        _ if node_lost => format!("node lost, was {}", status(state)),
        _ => status(state),
    }
}

/// A state in words.
pub(crate) fn status(state: &ContainerState) -> String {
    match state {
        ContainerState::Destroyed => "destroyed".to_owned(),
        ContainerState::Requested => "requested".to_owned(),
        ContainerState::Preparing => "preparing".to_owned(),
        ContainerState::Asleep => "asleep".to_owned(),
        ContainerState::Running { since_ms } => format!("up {}", output::ago(*since_ms)),
        ContainerState::Exited { termination, at_ms } => {
            format!(
                "exited ({}) {} ago",
                termination.status.shell_code(),
                output::ago(*at_ms)
            )
        }
    }
}

/// No control characters: it is the program's own text.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// The same, with at most so many letters.
fn shortened(text: &str, letters: usize) -> String {
    let clean = clean(text);
    if clean.chars().count() <= letters {
        return clean;
    }
    let kept: String = clean.chars().take(letters.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_lost_node_runs_is_not_said_to_be_up() {
        let running = ContainerState::Running { since_ms: 0 };
        assert!(told(&running, false).starts_with("up "));
        assert!(told(&running, true).starts_with("node lost, was up "));
        let ended = ContainerState::Exited {
            termination: teu::Termination {
                status: teu::ExitStatus::Code(3),
                cause: teu::Cause::Exited,
            },
            at_ms: 0,
        };
        assert!(told(&ended, true).starts_with("exited (3)"));
    }

    #[test]
    fn a_command_cannot_play_with_the_terminal() {
        assert_eq!(shortened("a\x1b[2Jb\nc", SHORT), "a [2Jb c");
        assert_eq!(clean("a\x1b[2Jb\nc"), "a [2Jb c");
        let long = shortened(&"é".repeat(40), SHORT);
        assert_eq!(long, format!("{}…", "é".repeat(SHORT - 1)));
    }
}
