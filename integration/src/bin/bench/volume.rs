//! `volume`: snapshot, rollback and clone of an empty volume and of one with 10,000 files and
//! 1 GB, while it is mounted in a container. The times must not grow with the size.

use std::time::Instant;

use teu::{Container, Location, Volume};
use teu_integration::world::World;

use super::statistics::{Failure, Times};

const ROUNDS: usize = 20;
/// 10,000 files of 100 KiB: 1.02 GB.
const FILL: &str = "dd if=/dev/urandom of=/v/seed bs=1024 count=100 2>/dev/null; \
    for d in $(seq 100); do mkdir /v/$d; for f in $(seq 100); do cat /v/seed > /v/$d/$f; done; done; sync";

pub(crate) async fn run(world: &World) -> Result<(), Failure> {
    let location = world.connect().await?;
    println!("volume: mounted in a running container, each answer when durable");
    for (what, fill) in [("empty", None), ("10,000 files, 1 GB", Some(FILL))] {
        measure(&location, what, fill).await?;
    }
    location.close().await;
    Ok(())
}

async fn measure(location: &Location, what: &str, fill: Option<&str>) -> Result<(), Failure> {
    let volume = location.create_volume().await?;
    let container = location
        .spawn("busybox")
        .volume(&volume, "/v")
        .command(["sleep", "100000"])
        .start()
        .await?;
    if let Some(script) = fill {
        shell(&container, script).await?;
    }
    // Warm: the first snapshot also writes out what was cached.
    volume.snapshot("warm").await?;
    let (mut snapshots, mut rollbacks, mut clones) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let name = format!("s{round}");
        shell(&container, "echo changed > /v/changed").await?;
        let started = Instant::now();
        volume.snapshot(&name).await?;
        snapshots.push(started.elapsed());
        shell(&container, "rm /v/changed").await?;
        let started = Instant::now();
        volume.rollback(&name).await?;
        rollbacks.push(started.elapsed());
        let started = Instant::now();
        let clone = volume.clone_from(&name).await?;
        clones.push(started.elapsed());
        clone.destroy().await?;
    }
    Times::new(snapshots).print(&format!("teu    snapshot ({what})"));
    Times::new(rollbacks).print(&format!("teu    rollback ({what})"));
    Times::new(clones).print(&format!("teu    clone ({what})"));
    container.destroy().await?;
    destroy(volume).await
}

async fn destroy(volume: Volume) -> Result<(), Failure> {
    Ok(volume.destroy().await?)
}

async fn shell(container: &Container, script: &str) -> Result<(), Failure> {
    let output = container.run(["sh", "-c", script]).output().await?;
    if !output.termination.status.is_success() {
        return Err(format!("`{script}` failed").into());
    }
    Ok(())
}
