//! `rpc`: requests through the broker: to the master and back, to the node and back, many at once.

use std::time::Instant;

use teu::Container;
use teu_integration::world::World;

use super::statistics::{Failure, Times};

const COUNT: usize = 5_000;
const CONCURRENT: usize = 64;
const MANY: usize = 40_000;

pub(crate) async fn run(world: &World) -> Result<(), Failure> {
    println!("rpc: request and reply");
    let location = world.connect().await?;
    let container = location
        .spawn("busybox")
        .command(["sleep", "1000"])
        .start()
        .await?;
    let mut to_master = Vec::new();
    for _ in 0..COUNT {
        let started = Instant::now();
        location.sessions().list().await?;
        to_master.push(started.elapsed());
    }
    Times::new(to_master).print("teu    client → master → client");
    let mut to_node = Vec::new();
    for _ in 0..COUNT {
        let started = Instant::now();
        container.detail().await?;
        to_node.push(started.elapsed());
    }
    Times::new(to_node).print("teu    client → master → node and back");
    let started = Instant::now();
    let loads = (0..CONCURRENT).map(|_| load(&container));
    futures::future::try_join_all(loads).await?;
    // Each is four brokered messages: request and reply, on both legs.
    let messages = (MANY * 4) as f64 / started.elapsed().as_secs_f64();
    println!("teu    brokered messages, {CONCURRENT} at once {messages:>19.0} /s");
    container.destroy().await?;
    location.close().await;
    Ok(())
}

async fn load(container: &Container) -> Result<(), Failure> {
    for _ in 0..MANY / CONCURRENT {
        container.detail().await?;
    }
    Ok(())
}
