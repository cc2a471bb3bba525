//! `teu ps`: the session's containers.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use teu::{ContainerInfo, ContainerState, NodeOffer, NodeState, VolumeInfo, VolumeMount};

use crate::{
    args::{Format, Globals, Listing},
    failure::Failure,
    output,
    published::{self, Published},
};

/// Arguments of `teu ps`.
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Also those that have exited
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    listing: Listing,
}

/// A container as `--format json` prints it: the location's own record, and this machine's ports.
#[derive(Debug, Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    info: &'a ContainerInfo,
    node_name: &'a str,
    /// The node's link is down: the state is the one that was last heard.
    node_lost: bool,
    ports: Vec<String>,
    mounts: Vec<String>,
}

/// Runs `teu ps`.
pub(crate) async fn run(globals: &Globals, args: PsArgs) -> Result<ExitCode, Failure> {
    let location = super::connect(globals, "ps").await?;
    let mut containers = location.containers();
    let nodes = location.nodes();
    let volumes = location.volumes();
    location.close().await;
    containers.retain(|info| args.all || !matches!(info.state, ContainerState::Exited { .. }));
    containers.sort_by_key(|info| std::cmp::Reverse(info.created_ms));
    let published = published::all(globals);
    let rows: Vec<Row<'_>> = containers
        .iter()
        .map(|info| row(info, &nodes, &volumes, &published))
        .collect();
    match (args.listing.quiet, args.listing.format) {
        (true, _) => rows
            .iter()
            .try_for_each(|row| output::line(&row.info.id.to_string()))?,
        (false, Format::Json) => output::json(&rows)?,
        (false, Format::Table) => {
            let header = [
                "NAME", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "IP", "NODE", "PORTS",
                "VOLUMES",
            ];
            output::table(&header, rows.iter().map(cells).collect())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row<'a>(
    info: &'a ContainerInfo,
    nodes: &'a [NodeOffer],
    volumes: &[VolumeInfo],
    published: &[Published],
) -> Row<'a> {
    let node = nodes.iter().find(|node| node.id == info.node);
    Row {
        info,
        node_name: node.map_or("", |node| node.name.as_str()),
        node_lost: node.is_some_and(|node| node.state == NodeState::Lost),
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
    }
}

/// As `-v` is written.
fn mounted(mount: &VolumeMount, volumes: &[VolumeInfo]) -> String {
    let volume = volumes.iter().find(|volume| volume.id == mount.volume);
    let name = volume.map_or_else(|| mount.volume.short(), super::volume::name);
    let read_only = if mount.read_only { ":ro" } else { "" };
    format!("{name}:{}{read_only}", mount.path)
}

fn cells(row: &Row<'_>) -> Vec<String> {
    vec![
        row.info
            .tag
            .as_ref()
            .map_or_else(|| "-".to_owned(), ToString::to_string),
        row.info.id.short(),
        row.info.image_name.clone(),
        shortened(&row.info.command.join(" ")),
        format!("{} ago", output::ago(row.info.created_ms)),
        told(&row.info.state, row.node_lost),
        row.info
            .ip
            .map_or_else(|| "-".to_owned(), |ip| ip.to_string()),
        row.node_name.to_owned(),
        row.ports.join(", "),
        row.mounts.join(", "),
    ]
}

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

/// At most 30 characters, and no control characters: it is the program's own text.
fn shortened(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(31)
        .collect();
    match clean.char_indices().nth(30) {
        Some((at, _)) => format!("{}…", &clean[..at]),
        None => clean,
    }
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
        assert_eq!(shortened("a\x1b[2Jb\nc"), "a [2Jb c");
        assert_eq!(shortened(&"é".repeat(40)), format!("{}…", "é".repeat(30)));
    }
}
