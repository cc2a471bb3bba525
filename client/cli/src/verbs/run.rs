//! `teu run`: a program in a new container.

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::Args;
use teu::{Container, Lifetime, Location, Process, SpawnBuilder};

use crate::{
    args::Globals,
    failure::{Failure, Usage},
    output, progress, published,
    published::PortSpec,
    stdio, terminal,
};

mod parse;

pub(crate) use parse::{EnvSpec, bytes, duration};
use parse::{FileSpec, MountSpec, cpus};

/// Arguments of `teu run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without -d the container lives as long as this command, and its exit code becomes this command's.
With -d it lives until `teu rm` (or, with --rm, until its program ends).
IMAGE is a name, an id, or `.` for the newest image of the local Docker or Podman engine.")]
pub(crate) struct RunArgs {
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,
    /// Run in the background and print the container's id
    #[arg(short, long)]
    detach: bool,
    /// Remove the container when its program ends
    #[arg(long)]
    rm: bool,
    /// Set an environment variable; without `=VALUE`: pass this one on
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<EnvSpec>,
    /// Make a port of the container reachable on localhost
    #[arg(short = 'p', long = "publish", value_name = "[[IP:]LOCAL:]CONTAINER")]
    publish: Vec<PortSpec>,
    /// Mount a volume (name or id), `:ro` read-only; `teu volume create` makes one
    #[arg(short, long, value_name = "VOLUME:PATH[:ro]")]
    volume: Vec<MountSpec>,
    // Overrides the global option of this id, which would be `-v` as well: here that is Docker's.
    /// Tells what happens, on stderr (twice: more); `teu -v run` is the same
    #[arg(id = "verbose", long, action = clap::ArgAction::Count)]
    _verbose: u8,
    /// Write a local file into the container before it starts
    #[arg(long, value_name = "SRC:DEST")]
    file: Vec<FileSpec>,
    /// The same, but kept in memory only and never shown
    #[arg(long, value_name = "SRC:DEST")]
    secret: Vec<FileSpec>,
    /// A name for the container
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A label, for programs that list containers
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// The directory that the program starts in
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// The user (and group) that the program runs as
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// The host name inside
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Replace the image's entrypoint (an empty one removes it)
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// The most memory, such as 64m or 2g
    #[arg(short, long, value_name = "BYTES", value_parser = bytes)]
    memory: Option<u64>,
    /// The most CPU, in cores, such as 0.5
    #[arg(long, value_name = "CORES", value_parser = cpus)]
    cpus: Option<f64>,
    /// The most processes and threads [default: 1024]
    #[arg(long, value_name = "COUNT")]
    pids: Option<u32>,
    /// The most that it may write into its root file system, such as 500m [default: 10g]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    storage: Option<u64>,
    /// Kill the container after this long (exit code 124), such as 90s, 5m or 500ms
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    /// Put an init in front of the program that passes signals on and reaps processes
    #[arg(long)]
    init: bool,
    /// Make it ready but do not start it; `teu wake` does
    #[arg(long)]
    sleep: bool,
    /// The node to run on (name or id); default: the location chooses
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// The image
    image: String,
    /// The program and its arguments, instead of the image's
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<String>,
}

/// Runs `teu run`.
pub(crate) async fn run(globals: &Globals, args: RunArgs) -> Result<ExitCode, Failure> {
    if args.detach && args.interactive && args.tty {
        return Err(Usage::new(
            "-d cannot be combined with -it: nobody would sit at the terminal",
            "leave one of them out; `teu exec -it NAME sh` gives a terminal later",
        )
        .into());
    }
    if args.tty && args.interactive {
        terminal::require_input()?;
    }
    published::check(&args.publish)?;
    let location = super::connect(globals, "run").await?;
    let spawn = mount(&location, describe(&location, &args)?, &args.volume).await?;
    let stopper = crate::signals::Interrupts::listen().map_err(Failure::Terminal)?;
    let background = args.detach || args.sleep;
    let spawning = async {
        if background {
            return Ok((spawn.start().await?, None));
        }
        let (container, process) = spawn.start_attached().await?;
        Ok::<_, teu::Error>((container, Some(process)))
    };
    let (container, process) = tokio::select! {
        spawned = spawning => spawned?,
        () = stopper.clone().first() => {
            location.close().await;
            return Ok(ExitCode::from(130));
        }
    };
    let Some(process) = process else {
        return detached(globals, &location, &container, &args.publish).await;
    };
    let code = attached(&container, process, &args, stopper).await;
    // Goodbye: the container and all that it held are gone before the shell prompts again.
    let _ = container.destroy().await;
    location.close().await;
    code
}

fn describe(location: &Location, args: &RunArgs) -> Result<SpawnBuilder, Failure> {
    let mut spawn = location
        .spawn(&args.image)
        .progress(Arc::new(progress::Bars::default()));
    if !args.command.is_empty() {
        spawn = spawn.command(&args.command);
    }
    if let Some(entrypoint) = &args.entrypoint {
        let parts = Some(entrypoint).filter(|text| !text.is_empty());
        spawn = spawn.entrypoint(parts);
    }
    for variable in &args.env {
        if let Some((name, value)) = variable.resolve() {
            spawn = spawn.env(name, value);
        }
    }
    for file in &args.file {
        spawn = spawn.pre_boot(file.read()?);
    }
    for file in &args.secret {
        spawn = spawn.pre_boot(file.read()?.secret());
    }
    if let Some(name) = &args.name {
        spawn = spawn.tag(name);
    }
    for label in &args.label {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        spawn = spawn.label(key, value);
    }
    if let Some(workdir) = &args.workdir {
        spawn = spawn.workdir(workdir);
    }
    if let Some(user) = &args.user {
        spawn = spawn.user(user);
    }
    if let Some(hostname) = &args.hostname {
        spawn = spawn.hostname(hostname);
    }
    if let Some(memory) = args.memory {
        spawn = spawn.memory(memory);
    }
    if let Some(cpus) = args.cpus {
        spawn = spawn.cpus(cpus);
    }
    if let Some(pids) = args.pids {
        spawn = spawn.pids(pids);
    }
    if let Some(timeout) = args.timeout {
        spawn = spawn.timeout(timeout);
    }
    spawn = spawn.init(args.init);
    if let Some(storage) = args.storage {
        spawn = spawn.storage(storage);
    }
    if args.tty {
        spawn = spawn.tty(terminal::size());
    }
    if args.interactive {
        spawn = spawn.stdin(true);
    }
    if args.sleep {
        spawn = spawn.asleep();
    }
    if let Some(node) = &args.node {
        spawn = spawn.node(find_node(location, node)?);
    }
    let lifetime = match (args.detach || args.sleep, args.rm) {
        (true, false) => Lifetime::Session,
        (true, true) => Lifetime::FirstProcess,
        (false, _) => Lifetime::Attachment,
    };
    Ok(spawn.lifetime(lifetime))
}

/// Adds the volumes. A missing one is not made: a slip of the pen would be a container without its
/// data, and nobody would notice.
async fn mount(
    location: &Location,
    mut spawn: SpawnBuilder,
    mounts: &[MountSpec],
) -> Result<SpawnBuilder, Failure> {
    for mount in mounts {
        let volume = super::volume::served(location, &mount.volume).await?;
        spawn = if mount.read_only {
            spawn.volume_read_only(&volume, &mount.path)
        } else {
            spawn.volume(&volume, &mount.path)
        };
    }
    Ok(spawn)
}

pub(crate) fn find_node(location: &Location, wanted: &str) -> Result<teu::NodeId, Failure> {
    let nodes = location.nodes();
    let found = nodes
        .iter()
        .find(|node| node.name == wanted || node.id.to_string().starts_with(wanted));
    found.map(|node| node.id).ok_or_else(|| {
        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        Usage::new(
            format!("the location has no node `{wanted}`"),
            format!("its nodes are: {}", names.join(", ")),
        )
        .into()
    })
}

/// `-d`: prints the id; background processes hold the published ports.
async fn detached(
    globals: &Globals,
    location: &Location,
    container: &Container,
    ports: &[PortSpec],
) -> Result<ExitCode, Failure> {
    if let Err(failure) = published::hold_in_background(globals, container, ports).await {
        // A container whose port could not be published is not what was asked for.
        let _ = container.destroy().await;
        location.close().await;
        return Err(failure);
    }
    output::line(&container.id().to_string())?;
    location.close().await;
    Ok(ExitCode::SUCCESS)
}

/// In the foreground: the terminal or the pipes are the program's until it ends.
async fn attached(
    container: &Container,
    process: Process,
    args: &RunArgs,
    stopper: crate::signals::Interrupts,
) -> Result<ExitCode, Failure> {
    let mut tunnels = Vec::new();
    if !args.publish.is_empty() {
        published::raise_file_limit();
    }
    for port in &args.publish {
        let listening = published::listen(container, port).await?;
        if port.is_any() {
            let local = listening.tunnel.local_addr();
            output::note(&format!("{local} → port {}", port.container));
        }
        tunnels.push(listening);
    }
    tokio::select! {
        end = stdio::converse(process, args.interactive, args.tty, stopper) => end,
        never = published::tell_refusals(tunnels.iter_mut()) => match never {},
    }
}
