//! `volume`: snapshot, rollback and clone of volumes with 100, 1,000 and 10,000 files of 100 KiB (1 GB), while
//! they are mounted in a container. The times must not grow with the size.
//!
//! Peers: the same steps by hand with `btrfs`, which is the floor, and a copy of the files, which is
//! how volumes of engines without snapshots are kept.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use teu::{Container, Location, Volume};
use teu_integration::world::World;

use super::{
    peers,
    statistics::{Failure, Times},
};

const ROUNDS: usize = 20;
/// Directories of a hundred files each.
const SIZES: [(&str, u32); 3] = [
    ("100 files, 10 MB", 1),
    ("1,000 files, 100 MB", 10),
    ("10,000 files, 1 GB", 100),
];

pub(crate) async fn run(world: &World) -> Result<(), Failure> {
    let location = world.connect().await?;
    println!("volume: mounted in a running container, each answer when durable");
    for (what, directories) in SIZES {
        measure(world, &location, what, directories).await?;
    }
    location.close().await;
    Ok(())
}

async fn measure(
    world: &World,
    location: &Location,
    what: &str,
    directories: u32,
) -> Result<(), Failure> {
    let volume = location.create_volume().await?;
    let container = location
        .spawn("busybox")
        .volume(&volume, "/v")
        .command(["sleep", "100000"])
        .start()
        .await?;
    let fill = format!(
        "dd if=/dev/urandom of=/v/seed bs=1024 count=100 2>/dev/null; for d in $(seq {directories}); do \
         mkdir /v/$d; for f in $(seq 100); do cat /v/seed > /v/$d/$f; done; done; sync"
    );
    shell(&container, &fill).await?;
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
    if let Some(tree) = tree(world, &volume)? {
        peers::btrfs_snapshots(&tree, ROUNDS)?
            .print(&format!("btrfs  subvolume snapshot, sync ({what})"));
        peers::copies(&tree, 3)?.print(&format!("cp -a, sync ({what})"));
    }
    container.destroy().await?;
    Ok(volume.destroy().await?)
}

/// The volume's files on the machine, if its pool is btrfs.
fn tree(world: &World, volume: &Volume) -> Result<Option<PathBuf>, Failure> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let pool = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (target, kind) = (Path::new(fields.next()?), fields.next()?);
        (kind == "btrfs" && target.starts_with(world.data())).then(|| target.to_owned())
    });
    let tree = |pool: PathBuf| {
        pool.join("volumes")
            .join(volume.id().to_string())
            .join("tree")
    };
    Ok(pool.map(tree).filter(|tree| tree.is_dir()))
}

async fn shell(container: &Container, script: &str) -> Result<(), Failure> {
    let output = container.run(["sh", "-c", script]).output().await?;
    if !output.termination.status.is_success() {
        return Err(format!("`{script}` failed").into());
    }
    Ok(())
}
