//! Giving back what a container had: its sandbox when it ended, everything when it is destroyed.
//!
//! Owner: a task each. Invariants: an address is released only after what it was allowed is cut;
//! an outcome is told when nothing is left, or what is left is named.

use std::time::Duration;

use teu_node_core::Input;
use teu_protocol::{
    ids::ContainerId,
    message::{Refusal, RefusalCode},
};
use tokio_util::sync::CancellationToken;

use super::{
    Sandbox, Yard,
    prepare::{destroy_sandbox, plan_path, release_network, sweep_slot},
    refuse_internal,
};
use crate::agent::Event;

/// A keeper removes its cgroup and leaves within milliseconds of its container's end.
const LEAVE_PATIENCE: Duration = Duration::from_secs(10);

/// What is still in a dead server's sockets gets this long to reach its readers.
const CUT_AFTER: Duration = Duration::from_secs(1);

/// Gives the sandbox of a container that ended back, and tells `Input::Released`.
pub async fn release(
    yard: Yard,
    container: ContainerId,
    sandbox: Option<Sandbox>,
    cut: CancellationToken,
) {
    if let Some(sandbox) = sandbox {
        if tokio::time::timeout(LEAVE_PATIENCE, sandbox.gone.cancelled())
            .await
            .is_err()
        {
            sandbox.keeper.kill();
        }
        // A keeper that was killed has removed nothing; after one that left well nothing is there.
        sweep_slot(&yard, &sandbox).await;
        release_network(&yard, &sandbox).await;
    }
    let _ = yard
        .events
        .send(Event::Core(Input::Released { container }))
        .await;
    tokio::time::sleep(CUT_AFTER).await;
    cut.cancel();
}

/// Kills and removes everything, and tells `Input::Removed`.
pub async fn remove(
    yard: Yard,
    container: ContainerId,
    sandbox: Option<Sandbox>,
    cut: CancellationToken,
) {
    let result = remove_it(&yard, container, sandbox).await;
    cut.cancel();
    let _ = yard
        .events
        .send(Event::Core(Input::Removed { container, result }))
        .await;
}

async fn remove_it(
    yard: &Yard,
    container: ContainerId,
    sandbox: Option<Sandbox>,
) -> Result<(), Refusal> {
    if let Some(sandbox) = sandbox {
        if !destroy_sandbox(yard, &sandbox).await {
            let message = "something of the container could not be removed; the node's log says \
                           what. Destroy it again, or see `teu doctor`";
            return Err(Refusal::new(RefusalCode::Internal, message));
        }
        // What the keeper told last (its exit) comes before the container's end.
        let _ = tokio::time::timeout(LEAVE_PATIENCE, sandbox.gone.cancelled()).await;
    }
    let dir = yard.data.container(container);
    let plan = plan_path(yard, container);
    let removed = tokio::task::spawn_blocking(move || {
        let _ = std::fs::remove_file(plan);
        dir.remove()
    });
    match removed.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(refuse_internal(
            "the container's files cannot be removed",
            &error,
        )),
        Err(error) => Err(refuse_internal(
            "the container's files cannot be removed",
            &error,
        )),
    }
}
