//! The trees of a container's volumes, opened where they have paths: in the agent.
//!
//! Owner: the agent's end of a keeper. Invariant: what is opened is a detached mount, which goes with
//! its last descriptor. Next: `volumes` for what the stub does with them.

use std::os::fd::OwnedFd;

use super::{
    plan::StartPlan,
    wire::{Refusal, StartStep},
};
use crate::sys::{idmap, seqpacket};

/// Volumes in one container: their trees travel in one message, with the plan.
const MOUNTS_MAX: usize = seqpacket::FDS_MAX - 1;

/// Opens the trees of a plan's volumes. The pool may make that wait, so not on the event loop.
pub(super) async fn with_trees(plan: StartPlan) -> Result<(StartPlan, Vec<OwnedFd>), Refusal> {
    if plan.mounts.is_empty() {
        return Ok((plan, Vec::new()));
    }
    let failed = |reason: String| Refusal::Failed {
        step: StartStep::MountVolumes,
        reason,
    };
    if plan.mounts.len() > MOUNTS_MAX {
        return Err(failed(format!(
            "{} volumes, at most {MOUNTS_MAX} can be mounted",
            plan.mounts.len()
        )));
    }
    let opened = tokio::task::spawn_blocking(move || {
        let trees = plan.mounts.iter().map(|mount| {
            idmap::open_clone(&mount.source)
                .map_err(|error| format!("the volume for {}: {error}", mount.target.display()))
        });
        let trees = trees.collect::<Result<Vec<_>, _>>();
        trees.map(|trees| (plan, trees))
    });
    opened
        .await
        .map_err(|error| failed(error.to_string()))?
        .map_err(failed)
}
