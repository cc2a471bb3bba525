//! The command line's shape: global options and the list of verbs.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{dev, verbs};

const EXAMPLES: &str = "\
Examples:
  teu dev --detach                         a one-machine location, in the background
  teu run --rm busybox echo hello          run a program in a fresh container
  teu run -it busybox sh                   with a terminal
  teu run -d --name web -p 8080:80 nginx   in the background, its port 80 at localhost:8080
  teu exec web ps                          a further process in it
  teu volume create db                     files that outlive containers …
  teu run -d -v db:/data --name pg pg      … mounted in one
  teu logs -f web                          its output
  teu rm -f web                            gone, with all that it held

Exit codes of run and exec: the program's own; 125 if teu failed, 126 if the program cannot be
executed, 127 if it was not found, 2 if no node could take the container.";

/// Runs containers on a location, from your terminal.
#[derive(Debug, Parser)]
#[command(name = "teu", version, after_help = EXAMPLES, arg_required_else_help = true)]
#[command(max_term_width = 100, infer_long_args = false)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Globals {
    // The SDK reads the variables of these two: clap would print `--home <DIR>` in every usage line
    // of who has it set.
    /// The location to use; default: the one chosen with `teu location use` [env: TEU_LOCATION]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) location: Option<String>,
    /// The directory with keys and locations; default: ~/.teu [env: TEU_HOME]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// The persistent session that containers belong to
    #[arg(
        long,
        global = true,
        env = "TEU_SESSION",
        value_name = "NAME",
        default_value = "default"
    )]
    pub(crate) session: String,
    /// Tells what happens, on stderr (twice: more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// How lists and objects are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    // Not documentation comments: help would show them in a list of six lines.
    // For people.
    Table,
    // For programs.
    Json,
}

/// Options of every list.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Listing {
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Only ids, one a line
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a program in a new container
    Run(Box<verbs::run::RunArgs>),
    /// Run a further process in a container
    Exec(verbs::exec::ExecArgs),
    /// List containers
    #[command(visible_alias = "ls")]
    Ps(verbs::ps::PsArgs),
    /// Show a container's output
    Logs(verbs::logs::LogsArgs),
    /// Stop containers: ask, then kill
    Stop(verbs::stop::StopArgs),
    /// Send a signal to containers
    Kill(verbs::kill::KillArgs),
    /// Start containers that were spawned with --sleep
    Wake(verbs::wake::WakeArgs),
    /// Remove containers
    Rm(verbs::rm::RmArgs),
    /// Show all about a container, as JSON
    Inspect(verbs::inspect::InspectArgs),
    /// Make a container's port reachable on localhost
    Tunnel(verbs::tunnel::TunnelArgs),
    /// Let one container connect to another
    Allow(verbs::allow::AllowArgs),
    /// Take that back; open connections are cut
    Disallow(verbs::allow::AllowArgs),
    /// List images
    Images(verbs::image::ListArgs),
    /// Import, send, list and remove images
    #[command(subcommand, arg_required_else_help = true)]
    Image(verbs::image::ImageVerb),
    /// Files that outlive containers: make volumes, keep snapshots of them, go back
    #[command(subcommand, arg_required_else_help = true)]
    Volume(verbs::volume::VolumeVerb),
    /// Show what the location offers: nodes, free CPU, memory, disk, room for volumes
    Resources(verbs::resources::ResourcesArgs),
    /// List sessions, end one
    #[command(subcommand, arg_required_else_help = true)]
    Session(verbs::session::SessionVerb),
    /// Show this user's key; let other keys connect
    #[command(subcommand, arg_required_else_help = true)]
    Account(verbs::account::AccountVerb),
    /// Let machines connect as nodes
    #[command(subcommand, arg_required_else_help = true)]
    Node(verbs::node::NodeVerb),
    /// List locations, choose one, add one
    #[command(subcommand, arg_required_else_help = true)]
    Location(verbs::location::LocationVerb),
    /// Run a one-machine location: master and node on this machine (as root)
    Dev(dev::DevArgs),
    /// Say what is wrong and how to mend it
    Doctor(verbs::doctor::DoctorArgs),
    /// Print a completion script for a shell
    Completions(verbs::completions::CompletionsArgs),
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man(verbs::man::ManArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn no_verb_contradicts_itself() {
        Cli::command().debug_assert();
    }

    #[test]
    fn variables_do_not_show_in_usage_lines() {
        // But that of `--session`, whose default the SDK does not know.
        let command = Cli::command();
        let with_variable = command
            .get_arguments()
            .filter(|arg| arg.get_env().is_some());
        let names: Vec<_> = with_variable.map(|arg| arg.get_id().as_str()).collect();
        assert_eq!(names, ["session"]);
    }

    #[test]
    fn a_group_of_verbs_alone_prints_its_help() {
        for group in ["volume", "image", "session", "account", "node", "location"] {
            let error = Cli::try_parse_from(["teu", group]).map(drop).unwrap_err();
            assert!(error.to_string().contains("Commands:"), "{group}: {error}");
        }
    }

    #[test]
    fn v_is_verbose_but_a_volume_in_run() {
        let verbose = |line: &str| {
            let cli = Cli::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
            Ok::<u8, String>(cli.globals.verbose)
        };
        assert_eq!(verbose("teu ps -vv"), Ok(2));
        assert_eq!(verbose("teu -v run -v db:/data image"), Ok(1));
        assert_eq!(verbose("teu run --verbose image"), Ok(1));
        assert_eq!(verbose("teu run -v db:/data:ro -v b:/b image ls -v"), Ok(0));
        assert!(verbose("teu run -v image").is_err());
    }
}
