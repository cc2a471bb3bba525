//! `teu location …`: the locations that this user knows.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use teu::config::{Config, LocationEntry};

use crate::{
    args::{Format, Globals, Listing},
    failure::{Failure, Usage},
    output,
};

/// Verbs of `teu location`.
#[derive(Debug, Subcommand)]
pub(crate) enum LocationVerb {
    /// List the known locations
    Ls(Listing),
    /// Choose the location that commands use
    Use {
        /// Its name
        name: String,
    },
    /// Add a location by address and key
    Add(AddArgs),
    /// Forget a location
    Rm {
        /// Its name
        name: String,
    },
}

/// Arguments of `teu location add`.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// What to call it
    name: String,
    /// Host and port of its master
    #[arg(long, value_name = "HOST:PORT", value_parser = endpoint)]
    endpoint: String,
    /// Its public key (base64), as `teu-master public-key` prints it
    #[arg(long, value_name = "KEY")]
    key: teu::PublicKey,
    /// Its DNS name, as its master was told with --fqdn
    #[arg(long, value_name = "NAME")]
    fqdn: String,
    /// The serial number of its key
    #[arg(long, default_value_t = 1)]
    serial: u64,
}

fn endpoint(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse().is_ok_and(|port: u16| port > 0) => {
            Ok(text.to_owned())
        }
        _ => Err("HOST:PORT is expected, such as teu.example.org:5555".to_owned()),
    }
}

/// A location as `--format json` prints it.
#[derive(Debug, Serialize)]
struct Row<'a> {
    name: &'a str,
    default: bool,
    #[serde(flatten)]
    entry: &'a LocationEntry,
}

/// Runs `teu location …`.
pub(crate) fn run(globals: &Globals, verb: LocationVerb) -> Result<ExitCode, Failure> {
    let mut config = Config::load(&teu::config::home(globals.home.as_deref()))?;
    match verb {
        LocationVerb::Ls(listing) => {
            list(&config, listing)?;
            return Ok(ExitCode::SUCCESS);
        }
        LocationVerb::Use { name } => {
            known(&config, &name)?;
            config.default = Some(name);
        }
        LocationVerb::Add(args) => {
            let added = args.name.clone();
            if let Some(known) = config.locations.get(&added) {
                return Err(Usage::new(
                    format!(
                        "there is a location `{added}` already, at {}",
                        known.endpoint
                    ),
                    format!("give another name, or forget that one: `teu location rm {added}`"),
                )
                .into());
            }
            if config.locations.is_empty() {
                config.default = Some(args.name.clone());
            }
            let entry = LocationEntry {
                fqdn: args.fqdn.to_ascii_lowercase(),
                endpoint: args.endpoint,
                key: args.key,
                serial: args.serial,
            };
            config.locations.insert(args.name, entry);
        }
        LocationVerb::Rm { name } => {
            known(&config, &name)?;
            config.locations.remove(&name);
            config.default = config.default.filter(|default| *default != name);
        }
    }
    config.save()?;
    Ok(ExitCode::SUCCESS)
}

fn known(config: &Config, name: &str) -> Result<(), Failure> {
    if config.locations.contains_key(name) {
        return Ok(());
    }
    let names: Vec<&str> = config.locations.keys().map(String::as_str).collect();
    let help = if names.is_empty() {
        "none is known: `teu location add`, or `teu dev` for one on this machine".to_owned()
    } else {
        format!("known are: {}", names.join(", "))
    };
    Err(Usage::new(format!("no location is called `{name}`"), help).into())
}

fn list(config: &Config, listing: Listing) -> Result<(), Failure> {
    let rows: Vec<Row<'_>> = config
        .locations
        .iter()
        .map(|(name, entry)| Row {
            name,
            default: config.default.as_ref() == Some(name),
            entry,
        })
        .collect();
    match (listing.quiet, listing.format) {
        (true, _) => rows.iter().try_for_each(|row| output::line(row.name)),
        (false, Format::Json) => output::json(&rows),
        (false, Format::Table) => {
            let cells = rows.iter().map(|row| {
                vec![
                    if row.default { "*" } else { "" }.to_owned(),
                    row.name.to_owned(),
                    row.entry.fqdn.clone(),
                    row.entry.endpoint.clone(),
                    row.entry.key.to_string(),
                ]
            });
            output::table(&["", "NAME", "FQDN", "ENDPOINT", "KEY"], cells.collect())
        }
    }
}
