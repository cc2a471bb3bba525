//! The verbs: one file each; here only the table that calls them.

pub(crate) mod allow;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod exec;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod location;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod ps;
pub(crate) mod resources;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod session;
pub(crate) mod stop;
pub(crate) mod tunnel;
pub(crate) mod wake;

use std::process::ExitCode;

use teu::{Container, Location, Session};

use crate::{
    args::{Cli, Globals, Verb},
    dev,
    failure::Failure,
};

/// Runs the verb.
pub(crate) async fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let globals = &cli.globals;
    match cli.verb {
        Verb::Run(args) => run::run(globals, *args).await,
        Verb::Exec(args) => exec::run(globals, args).await,
        Verb::Ps(args) => ps::run(globals, args).await,
        Verb::Logs(args) => logs::run(globals, args).await,
        Verb::Stop(args) => stop::run(globals, args).await,
        Verb::Kill(args) => kill::run(globals, args).await,
        Verb::Wake(args) => wake::run(globals, args).await,
        Verb::Rm(args) => rm::run(globals, args).await,
        Verb::Inspect(args) => inspect::run(globals, args).await,
        Verb::Tunnel(args) => tunnel::run(globals, args).await,
        Verb::Allow(args) => allow::run(globals, args, true).await,
        Verb::Disallow(args) => allow::run(globals, args, false).await,
        Verb::Images(args) => image::list(globals, args).await,
        Verb::Image(verb) => image::run(globals, verb).await,
        Verb::Resources(args) => resources::run(globals, args).await,
        Verb::Session(verb) => session::run(globals, verb).await,
        Verb::Location(verb) => location::run(globals, verb),
        Verb::Dev(args) => dev::run(globals, args).await,
        Verb::Doctor(args) => doctor::run(globals, args).await,
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => man::run(&args),
    }
}

/// Connects to the chosen location, in the chosen persistent session.
async fn connect(globals: &Globals, verb: &str) -> Result<Location, Failure> {
    let session = globals.session.parse().map_err(Failure::SessionName)?;
    let mut builder = Location::builder()
        .session(Session::Persistent(session))
        .name(format!("teu {verb}"));
    if let Some(home) = &globals.home {
        builder = builder.home(home);
    }
    if let Some(location) = &globals.location {
        builder = builder.location(location);
    }
    Ok(builder.connect().await?)
}

/// Does the same to each of the named containers, goes on after a failure, and tells of each.
async fn for_each<F>(
    location: &Location,
    names: &[String],
    mut act: impl FnMut(Container) -> F,
) -> Result<ExitCode, Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let mut code = ExitCode::SUCCESS;
    for name in names {
        let outcome = match location.find(name).await {
            Ok(container) => act(container).await,
            Err(error) => Err(error.into()),
        };
        match outcome {
            Ok(()) => crate::output::line(name)?,
            Err(failure) => code = crate::failure::report(&failure),
        }
    }
    Ok(code)
}
