//! Making a container ready: layers, slot, directory, record, start.
//!
//! Owner: a task for each container that is being spawned. Invariants: the record is on disk before
//! the outcome is told; whatever fails, or is no longer wanted, leaves nothing behind.

use std::{fs, os::unix::fs::OpenOptionsExt, path::PathBuf, sync::Arc};

use teu_node_core::{Input, plan::SpawnPlan};
use teu_protocol::{
    ids::{ContainerId, Digest},
    message::{Refusal, RefusalCode},
};
use tokio_util::sync::CancellationToken;

use super::{
    Sandbox, Yard, layers,
    refuse::{refuse_layer, refuse_slot},
    refuse_internal, refuse_start, room,
    start_plan::{Place, start_plan},
    watch_keeper,
};
use crate::{
    agent::Event,
    keeper::{StartPlan, VolumeMountPlan, sweep},
    layers::LayerPins,
    slots::WarmSlot,
    state::StoredContainer,
    volumes::worker::mount_plans,
};

/// Prepares, and tells `Event::Prepared`.
pub async fn prepare(yard: Yard, plan: SpawnPlan, uid_base: u32, unwanted: CancellationToken) {
    let container = plan.record.container;
    let result = tokio::select! {
        biased;
        // Whatever is under way is dropped: a slot goes back, a fetch ends.
        () = unwanted.cancelled() => Err(destroyed_meanwhile()),
        taken = take(&yard, &plan) => match taken {
            Ok(taken) => start(&yard, plan, uid_base, taken).await,
            Err(refusal) => Err(refusal),
        },
    };
    let _ = yard
        .events
        .send(Event::Prepared { container, result })
        .await;
}

fn destroyed_meanwhile() -> Refusal {
    Refusal::new(
        RefusalCode::NotFound,
        "the container was destroyed while it was prepared",
    )
}

/// What a container needs before it can be started.
struct Taken {
    slot: WarmSlot,
    /// Lowest first.
    layers: Vec<PathBuf>,
    pins: LayerPins,
    mounts: Vec<VolumeMountPlan>,
}

async fn take(yard: &Yard, plan: &SpawnPlan) -> Result<Taken, Refusal> {
    room::check_pids(&plan.record.limits)?;
    room::check(&yard.data)?;
    layers::ensure(yard, &plan.layers).await?;
    let digests: Vec<Digest> = plan.layers.iter().map(|layer| layer.digest).collect();
    let pins = yard
        .layers
        .pin(&digests)
        .map_err(|error| refuse_layer(&error))?;
    let mut lower = yard
        .layers
        .lower_dirs(&digests)
        .map_err(|error| refuse_layer(&error))?;
    // The store has the uppermost first, the keeper wants the lowest first.
    lower.reverse();
    let mounts = if plan.record.volumes.is_empty() {
        Vec::new()
    } else {
        let volumes = plan.record.volumes.clone();
        let plans = yard
            .volumes
            .run(move |pool| mount_plans(pool.as_ref(), &volumes));
        plans.await?
    };
    let slot = yard
        .slots
        .take()
        .await
        .map_err(|error| refuse_slot(&error))?;
    Ok(Taken {
        slot,
        layers: lower,
        pins,
        mounts,
    })
}

async fn start(
    yard: &Yard,
    mut plan: SpawnPlan,
    uid_base: u32,
    taken: Taken,
) -> Result<Sandbox, Refusal> {
    let Taken {
        slot: WarmSlot { keeper, net },
        layers,
        pins,
        mounts,
    } = taken;
    let container = plan.record.container;
    let dir = yard.data.container(container);
    plan.record.ip = Some(net.ip);
    plan.record.since_ms = (!plan.asleep).then(crate::agent::unix_ms);
    let gone = watch_keeper(yard, container, &keeper);
    let digests: Vec<Digest> = plan.layers.iter().map(|layer| layer.digest).collect();
    let sandbox = Sandbox {
        keeper,
        net,
        gone,
        layers: Arc::new(pins),
    };
    let stored = StoredContainer {
        record: plan.record.clone(),
        slot: sandbox.net.slot.clone(),
    };
    let place = Place {
        dir: &dir,
        uid_base,
        layers,
        address: sandbox.net.ip.into(),
        name_servers: yard.name_servers.clone(),
        mounts,
    };
    let start = start_plan(&plan, place);
    let asleep = plan.asleep;
    let bound = plan.record.limits.storage_bytes;
    drop(plan);
    let kept = {
        let dir = dir.clone();
        let made = move || {
            dir.make(uid_base, bound)?;
            dir.keep_layers(&digests)?;
            dir.keep(&stored)
        };
        tokio::task::spawn_blocking(made).await
    };
    let outcome = match kept {
        Ok(Ok(())) if asleep => keep_plan(yard, &start)
            .map_err(|error| refuse_internal("the container cannot be put to sleep", &error)),
        Ok(Ok(())) => match sandbox.keeper.start(start).await {
            Ok(_) => Ok(()),
            Err(error) => Err(refuse_start(&error)),
        },
        Ok(Err(error)) => Err(refuse_internal(
            "the container's files cannot be made",
            &error,
        )),
        Err(error) => Err(refuse_internal(
            "the container's files cannot be made",
            &error,
        )),
    };
    match outcome {
        Ok(()) => Ok(sandbox),
        Err(refusal) => {
            undo(yard, container, &sandbox).await;
            Err(refusal)
        }
    }
}

/// Everything that a failed start may have left.
async fn undo(yard: &Yard, container: ContainerId, sandbox: &Sandbox) {
    destroy_sandbox(yard, sandbox).await;
    let dir = yard.data.container(container);
    let plan = plan_path(yard, container);
    let removed = tokio::task::spawn_blocking(move || {
        let _ = fs::remove_file(plan);
        dir.remove()
    });
    if let Ok(Err(error)) = removed.await {
        tracing::warn!(%container, "left behind: {}", crate::link::chain(&error));
    }
}

/// Starts a container that sleeps, and tells `Input::Woken`.
pub async fn wake(yard: Yard, container: ContainerId, sandbox: Option<Sandbox>) {
    let result = wake_it(&yard, container, sandbox).await;
    let _ = yard
        .events
        .send(Event::Core(Input::Woken { container, result }))
        .await;
}

async fn wake_it(
    yard: &Yard,
    container: ContainerId,
    sandbox: Option<Sandbox>,
) -> Result<(), Refusal> {
    let no_plan = |error: &(dyn std::error::Error + 'static)| {
        refuse_internal(
            "the container's plan is gone; destroy it and spawn it again",
            error,
        )
    };
    let path = plan_path(yard, container);
    let bytes = fs::read(&path).map_err(|error| no_plan(&error))?;
    let plan: StartPlan =
        teu_protocol::message::decode_record(&bytes).map_err(|error| no_plan(&error))?;
    let _ = fs::remove_file(path);
    let Some(sandbox) = sandbox else {
        return Err(Refusal::new(
            RefusalCode::WrongState,
            "the container has no sandbox any more",
        ));
    };
    sandbox
        .keeper
        .start(plan)
        .await
        .map(drop)
        .map_err(|error| refuse_start(&error))
}

/// Where a sleeping container's plan is kept: in memory (tmpfs), for it may hold secrets, and
/// outside of the agent, which may restart meanwhile.
pub(super) fn plan_path(yard: &Yard, container: ContainerId) -> PathBuf {
    yard.run_dir.join("asleep").join(container.to_string())
}

fn keep_plan(yard: &Yard, plan: &StartPlan) -> std::io::Result<()> {
    use std::io::Write;
    let path = plan_path(yard, plan.container);
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let bytes = rmp_serde::to_vec_named(plan).map_err(std::io::Error::other)?;
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(&bytes)
}

/// How long a keeper may take to destroy its container before it is swept.
const DESTROY_PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Kills what runs, and gives slot and address back. What cannot be done is told in the log, and
/// found by the doctor.
pub(super) async fn destroy_sandbox(yard: &Yard, sandbox: &Sandbox) -> bool {
    let destroyed = tokio::time::timeout(DESTROY_PATIENCE, sandbox.keeper.destroy()).await;
    let clean = matches!(destroyed, Ok(Ok(()))) || {
        sandbox.keeper.kill();
        sweep_slot(yard, sandbox).await
    };
    release_network(yard, sandbox).await && clean
}

pub(super) async fn sweep_slot(yard: &Yard, sandbox: &Sandbox) -> bool {
    let (run_dir, parent) = (yard.run_dir.clone(), yard.cgroup_parent.clone());
    let slot = sandbox.net.slot.clone();
    let swept = tokio::task::spawn_blocking(move || sweep(&run_dir, &parent, &slot)).await;
    match swept {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(slot = %sandbox.net.slot, "not swept: {}", crate::link::chain(&error));
            false
        }
        Err(_) => false,
    }
}

pub(super) async fn release_network(yard: &Yard, sandbox: &Sandbox) -> bool {
    match yard.releaser.release(sandbox.net.slot.clone()).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(slot = %sandbox.net.slot, "network not released: {error}");
            false
        }
    }
}
