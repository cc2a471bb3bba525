//! What the machine has, and what of it is in use, once a second.
//!
//! Owner: one task, which measures and tells the event loop; whether that is worth a message is
//! `teu_node_core::usage`'s decision. Invariant: a file that cannot be read counts as no load, never
//! as an error. Next: `proc` for the formats.

mod proc;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use teu_protocol::message::{NodeCapacity, NodeUsage};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use crate::agent::Event;
use proc::{CpuTime, DiskBytes};

/// Often enough for placement, rarely enough to cost nothing.
const PERIOD: Duration = Duration::from_secs(1);

/// Measures now, and from now on in the background.
#[must_use]
pub fn start(data: &Path, events: mpsc::Sender<Event>) -> (NodeCapacity, NodeUsage) {
    let mut sampler = Sampler {
        data: data.to_owned(),
        before: Reading::now(),
    };
    let first = sampler.sample();
    let capacity = sampler.capacity();
    tokio::spawn(async move {
        let mut period = interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            let usage = sampler.sample();
            if events.send(Event::Measured(usage)).await.is_err() {
                return;
            }
        }
    });
    (capacity, first)
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    cpu: CpuTime,
    disk: DiskBytes,
}

impl Reading {
    fn now() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let is_whole_disk = |name: &str| Path::new("/sys/block").join(name).exists();
        Self {
            at: Instant::now(),
            cpu: proc::cpu_time(&read("/proc/stat")),
            disk: proc::disk_bytes(&read("/proc/diskstats"), is_whole_disk),
        }
    }
}

#[derive(Debug)]
struct Sampler {
    data: PathBuf,
    before: Reading,
}

impl Sampler {
    fn capacity(&self) -> NodeCapacity {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        NodeCapacity {
            cpu_millis: cores * 1000,
            memory_bytes: proc::memory_bytes(&memory, "MemTotal"),
            disk_bytes: rustix::fs::statvfs(&self.data)
                .map_or(0, |disk| disk.f_blocks * disk.f_frsize),
            pool_bytes: 0,
        }
    }

    fn sample(&mut self) -> NodeUsage {
        let now = Reading::now();
        let before = std::mem::replace(&mut self.before, now);
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let elapsed_ms = u64::try_from((now.at - before.at).as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let per_s = |now: u64, before: u64| now.saturating_sub(before) * 1000 / elapsed_ms;
        NodeUsage {
            cpu_used_millis: now.cpu.used_millis_since(&before.cpu),
            memory_free_bytes: proc::memory_bytes(&memory, "MemAvailable"),
            disk_free_bytes: rustix::fs::statvfs(&self.data)
                .map_or(0, |disk| disk.f_bavail * disk.f_frsize),
            disk_read_bytes_per_s: per_s(now.disk.read, before.disk.read),
            disk_write_bytes_per_s: per_s(now.disk.written, before.disk.written),
            ..NodeUsage::default()
        }
    }
}
