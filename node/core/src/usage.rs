//! When measurements are worth a message.
//!
//! Pure. Invariant: what a placement decision would see changes by at most the thresholds here
//! without being told.

use teu_protocol::message::NodeUsage;

/// A twentieth of a core: an idle machine's own noise is below.
const CPU_NOISE_MILLIS: u64 = 50;
/// Memory goes up and down by this without anybody starting anything.
const MEMORY_NOISE_BYTES: u64 = 16 << 20;
/// Logs and journals write.
const DISK_NOISE_BYTES: u64 = 16 << 20;
/// Journals again.
const IO_NOISE_BYTES_PER_S: u64 = 1 << 20;

/// Whether `new` differs from what was told last by more than noise.
#[must_use]
pub fn is_worth_telling(told: &NodeUsage, new: &NodeUsage) -> bool {
    let differs = |a: u64, b: u64, noise: u64| a.abs_diff(b) > noise;
    told.containers != new.containers
        || told.memory_promised_bytes != new.memory_promised_bytes
        || told.cpu_promised_millis != new.cpu_promised_millis
        || differs(told.cpu_used_millis, new.cpu_used_millis, CPU_NOISE_MILLIS)
        || differs(
            told.memory_free_bytes,
            new.memory_free_bytes,
            MEMORY_NOISE_BYTES,
        )
        || differs(told.disk_free_bytes, new.disk_free_bytes, DISK_NOISE_BYTES)
        || differs(told.pool_free_bytes, new.pool_free_bytes, DISK_NOISE_BYTES)
        || differs(
            told.disk_read_bytes_per_s,
            new.disk_read_bytes_per_s,
            IO_NOISE_BYTES_PER_S,
        )
        || differs(
            told.disk_write_bytes_per_s,
            new.disk_write_bytes_per_s,
            IO_NOISE_BYTES_PER_S,
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_not_told_and_changes_are() {
        let told = NodeUsage {
            memory_free_bytes: 1 << 30,
            ..NodeUsage::default()
        };
        let changed = |change: fn(&mut NodeUsage)| {
            let mut new = told;
            change(&mut new);
            is_worth_telling(&told, &new)
        };
        assert!(!changed(|_| {}));
        assert!(!changed(|new| new.cpu_used_millis = 50));
        assert!(changed(|new| new.cpu_used_millis = 51));
        assert!(!changed(|new| new.memory_free_bytes -= 16 << 20));
        assert!(changed(|new| new.memory_free_bytes -= 17 << 20));
        assert!(changed(|new| new.containers = 1));
        assert!(changed(|new| new.disk_write_bytes_per_s = 2 << 20));
    }
}
