//! `teu volume …`: files that outlive containers, and their snapshots.
//!
//! What destroys data asks first: see [`destroy`]. Next: [`show`] prints, [`transfer`] moves bytes.

mod destroy;
mod parse;
mod show;
mod transfer;

use std::{process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use parse::{Quota, span};
use teu::{
    Location, NodeId, RefusalCode, SnapshotInfo, SnapshotSchedule, Tag, Volume, VolumeBuilder,
    VolumeInfo, VolumeSpec, VolumeState, VolumeUsage,
};

use super::run::{bytes, find_node};
use crate::{
    args::{Globals, Listing},
    failure::{Failure, Usage},
    output,
};

/// Scheduled snapshots that are kept unless `--keep` says otherwise: a day of hourly ones.
const USUAL_KEEP: u32 = 24;

/// Verbs of `teu volume`.
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeVerb {
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(Listing),
    /// Make a volume
    Create(CreateArgs),
    /// Destroy volumes with all of their snapshots
    #[command(after_help = "\
        A volume that a container has mounted is not destroyed. Clones of it stay.")]
    Rm(destroy::RmArgs),
    /// Keep a volume's files as they are now, under a name
    #[command(after_help = "\
        It takes milliseconds, and no space until files change. `teu volume snapshot --rm \
        VOLUME SNAPSHOT…` destroys snapshots.")]
    Snapshot(destroy::SnapshotArgs),
    /// List a volume's snapshots, oldest first
    #[command(after_help = show::BYTES)]
    Snapshots {
        #[command(flatten)]
        listing: Listing,
        /// Name or id of the volume
        volume: String,
    },
    /// Give a volume back the files of a snapshot, also while containers run with it
    Rollback(destroy::RollbackArgs),
    /// Make a volume that begins as a snapshot, without copying
    #[command(after_help = "\
        It lies on the node of the original, whose bytes it shares: for another node, export \
        and import.")]
    Clone {
        #[command(flatten)]
        spec: SpecArgs,
        /// Name or id of the volume
        volume: String,
        /// The snapshot
        snapshot: String,
        /// A name for the new volume
        name: Option<String>,
    },
    /// Show what volumes take
    #[command(after_help = show::BYTES)]
    Usage(show::UsageArgs),
    /// Bound the bytes of a volume's files (snapshots are not counted)
    #[command(after_help = "\
        Beyond it, programs that write get an error (EDQUOT, `Disk quota exceeded`). One \
        that is smaller than what there is already takes nothing away: files can be removed, \
        but not written (ZFS takes none that is smaller).")]
    Quota {
        /// Name or id of the volume
        volume: String,
        /// Such as 2GiB; `none`: no bound
        bytes: Quota,
    },
    /// Have the node make snapshots, or stop it
    #[command(after_help = "\
        Periods are counted in UTC: those of 1h begin on the hour, those of 1d at midnight. \
        The snapshots are called `auto-` and the time; those that you make are neither \
        counted nor removed.")]
    Schedule(ScheduleArgs),
    /// Write a snapshot to a file, or to standard output with `-`
    Export(transfer::ExportArgs),
    /// Make a volume from an export, or bring one up to it
    Import(transfer::ImportArgs),
    /// Show all about volumes, as JSON
    Inspect(show::InspectArgs),
}

/// What a new volume can be given.
#[derive(Debug, Args)]
pub(crate) struct SpecArgs {
    /// The most bytes of its files, such as 2GiB (snapshots are not counted)
    #[arg(long, visible_alias = "size", value_name = "BYTES", value_parser = bytes)]
    quota: Option<u64>,
    /// Make a snapshot so often, such as 1h
    #[arg(long, value_name = "TIME", value_parser = span)]
    snapshot_every: Option<Duration>,
    /// Keep so many of those (the oldest go); 24 unless told
    #[arg(long, value_name = "COUNT", requires = "snapshot_every")]
    keep: Option<u32>,
    /// A label, for programs that list volumes
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
}

impl SpecArgs {
    fn schedule(&self) -> Option<SnapshotSchedule> {
        schedule(self.snapshot_every, self.keep)
    }
}

fn schedule(every: Option<Duration>, keep: Option<u32>) -> Option<SnapshotSchedule> {
    every.map(|every| SnapshotSchedule {
        every_s: every.as_secs(),
        keep: keep.unwrap_or(USUAL_KEEP),
    })
}

/// Arguments of `teu volume create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    spec: SpecArgs,
    /// The node to lie on (name or id); default: the location chooses
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Succeed if there is one of that name already, and leave it as it is
    #[arg(long, requires = "name")]
    ensure: bool,
    /// A name for it
    name: Option<String>,
}

/// Arguments of `teu volume schedule`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("when").required(true).args(["snapshot_every", "off"]))]
pub(crate) struct ScheduleArgs {
    /// Make a snapshot so often, such as 1h; at least 10s
    #[arg(long, value_name = "TIME", value_parser = span)]
    snapshot_every: Option<Duration>,
    /// Keep so many of those (the oldest go); 24 unless told
    #[arg(long, value_name = "COUNT", requires = "snapshot_every")]
    keep: Option<u32>,
    /// No longer; those that were made stay
    #[arg(long)]
    off: bool,
    /// Name or id of the volume
    volume: String,
}

/// Runs `teu volume …`.
pub(crate) async fn run(globals: &Globals, verb: VolumeVerb) -> Result<ExitCode, Failure> {
    let location = super::connect(globals, "volume").await?;
    let code = act(&location, verb).await;
    location.close().await;
    code
}

async fn act(location: &Location, verb: VolumeVerb) -> Result<ExitCode, Failure> {
    match verb {
        VolumeVerb::Ls(listing) => show::list(location, listing)?,
        VolumeVerb::Create(args) => create(location, args).await?,
        VolumeVerb::Rm(args) => return destroy::rm(location, args).await,
        VolumeVerb::Snapshot(args) => return destroy::snapshot(location, args).await,
        VolumeVerb::Snapshots { listing, volume } => {
            show::snapshots(&served(location, &volume).await?, listing).await?;
        }
        VolumeVerb::Rollback(args) => return destroy::rollback(location, args).await,
        VolumeVerb::Clone {
            spec,
            volume,
            snapshot,
            name,
        } => {
            let of = served(location, &volume).await?;
            let builder = described(of.clone_from(&snapshot), &spec);
            match named(builder, name).await {
                Ok(clone) => tell(&clone)?,
                Err(error) => return Err(explained(&of, &snapshot, error).await),
            }
        }
        VolumeVerb::Usage(args) => show::usage(location, args).await?,
        VolumeVerb::Quota { volume, bytes } => {
            let found = served(location, &volume).await?;
            found.set_quota(bytes.0).await?;
            output::line(&volume)?;
            if let Some(warning) = fullness(&volume, &found.usage().await?) {
                output::note(&warning);
            }
        }
        VolumeVerb::Schedule(args) => {
            let every = args.snapshot_every.filter(|_| !args.off);
            let volume = served(location, &args.volume).await?;
            volume.set_schedule(schedule(every, args.keep)).await?;
            output::line(&args.volume)?;
        }
        VolumeVerb::Export(args) => return transfer::export(location, args).await,
        VolumeVerb::Import(args) => return transfer::import(location, args).await,
        VolumeVerb::Inspect(args) => show::inspect(location, args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(location: &Location, args: CreateArgs) -> Result<(), Failure> {
    let builder = match &args.name {
        Some(name) if args.ensure => location.ensure_volume(name),
        _ => named(location.create_volume(), args.name),
    };
    let mut builder = described(builder, &args.spec);
    let node = match &args.node {
        Some(node) => Some(find_node(location, node)?),
        None => None,
    };
    if let Some(node) = node {
        builder = builder.node(node);
    }
    let volume = builder.await?;
    tell(&volume)?;
    if args.ensure && differs(&volume.info(), &args.spec, node) {
        output::note("it was there already, with other settings, and is left as it is");
    }
    Ok(())
}

/// Whether a volume is not what was asked for.
fn differs(info: &VolumeInfo, asked: &SpecArgs, node: Option<NodeId>) -> bool {
    let VolumeSpec {
        quota_bytes,
        schedule,
        labels,
        ..
    } = &info.spec;
    let label = |label: &String| {
        let (key, value) = label_of(label);
        labels.get(key).is_some_and(|own| own == value)
    };
    node.is_some_and(|node| info.node != node)
        || asked.quota.is_some() && asked.quota != *quota_bytes
        || asked.schedule().is_some() && asked.schedule() != *schedule
        || !asked.label.iter().all(label)
}

fn named(builder: VolumeBuilder, name: Option<String>) -> VolumeBuilder {
    match name {
        Some(name) => builder.tag(name),
        None => builder,
    }
}

fn described(mut builder: VolumeBuilder, spec: &SpecArgs) -> VolumeBuilder {
    if let Some(bytes) = spec.quota {
        builder = builder.quota(bytes);
    }
    if let Some(schedule) = spec.schedule() {
        builder = builder.schedule(Duration::from_secs(schedule.every_s), schedule.keep);
    }
    for label in &spec.label {
        let (key, value) = label_of(label);
        builder = builder.label(key, value);
    }
    builder
}

fn label_of(text: &str) -> (&str, &str) {
    text.split_once('=').unwrap_or((text, ""))
}

/// A new volume's name, or its id if it has none: what the next command needs.
fn tell(volume: &Volume) -> Result<(), Failure> {
    let tag = volume.tag();
    output::line(&tag.map_or_else(|| volume.id().to_string(), |tag| tag.to_string()))
}

/// What people call it.
pub(crate) fn name(info: &VolumeInfo) -> String {
    let tag = info.spec.tag.as_ref();
    tag.map_or_else(|| info.id.short(), ToString::to_string)
}

/// The volume of that name or id, to have something done to it by its node.
pub(crate) async fn served(location: &Location, name: &str) -> Result<Volume, Failure> {
    let volume = find(location, name).await?;
    if volume.info().state == VolumeState::NodeLost {
        // The SDK asks again and again: nobody should think that it hangs.
        output::note(&format!(
            "the node of volume `{name}` is away: waiting for it, half a minute at most"
        ));
    }
    Ok(volume)
}

/// The volume of that name or id.
async fn find(location: &Location, name: &str) -> Result<Volume, Failure> {
    match location.volume(name).await {
        Err(error) if error.code() == Some(RefusalCode::NotFound) => {
            let what = format!("there is no volume `{name}`");
            Err(Usage::new(what, suggestion(name, &location.volumes())).into())
        }
        found => Ok(found?),
    }
}

/// The snapshot of that name, or one that may have been meant.
fn known_snapshot<'a>(
    volume: &Volume,
    known: &'a [SnapshotInfo],
    wanted: &str,
) -> Result<&'a SnapshotInfo, Failure> {
    let found = known.iter().find(|one| one.name.as_str() == wanted);
    found.ok_or_else(|| no_snapshot(&name(&volume.info()), known, wanted).into())
}

fn no_snapshot(of: &str, known: &[SnapshotInfo], wanted: &str) -> Usage {
    let names = known.iter().map(|one| one.name.as_str());
    let meant = super::most_alike(wanted, names)
        .map(|name| format!("did you mean `{name}`? "))
        .unwrap_or_default();
    Usage::new(
        format!("volume `{of}` has no snapshot `{wanted}`"),
        format!("{meant}`teu volume snapshots {of}` lists them"),
    )
}

/// Why something with a snapshot failed: if there is none of that name, one may have been meant.
async fn explained(volume: &Volume, wanted: &str, error: teu::Error) -> Failure {
    if error.code() == Some(RefusalCode::NotFound)
        && let Ok(known) = volume.snapshots().await
        && let Err(missing) = known_snapshot(volume, &known, wanted)
    {
        return missing;
    }
    error.into()
}

/// A bound below what there is already is allowed, but seldom meant.
fn fullness(volume: &str, usage: &VolumeUsage) -> Option<String> {
    let is_full = usage
        .quota_bytes
        .is_some_and(|quota| usage.referenced_bytes >= quota);
    is_full.then(|| {
        format!(
            "volume `{volume}` has {} of files already: nothing can be written until some are removed",
            output::bytes(usage.referenced_bytes)
        )
    })
}

fn suggestion(wanted: &str, volumes: &[VolumeInfo]) -> String {
    let tags = volumes.iter().filter_map(|info| info.spec.tag.as_ref());
    let meant = super::most_alike(wanted, tags.map(Tag::as_str));
    let meant = meant.map(|tag| format!("did you mean `{tag}`? "));
    let make = match wanted.parse::<Tag>() {
        Ok(tag) => format!("`teu volume create {tag}` makes one, "),
        Err(_) => String::new(),
    };
    format!(
        "{}{make}`teu volume ls` lists those that there are",
        meant.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests;
