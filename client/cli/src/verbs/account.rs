//! `teu account …`: this user's key, and who may connect.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use teu::{PublicKey, config::Account};

use crate::{
    args::{Format, Globals},
    failure::Failure,
    output,
};

/// Verbs of `teu account`.
#[derive(Debug, Subcommand)]
pub(crate) enum AccountVerb {
    /// Print this user's public key, which an administrator enrols (makes a key on first use)
    Show(ShowArgs),
    /// Let a key connect to the location (for administrators)
    Enrol(EnrolArgs),
    /// Stop a key from connecting, and end its sessions (for administrators)
    Revoke {
        /// The public key (base64)
        key: PublicKey,
    },
}

/// Arguments of `teu account show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// Arguments of `teu account enrol`.
#[derive(Debug, Args)]
pub(crate) struct EnrolArgs {
    /// The public key (base64), as the other user's `teu account show` prints it
    key: PublicKey,
    /// A name for people, such as the user's
    #[arg(long, value_name = "NAME")]
    name: String,
    /// It may also enrol and revoke
    #[arg(long)]
    admin: bool,
}

/// The key as `--format json` prints it.
#[derive(Debug, Serialize)]
struct Shown {
    public_key: PublicKey,
    file: std::path::PathBuf,
}

/// Runs `teu account …`.
pub(crate) async fn run(globals: &Globals, verb: AccountVerb) -> Result<ExitCode, Failure> {
    match verb {
        AccountVerb::Show(args) => show(globals, args.format)?,
        AccountVerb::Enrol(args) => {
            let location = super::connect(globals, "account enrol").await?;
            let name = args.name.clone();
            location.enrol_account(args.key, name, args.admin).await?;
            location.close().await;
            output::note(&format!("`{}` may connect now", args.name));
        }
        AccountVerb::Revoke { key } => {
            let location = super::connect(globals, "account revoke").await?;
            location.revoke_account(key).await?;
            location.close().await;
            output::note("that key can no longer connect");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(globals: &Globals, format: Format) -> Result<(), Failure> {
    let home = teu::config::home(globals.home.as_deref());
    let account = Account::load_or_create(&home)?;
    match format {
        Format::Table => output::line(&account.public_key().to_string()),
        Format::Json => output::json(&Shown {
            public_key: account.public_key(),
            file: Account::key_path(&home),
        }),
    }
}
