//! Spawn many containers at once (their number is the first argument, default 20), and time it.
#![allow(clippy::print_stdout)]

use std::time::Instant;

#[tokio::main]
async fn main() -> teu::Result<()> {
    let count = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(20);
    let location = teu::Location::connect().await?;
    let image = location.images().find("busybox").await?;

    let start = Instant::now();
    let builders = (0..count).map(|number| {
        location
            .spawn(&image)
            .command(["sleep", "3600"])
            .label("number", number.to_string())
    });
    let spawned = location.spawn_many(builders).await;
    let took = start.elapsed();

    let running: Vec<_> = spawned.into_iter().collect::<teu::Result<_>>()?;
    println!("{} containers run after {took:?}", running.len());
    for node in location.ranked_nodes() {
        println!("{}: {} containers", node.name, node.usage.containers);
    }
    // All of them belong to this session: they go with it.
    location.close().await;
    Ok(())
}
