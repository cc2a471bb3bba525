//! Printing volumes, their snapshots, and what they take: exact in JSON, readable in tables.

use clap::Args;
use serde::Serialize;
use teu::{Location, Volume, VolumeInfo, VolumeState, VolumeUsage};

use super::{find, name, parse::span_text, served};
use crate::{
    args::{Format, Listing},
    failure::Failure,
    json::{VolumeDetail, VolumeRow},
    output,
};

/// What the columns count.
pub(super) const BYTES: &str = "\
    SIZE, FILES: what the files take. OWN BYTES: what nothing else has, so it is free when \
    this goes; bytes that two snapshots share are in neither's. JSON has exact numbers of \
    bytes.";

/// Arguments of `teu volume usage`.
#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Names or ids
    #[arg(required = true)]
    volumes: Vec<String>,
}

/// Arguments of `teu volume inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Accepted for symmetry: the output is always JSON
    #[arg(long, value_parser = ["json"], default_value = "json", hide = true)]
    format: String,
    /// Names or ids
    #[arg(required = true)]
    volumes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Taken {
    name: String,
    id: teu::VolumeId,
    #[serde(flatten)]
    usage: VolumeUsage,
}

fn row<'a>(location: &Location, info: &'a VolumeInfo) -> VolumeRow<'a> {
    VolumeRow::new(info, node_name(location, info), users(location, info))
}

fn node_name(location: &Location, info: &VolumeInfo) -> String {
    let node = location.node(info.node);
    node.map(|node| node.name).unwrap_or_default()
}

/// The containers that have it mounted, by name, or short id if they have none or are another
/// session's.
pub(super) fn users(location: &Location, info: &VolumeInfo) -> Vec<String> {
    let containers = location.containers();
    let named = |id: &teu::ContainerId| {
        let tag = containers
            .iter()
            .find(|container| container.id == *id)
            .and_then(|container| container.tag.as_ref());
        tag.map_or_else(|| id.short(), ToString::to_string)
    };
    info.used_by.iter().map(named).collect()
}

/// `teu volume ls`.
pub(super) fn list(location: &Location, listing: Listing) -> Result<(), Failure> {
    let mut volumes = location.volumes();
    volumes.sort_by_key(|info| std::cmp::Reverse(info.created_ms));
    match (listing.quiet, listing.format) {
        (true, _) => volumes
            .iter()
            .try_for_each(|info| output::line(&info.id.to_string())),
        (false, Format::Json) => {
            let rows: Vec<_> = volumes.iter().map(|info| row(location, info)).collect();
            output::json(&rows)
        }
        (false, Format::Table) => {
            let header = [
                "NAME", "ID", "NODE", "STATE", "QUOTA", "SCHEDULE", "CREATED", "USED BY",
            ];
            let rows = volumes.iter().map(|info| cells(location, info));
            output::table(&header, rows.collect())
        }
    }
}

fn cells(location: &Location, info: &VolumeInfo) -> Vec<String> {
    let spec = &info.spec;
    let none = || "-".to_owned();
    vec![
        spec.tag.as_ref().map_or_else(none, ToString::to_string),
        info.id.short(),
        node_name(location, info),
        state(info.state).to_owned(),
        spec.quota_bytes.map_or_else(none, output::bytes),
        spec.schedule.map_or_else(none, |schedule| {
            format!(
                "every {}, keep {}",
                span_text(schedule.every_s),
                schedule.keep
            )
        }),
        format!("{} ago", output::ago(info.created_ms)),
        users(location, info).join(", "),
    ]
}

/// A state in words.
pub(super) const fn state(state: VolumeState) -> &'static str {
    match state {
        VolumeState::Ready => "ready",
        VolumeState::NodeLost => "node lost",
        VolumeState::Faulted => "faulted",
        VolumeState::Missing => "missing",
    }
}

/// `teu volume snapshots`.
pub(super) async fn snapshots(volume: &Volume, listing: Listing) -> Result<(), Failure> {
    let snapshots = volume.snapshots().await?;
    match (listing.quiet, listing.format) {
        (true, _) => snapshots
            .iter()
            .try_for_each(|snapshot| output::line(snapshot.name.as_str())),
        (false, Format::Json) => output::json(&snapshots),
        (false, Format::Table) => {
            let rows = snapshots.iter().map(|snapshot| {
                vec![
                    snapshot.name.to_string(),
                    format!("{} ago", output::ago(snapshot.created_ms)),
                    output::bytes(snapshot.referenced_bytes),
                    output::bytes(snapshot.exclusive_bytes),
                ]
            });
            output::table(&["NAME", "CREATED", "SIZE", "OWN BYTES"], rows.collect())
        }
    }
}

/// `teu volume usage`.
pub(super) async fn usage(location: &Location, args: UsageArgs) -> Result<(), Failure> {
    let mut all = Vec::new();
    for wanted in &args.volumes {
        let volume = served(location, wanted).await?;
        all.push(Taken {
            name: name(&volume.info()),
            id: volume.id(),
            usage: volume.usage().await?,
        });
    }
    if args.format == Format::Json {
        return output::json(&all);
    }
    let rows = all.iter().map(|Taken { name, usage, .. }| {
        vec![
            name.clone(),
            output::bytes(usage.referenced_bytes),
            output::bytes(usage.exclusive_bytes),
            format!(
                "{} in {}",
                output::bytes(usage.snapshots_bytes),
                usage.snapshots
            ),
            usage
                .quota_bytes
                .map_or_else(|| "-".to_owned(), output::bytes),
            output::bytes(usage.available_bytes),
        ]
    });
    let header = [
        "NAME",
        "FILES",
        "OWN BYTES",
        "SNAPSHOTS",
        "QUOTA",
        "AVAILABLE",
    ];
    output::table(&header, rows.collect())
}

/// `teu volume inspect`.
pub(super) async fn inspect(location: &Location, args: InspectArgs) -> Result<(), Failure> {
    let mut infos = Vec::new();
    for wanted in &args.volumes {
        let volume = find(location, wanted).await?;
        // One that cannot be served now is shown all the same.
        let (snapshots, usage) = match volume.info().state {
            VolumeState::Ready => (volume.snapshots().await.ok(), volume.usage().await.ok()),
            _ => (None, None),
        };
        infos.push((volume.info(), snapshots, usage));
    }
    let details: Vec<VolumeDetail<'_>> = infos
        .iter()
        .map(|(info, snapshots, usage)| VolumeDetail {
            row: row(location, info),
            snapshots: snapshots.clone(),
            usage: *usage,
        })
        .collect();
    output::json(&details)
}
