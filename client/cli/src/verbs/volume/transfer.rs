//! `teu volume export` and `import`: snapshots as files.
//!
//! Invariant: a file gets its name when it is whole; an import that is cut leaves nothing.

use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    pin::Pin,
    process::ExitCode,
    task::{Context, Poll},
};

use clap::Args;
use indicatif::ProgressBar;
use teu::{ImportBuilder, Location, Volume};
use tokio::{
    fs::File,
    io::{AsyncRead, ReadBuf},
};

use super::{SpecArgs, described, destroy, explained, find_node, named, served, tell};
use crate::{
    consent::Consent,
    failure::{Failure, Usage},
    output, progress,
    signals::Interrupts,
};

/// Arguments of `teu volume export`.
#[derive(Debug, Args)]
#[command(after_help = "\
    The file can be imported into this location by the same account, on any of its nodes \
    whose pool is of the same kind. An export with --base needs a volume that has that \
    snapshot.")]
pub(crate) struct ExportArgs {
    /// Only what changed since this older snapshot
    #[arg(long, value_name = "SNAPSHOT")]
    base: Option<String>,
    /// Name or id of the volume
    volume: String,
    /// The snapshot
    snapshot: String,
    /// The file; `-`: standard output
    file: PathBuf,
}

/// Arguments of `teu volume import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Bring the volume NAME up to an export that has its newest snapshot as its base
    #[arg(
        long,
        requires = "name",
        conflicts_with_all = ["node", "quota", "snapshot_every", "label"]
    )]
    into: bool,
    #[command(flatten)]
    spec: SpecArgs,
    /// The node to lie on (name or id); default: the location chooses
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    #[command(flatten)]
    consent: Consent,
    /// The file; `-`: standard input
    file: PathBuf,
    /// A name for the new volume
    name: Option<String>,
}

/// `teu volume export`.
pub(super) async fn export(location: &Location, args: ExportArgs) -> Result<ExitCode, Failure> {
    let to_stdout = args.file.as_os_str() == "-";
    if to_stdout && io::stdout().is_terminal() {
        return Err(Usage::new(
            "an export is not for a terminal",
            "name a file, or send standard output to one",
        )
        .into());
    }
    let volume = served(location, &args.volume).await?;
    let interrupts = Interrupts::listen().map_err(Failure::Terminal)?;
    let export = match volume.export(&args.snapshot, args.base.as_deref()).await {
        Ok(export) => export,
        Err(error) => return Err(explained(&volume, &args.snapshot, error).await),
    };
    let length = whole_length(&volume, &args).await;
    let bar = progress::counting(format!("exporting {}", args.volume), length);
    let told = |bytes| bar.inc(bytes);
    let moved = async {
        if to_stdout {
            export.write_to(tokio::io::stdout(), told).await
        } else {
            export.save(&args.file, told).await
        }
    };
    let moved = tokio::select! {
        moved = moved => moved,
        () = interrupts.first() => return Ok(ExitCode::from(130)),
    };
    bar.finish_and_clear();
    let bytes = moved.map_err(|error| failed(error, &args.file))?;
    if !to_stdout {
        output::line(&args.file.display().to_string())?;
        output::note(&format!("{} written", output::bytes(bytes)));
    }
    Ok(ExitCode::SUCCESS)
}

/// About how many bytes an export will have, for a bar that somebody looks at.
async fn whole_length(volume: &Volume, args: &ExportArgs) -> Option<u64> {
    if args.base.is_some() || !io::stderr().is_terminal() {
        return None;
    }
    let known = volume.snapshots().await.ok()?;
    let exported = known.iter().find(|one| one.name.as_str() == args.snapshot);
    exported.map(|snapshot| snapshot.referenced_bytes)
}

/// A reader such as `head` that has gone is the usual silent end.
fn failed(error: teu::Error, file: &Path) -> Failure {
    match error {
        teu::Error::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => {
            Failure::Output(source)
        }
        teu::Error::Io { source, .. } if file.as_os_str() != "-" => Failure::File {
            what: format!("cannot write {}", file.display()),
            source,
        },
        error => error.into(),
    }
}

/// `teu volume import`.
pub(super) async fn import(location: &Location, args: ImportArgs) -> Result<ExitCode, Failure> {
    if !args.into && args.consent.dry_run {
        return Err(Usage::new(
            "importing a new volume destroys nothing, so there is nothing to try",
            "--dry-run goes with --into",
        )
        .into());
    }
    if args.file.as_os_str() != "-" {
        let failed = |source| Failure::File {
            what: format!("cannot read {}", args.file.display()),
            source,
        };
        let file = File::open(&args.file).await.map_err(failed)?;
        let about = file.metadata().await.map_err(failed)?;
        if about.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        let length = Some(about.len()).filter(|_| about.is_file());
        return import_from(location, args, file, length).await;
    }
    if io::stdin().is_terminal() {
        return Err(Usage::new(
            "an export cannot be typed",
            "name a file, or send one to standard input",
        )
        .into());
    }
    import_from(location, args, tokio::io::stdin(), None).await
}

async fn import_from<R: AsyncRead + Unpin + Send>(
    location: &Location,
    args: ImportArgs,
    reader: R,
    length: Option<u64>,
) -> Result<ExitCode, Failure> {
    let bar = progress::counting(format!("importing {}", args.file.display()), length);
    let reader = Counted {
        reader,
        bar: bar.clone(),
    };
    let builder: ImportBuilder<_> = match &args.name {
        Some(name) if args.into => {
            let volume = served(location, name).await?;
            if !args.consent.yes {
                let known = volume.snapshots().await?;
                let gone = destroy::lost(&volume, known.last(), false).await?;
                if !args.consent.given(&[gone])? {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            volume.import_from(reader)
        }
        _ => {
            let builder = named(location.create_volume(), args.name.clone());
            let mut builder = described(builder, &args.spec);
            if let Some(node) = &args.node {
                builder = builder.node(find_node(location, node)?);
            }
            builder.import_from(reader)
        }
    };
    let interrupts = Interrupts::listen().map_err(Failure::Terminal)?;
    let imported = tokio::select! {
        imported = builder.start() => imported,
        () = interrupts.first() => return Ok(ExitCode::from(130)),
    };
    bar.finish_and_clear();
    tell(&imported?)?;
    Ok(ExitCode::SUCCESS)
}

/// Tells the bar what was read.
struct Counted<R> {
    reader: R,
    bar: ProgressBar,
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.reader).poll_read(context, into);
        self.bar.inc((into.filled().len() - before) as u64);
        read
    }
}
