//! The verbs: one file each; here only the table that calls them.

pub(crate) mod account;
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
pub(crate) mod node;
pub(crate) mod ps;
pub(crate) mod resources;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod session;
pub(crate) mod stop;
pub(crate) mod tunnel;
pub(crate) mod volume;
pub(crate) mod wake;

use std::process::ExitCode;

use futures::{StreamExt as _, stream};
use teu::{Container, ContainerInfo, Location, RefusalCode, Session, Tag};

use crate::{
    args::{Cli, Globals, Verb},
    dev,
    failure::{Failure, Usage},
    waiting,
};

/// Containers that one command works on at once: many stops cost one grace, and no master is flooded.
const AT_ONCE: usize = 32;

/// How alike a name must be to be suggested (1: equal).
const ALIKE: f64 = 0.75;

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
        Verb::Volume(verb) => volume::run(globals, verb).await,
        Verb::Resources(args) => resources::run(globals, args).await,
        Verb::Session(verb) => session::run(globals, verb).await,
        Verb::Account(verb) => account::run(globals, verb).await,
        Verb::Node(verb) => node::run(globals, verb).await,
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
    connect_in(globals, session, verb).await
}

async fn connect_in(globals: &Globals, session: Tag, verb: &str) -> Result<Location, Failure> {
    tracing::info!(
        location = globals.location.as_deref().unwrap_or("the default"),
        %session,
        "connecting"
    );
    let started = std::time::Instant::now();
    let mut builder = Location::builder()
        .session(Session::Persistent(session))
        .name(format!("teu {verb}"));
    if let Some(home) = &globals.home {
        builder = builder.home(home);
    }
    if let Some(location) = &globals.location {
        builder = builder.location(location);
    }
    let connecting = builder.connect();
    tokio::pin!(connecting);
    let location = match tokio::time::timeout(waiting::TOLD_AFTER, &mut connecting).await {
        Ok(connected) => connected?,
        Err(_) => {
            waiting::say("still connecting to the location; Ctrl-C gives up");
            connecting.await?
        }
    };
    tokio::spawn(waiting::watch(location.link_state()));
    tracing::info!(
        location = location.name(),
        session = %location.session(),
        nodes = location.nodes().len(),
        containers = location.containers().len(),
        "connected after {} ms",
        started.elapsed().as_millis()
    );
    Ok(location)
}

/// Other named sessions that are looked into: each is a connection.
const MAX_OTHER_SESSIONS: usize = 32;

/// Connections to the account's other named sessions that have containers.
async fn other_sessions(
    globals: &Globals,
    location: &Location,
    verb: &str,
) -> Result<Vec<Location>, Failure> {
    let own = location.session();
    let sessions = location.sessions().list().await?.into_iter();
    let others = sessions.filter(|session| session.id != own && session.containers > 0);
    let mut connected = Vec::new();
    for name in others
        .filter_map(|session| session.name)
        .take(MAX_OTHER_SESSIONS)
    {
        connected.push(connect_in(globals, name, verb).await?);
    }
    Ok(connected)
}

/// The container of that name or id.
async fn find(globals: &Globals, location: &Location, name: &str) -> Result<Container, Failure> {
    match location.find(name).await {
        Err(teu::Error::Refused { refusal, .. }) if refusal.code == RefusalCode::NotFound => {
            let session = location
                .session_name()
                .map_or("", |session| session.as_str());
            let what = format!("there is no container `{name}` in session `{session}`");
            let help = match session_of(globals, location, name).await {
                Some(other) => format!(
                    "it is in session `{other}`: add `--session {}`",
                    crate::output::quoted(&other)
                ),
                None => suggestion(name, &location.containers()),
            };
            Err(Usage::new(what, help).into())
        }
        found => Ok(found?),
    }
}

/// Which other named session has a container of that name or id.
async fn session_of(globals: &Globals, location: &Location, wanted: &str) -> Option<String> {
    let others = other_sessions(globals, location, "find").await.ok()?;
    let mut found = None;
    for other in others {
        if found.is_none() && other.find(wanted).await.is_ok() {
            found = other.session_name().map(ToString::to_string);
        }
        other.close().await;
    }
    found
}

fn suggestion(wanted: &str, containers: &[ContainerInfo]) -> String {
    let list = "`teu ps -a` lists those that there are";
    let tags = containers.iter().filter_map(|info| info.tag.as_ref());
    match most_alike(wanted, tags.map(|tag| tag.as_str())) {
        Some(tag) => format!("did you mean `{tag}`? {list}"),
        None => list.to_owned(),
    }
}

/// The name that was probably meant.
fn most_alike<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| (strsim::jaro_winkler(wanted, name), name))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

/// Does the same to each of the named containers, several at once; goes on after a failure, and
/// tells of each in the order in which they were named.
async fn for_each<F>(
    globals: &Globals,
    location: &Location,
    names: &[String],
    act: impl Fn(Container) -> F,
) -> Result<ExitCode, Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let act = &act;
    let outcomes = stream::iter(names)
        .map(|name| async move { (name, one(globals, location, name, act).await) })
        .buffered(AT_ONCE);
    let mut outcomes = std::pin::pin!(outcomes);
    let mut code = ExitCode::SUCCESS;
    while let Some((name, outcome)) = outcomes.next().await {
        match outcome {
            Ok(()) => crate::output::line(name)?,
            Err(failure) => code = crate::failure::report(&failure),
        }
    }
    Ok(code)
}

async fn one<F>(
    globals: &Globals,
    location: &Location,
    name: &str,
    act: impl Fn(Container) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    act(find(globals, location, name).await?).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_suggested_was_probably_meant() {
        let names = ["web", "web-2", "database"];
        let alike = |wanted: &str| most_alike(wanted, names.into_iter());
        assert_eq!(alike("wib"), Some("web"));
        assert_eq!(alike("databse"), Some("database"));
        assert_eq!(alike("zzz"), None);
    }
}
