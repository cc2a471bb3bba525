//! `spawn`: request to running, to the first page, many at once; docker beside it.

use std::time::{Duration, Instant};

use teu::Location;
use teu_integration::world::World;

use super::{
    peers,
    statistics::{Failure, Times},
};

const COUNT: usize = 100;
const PAGES: usize = 50;
const DOCKER_COUNT: usize = 20;

pub(crate) async fn run(world: &World) -> Result<(), Failure> {
    let location = world.connect().await?;
    // The first one extracts the layer.
    location
        .spawn("busybox")
        .command(["true"])
        .start()
        .await?
        .destroy()
        .await?;
    println!("spawn: a cached image, through the broker");
    one_by_one(&location)
        .await?
        .print("teu    spawn to running");
    first_page(&location)
        .await?
        .print("teu    spawn to first HTTP 200 (tunnel)");
    for count in [20, 100] {
        println!(
            "teu    {count} concurrent spawns {:>24.0} ms",
            parallel(&location, count).await?
        );
    }
    location.close().await;
    if peers::docker(world) {
        peers::docker_spawns(DOCKER_COUNT)?.print("docker run -d");
        peers::docker_first_page(DOCKER_COUNT)?.print("docker run -d -p to first HTTP 200");
        let all = peers::docker_parallel(20)?;
        println!(
            "docker 20 concurrent run -d {:>26.0} ms",
            all.as_secs_f64() * 1e3
        );
    } else {
        println!("docker: no engine answers here: not measured");
    }
    Ok(())
}

async fn one_by_one(location: &Location) -> Result<Times, Failure> {
    let mut times = Vec::new();
    for _ in 0..COUNT {
        let started = Instant::now();
        let container = location
            .spawn("busybox")
            .command(["sleep", "1000"])
            .start()
            .await?;
        times.push(started.elapsed());
        container.destroy().await?;
        // The node fills its warm slots between spawns, as it would between a program's.
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    Ok(Times::new(times))
}

async fn first_page(location: &Location) -> Result<Times, Failure> {
    let mut times = Vec::new();
    for _ in 0..PAGES {
        let started = Instant::now();
        let server = ["httpd", "-f", "-p", "80", "-h", "/var/www"];
        let container = location.spawn("busybox").command(server).start().await?;
        let tunnel = container.tunnel(80).await?;
        let address = tunnel.local_addr();
        let page = tokio::task::spawn_blocking(move || {
            while !teu_integration::world::try_get(address, "/")
                .is_ok_and(|(status, _)| status == 200)
            {
                std::thread::yield_now();
            }
        });
        page.await?;
        times.push(started.elapsed());
        container.destroy().await?;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    Ok(Times::new(times))
}

/// Milliseconds until the last of so many runs.
async fn parallel(location: &Location, count: usize) -> Result<f64, Failure> {
    let spawns: Vec<_> = (0..count)
        .map(|_| location.spawn("busybox").command(["sleep", "1000"]))
        .collect();
    let started = Instant::now();
    let containers = location.spawn_many(spawns).await;
    let elapsed = started.elapsed();
    for container in containers {
        container?.destroy().await?;
    }
    Ok(elapsed.as_secs_f64() * 1e3)
}
