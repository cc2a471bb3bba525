//! `teu images` and `teu image …`: the account's catalogue at the location.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::{Args, Subcommand};
use teu::{ImageInfo, Location};

use crate::{
    args::{Format, Globals, Listing},
    failure::Failure,
    json, output, progress,
};

/// Arguments of `teu images`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    listing: Listing,
}

/// Verbs of `teu image`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageVerb {
    /// Import a docker-archive (`docker save`) or an OCI layout, plain or compressed
    Import {
        /// The file, or an OCI layout's directory
        file: PathBuf,
        /// Only print ids
        #[arg(short, long)]
        quiet: bool,
    },
    /// List images
    Ls(ListArgs),
    /// Send the local engine's image, also if the location has an older one of that name
    Push {
        /// Its name, id, or `.` for the newest
        image: String,
    },
    /// Remove a name, or an image by id
    Rm {
        /// Names or ids
        #[arg(required = true)]
        images: Vec<String>,
    },
}

/// Runs `teu image …`.
pub(crate) async fn run(globals: &Globals, verb: ImageVerb) -> Result<ExitCode, Failure> {
    match verb {
        ImageVerb::Ls(args) => list(globals, args).await,
        ImageVerb::Import { file, quiet } => {
            let location = super::connect(globals, "image import").await?;
            let bars = Arc::new(progress::Bars::default());
            let images = location.images().import_file(&file, bars).await?;
            location.close().await;
            images.iter().try_for_each(|image| tell(image, quiet))?;
            Ok(ExitCode::SUCCESS)
        }
        ImageVerb::Push { image } => {
            let location = super::connect(globals, "image push").await?;
            let bars = Arc::new(progress::Bars::default());
            let image = location.images().push(&image, bars).await?;
            location.close().await;
            tell(&image, false)?;
            Ok(ExitCode::SUCCESS)
        }
        ImageVerb::Rm { images } => {
            let location = super::connect(globals, "image rm").await?;
            let code = remove(&location, &images).await;
            location.close().await;
            code
        }
    }
}

fn tell(image: &ImageInfo, quiet: bool) -> Result<(), Failure> {
    if quiet || image.names.is_empty() {
        output::line(&image.id.to_string())
    } else {
        output::line(&format!("{}  {}", image.names.join(", "), image.id.short()))
    }
}

async fn remove(location: &Location, images: &[String]) -> Result<ExitCode, Failure> {
    for image in images {
        location.images().remove(image).await?;
        output::line(image)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `teu images`.
pub(crate) async fn list(globals: &Globals, args: ListArgs) -> Result<ExitCode, Failure> {
    let location = super::connect(globals, "images").await?;
    let mut images = location.images().list().await?;
    location.close().await;
    images.sort_by_key(|image| std::cmp::Reverse(image.added_ms));
    match (args.listing.quiet, args.listing.format) {
        (true, _) => images
            .iter()
            .try_for_each(|image| output::line(&image.id.to_string()))?,
        (false, Format::Json) => {
            output::json(&images.iter().map(json::Image::from).collect::<Vec<_>>())?;
        }
        (false, Format::Table) => {
            let header = ["NAME", "ID", "SIZE", "LAYERS", "PLATFORM", "ADDED"];
            output::table(&header, images.iter().flat_map(rows).collect())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One row a name; an image without one shows as `-`.
fn rows(image: &ImageInfo) -> Vec<Vec<String>> {
    let row = |name: &str| {
        vec![
            name.to_owned(),
            image.id.short(),
            output::bytes(image.size),
            image.layers.to_string(),
            image.platform.clone(),
            format!("{} ago", output::ago(image.added_ms)),
        ]
    };
    if image.names.is_empty() {
        return vec![row("-")];
    }
    image.names.iter().map(|name| row(name)).collect()
}
