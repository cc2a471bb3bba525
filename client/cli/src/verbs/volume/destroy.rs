//! What destroys data: rm, rollback, removal of snapshots. It is said what will be gone, and asked.
//!
//! Next: `consent.rs` for how it is asked.

use std::process::ExitCode;

use clap::Args;
use teu::{Location, SnapshotInfo, Volume, VolumeState, VolumeUsage};

use super::{find, known_snapshot, name, served, show};
use crate::{
    consent::Consent,
    failure::{self, Failure, Usage},
    output,
};

/// Arguments of `teu volume rm`.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    #[command(flatten)]
    consent: Consent,
    /// Names or ids
    #[arg(required = true)]
    volumes: Vec<String>,
}

/// Arguments of `teu volume snapshot`.
#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    /// Destroy these snapshots instead of making one
    #[arg(long)]
    rm: bool,
    #[command(flatten)]
    consent: Consent,
    /// Name or id of the volume
    volume: String,
    /// The snapshot's name
    #[arg(required = true)]
    snapshots: Vec<String>,
}

/// Arguments of `teu volume rollback`.
#[derive(Debug, Args)]
#[command(after_help = "\
    What was written since the snapshot is lost. Containers that have the volume mounted go \
    on running and see the snapshot's files. While a program has a file of it open, it is \
    refused.")]
pub(crate) struct RollbackArgs {
    /// Destroy the snapshots that were made after this one; else it is refused if there are any
    #[arg(long)]
    discard_later: bool,
    /// Go on although programs have files open; what they have open goes stale
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    consent: Consent,
    /// Name or id of the volume
    volume: String,
    /// The snapshot to go back to
    snapshot: String,
}

/// `teu volume rm`.
pub(super) async fn rm(location: &Location, args: RmArgs) -> Result<ExitCode, Failure> {
    let mut volumes = Vec::new();
    for wanted in &args.volumes {
        volumes.push((wanted, find(location, wanted).await?));
    }
    let mut gone = Vec::new();
    if !args.consent.yes {
        for (_, volume) in &volumes {
            // Nobody should say yes to what will be refused then.
            can_go(location, volume)?;
            gone.push(whole(volume).await?);
        }
    }
    let mut code = ExitCode::SUCCESS;
    if args.consent.given(&gone)? {
        for (wanted, volume) in &volumes {
            match volume.destroy().await {
                Ok(()) => output::line(wanted)?,
                Err(error) => code = failure::report(&error.into()),
            }
        }
    }
    Ok(code)
}

fn can_go(location: &Location, volume: &Volume) -> Result<(), Failure> {
    let info = volume.info();
    if info.state == VolumeState::NodeLost {
        return Err(Usage::new(
            format!("the node of volume `{}` is away", name(&info)),
            "`teu doctor` says more; when the node is back, the volume can be destroyed",
        )
        .into());
    }
    let users = show::users(location, &info);
    if users.is_empty() {
        return Ok(());
    }
    Err(Usage::new(
        format!(
            "volume `{}` is mounted in {}",
            name(&info),
            users.join(", ")
        ),
        "remove what uses it first (`teu rm -f NAME`)",
    )
    .into())
}

/// A volume with all that it holds.
async fn whole(volume: &Volume) -> Result<String, Failure> {
    let info = volume.info();
    let called = format!("  volume `{}` ({})", name(&info), info.id.short());
    if info.state != VolumeState::Ready {
        let state = show::state(info.state);
        return Ok(format!("{called}: {state}, so its size is not known"));
    }
    let usage = volume.usage().await?;
    let files = output::bytes(usage.referenced_bytes);
    let snapshots = match usage.snapshots {
        0 => "no snapshots".to_owned(),
        count => {
            let all = volume.snapshots().await?;
            let kept = output::bytes(usage.snapshots_bytes);
            let s = if count == 1 { "" } else { "s" };
            format!("{count} snapshot{s} with {kept} ({})", names(&all))
        }
    };
    Ok(format!("{called}: {files} of files, {snapshots}"))
}

fn names(snapshots: &[SnapshotInfo]) -> String {
    let names: Vec<&str> = snapshots.iter().map(|one| one.name.as_str()).collect();
    names.join(", ")
}

/// `teu volume snapshot`.
pub(super) async fn snapshot(location: &Location, args: SnapshotArgs) -> Result<ExitCode, Failure> {
    let volume = served(location, &args.volume).await?;
    if args.rm {
        return remove_snapshots(&volume, &args).await;
    }
    if args.consent.dry_run {
        return Err(Usage::new(
            "making a snapshot destroys nothing, so there is nothing to try",
            "--dry-run goes with --rm",
        )
        .into());
    }
    for snapshot in &args.snapshots {
        volume.snapshot(snapshot).await?;
        output::line(snapshot)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn remove_snapshots(volume: &Volume, args: &SnapshotArgs) -> Result<ExitCode, Failure> {
    let known = volume.snapshots().await?;
    let mut gone = Vec::new();
    for wanted in &args.snapshots {
        gone.push(line_of(known_snapshot(volume, &known, wanted)?));
    }
    if args.consent.given(&gone)? {
        for snapshot in &args.snapshots {
            volume.destroy_snapshot(snapshot).await?;
            output::line(snapshot)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line_of(snapshot: &SnapshotInfo) -> String {
    format!(
        "  snapshot `{}`, {} old: {} of its own",
        snapshot.name,
        output::ago(snapshot.created_ms),
        output::bytes(snapshot.exclusive_bytes)
    )
}

/// `teu volume rollback`.
pub(super) async fn rollback(location: &Location, args: RollbackArgs) -> Result<ExitCode, Failure> {
    let volume = served(location, &args.volume).await?;
    let known = volume.snapshots().await?;
    known_snapshot(&volume, &known, &args.snapshot)?;
    let (target, later) = split(&known, &args.snapshot);
    if !later.is_empty() && !args.discard_later {
        let of = name(&volume.info());
        return Err(Usage::new(
            format!(
                "`{}` is not the newest snapshot of volume `{of}`: going back to it destroys the later \
                 ones ({})",
                args.snapshot,
                names(later)
            ),
            "add --discard-later if they may go; `teu volume clone` keeps everything",
        )
        .into());
    }
    let mut gone = Vec::new();
    if !args.consent.yes {
        gone.push(lost(&volume, target, !later.is_empty()).await?);
        gone.extend(later.iter().map(line_of));
    }
    if args.consent.given(&gone)? {
        let mut builder = volume.rollback(&args.snapshot);
        if args.discard_later {
            builder = builder.discard_later();
        }
        if args.force {
            builder = builder.force();
        }
        builder.await?;
        output::line(&args.volume)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a tree loses that becomes a snapshot's again, with those in between going as well or not.
pub(super) async fn lost(
    volume: &Volume,
    target: Option<&SnapshotInfo>,
    is_last_copy: bool,
) -> Result<String, Failure> {
    let usage = volume.usage().await?;
    Ok(loss(&name(&volume.info()), &usage, target, is_last_copy))
}

pub(super) fn loss(
    volume: &str,
    usage: &VolumeUsage,
    target: Option<&SnapshotInfo>,
    is_last_copy: bool,
) -> String {
    let (since, then) = match target {
        Some(one) => (
            format!(
                " since snapshot `{}`, {} ago",
                one.name,
                output::ago(one.created_ms)
            ),
            one.referenced_bytes,
        ),
        None => (String::new(), 0),
    };
    // What nothing else has is what can be lost. If later snapshots go, they have it no longer.
    let bound = if is_last_copy {
        format!(
            "its {} of files become the {} of then",
            output::bytes(usage.referenced_bytes),
            output::bytes(then)
        )
    } else {
        format!("at most {}", output::bytes(usage.exclusive_bytes))
    };
    format!("  what was written to volume `{volume}`{since}: {bound}")
}

/// The snapshot of that name, and those after it.
pub(super) fn split<'a>(
    known: &'a [SnapshotInfo],
    wanted: &str,
) -> (Option<&'a SnapshotInfo>, &'a [SnapshotInfo]) {
    let at = known.iter().position(|one| one.name.as_str() == wanted);
    match at {
        Some(at) => (known.get(at), known.get(at + 1..).unwrap_or_default()),
        None => (None, &[]),
    }
}
