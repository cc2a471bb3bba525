//! Memory that a burst took goes back to the system when the burst is over.
//!
//! Owner: the server. Invariant: costs nothing while nothing large was freed.

use std::sync::{Arc, atomic::Ordering};

use tokio::time;

use crate::{
    bounds::{TRIM_ABOVE_BYTES, TRIM_EVERY},
    house::House,
};

/// Runs until the house stops.
pub(crate) async fn run(house: Arc<House>) {
    let mut check = time::interval(TRIM_EVERY);
    check.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut most = 0;
    loop {
        tokio::select! {
            () = house.stop.cancelled() => return,
            _ = check.tick() => {}
        }
        let (unfinished, peak) = house.inflow.bytes_and_peak();
        let others =
            house.budget.load(Ordering::Relaxed) + house.read_buffers.load(Ordering::Relaxed);
        let now = unfinished + others;
        most = most.max(peak + others);
        if most - now < TRIM_ABOVE_BYTES {
            continue;
        }
        most = now;
        // Walking the heap holds its locks: not on a thread that serves connections.
        let trimmed = tokio::task::spawn_blocking(teu_daemon::memory::give_back);
        if trimmed.await.is_err() {
            tracing::error!("freed memory could not be given back");
        }
    }
}
