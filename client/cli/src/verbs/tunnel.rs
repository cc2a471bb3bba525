//! `teu tunnel`: a container's port on localhost, for as long as the command runs.

use std::process::ExitCode;

use clap::Args;
use teu::{Container, ContainerState};

use crate::{
    args::Globals,
    failure::{Failure, Usage},
    output, published,
    published::PortSpec,
    signals::{INTERRUPTED, Interrupts},
};

/// Arguments of `teu tunnel`.
#[derive(Debug, Args)]
#[command(after_help = "The tunnel survives reconnects; it ends with the container or on Ctrl-C.")]
pub(crate) struct TunnelArgs {
    /// Used by `teu run -d -p`: record the tunnel, and end when the container does
    #[arg(long, hide = true)]
    hold: bool,
    /// The container's name or id
    container: String,
    /// Ports
    #[arg(required = true, value_name = "[[IP:]LOCAL:]CONTAINER")]
    ports: Vec<PortSpec>,
}

/// Runs `teu tunnel`.
pub(crate) async fn run(globals: &Globals, args: TunnelArgs) -> Result<ExitCode, Failure> {
    let location = super::connect(globals, "tunnel").await?;
    let container = super::find(globals, &location, &args.container).await?;
    refuse_ended(&container)?;
    published::raise_file_limit();
    let interrupts = Interrupts::listen().map_err(Failure::Terminal)?;
    let mut tunnels = Vec::new();
    for port in &args.ports {
        let listening = published::listen(&container, port).await?;
        let local = listening.tunnel.local_addr();
        output::line(&format!("{local} -> {}", port.container))?;
        tunnels.push((listening, port.container));
    }
    let record = if args.hold {
        Some(published::Record::write(globals, container.id(), &tunnels)?)
    } else {
        None
    };
    if args.hold {
        // Tells the `teu run` that waits for us.
        output::line("ready")?;
    }
    let listening = tunnels.iter_mut().map(|(listening, _)| listening);
    let code = tokio::select! {
        _ = container.wait_exit() => ExitCode::SUCCESS,
        () = interrupts.first() => ExitCode::from(INTERRUPTED),
        // Nobody reads what a holder says.
        never = published::tell_refusals(listening), if !args.hold => match never {},
    };
    drop(record);
    location.close().await;
    Ok(code)
}

/// In a container that has ended nothing will ever listen.
fn refuse_ended(container: &Container) -> Result<(), Failure> {
    if !matches!(container.info().state, ContainerState::Exited { .. }) {
        return Ok(());
    }
    let id = container.id().short();
    Err(Usage::new(
        format!("container {id} has exited: nothing listens in it"),
        format!("`teu logs {id}` shows why; `teu run` starts another"),
    )
    .into())
}
