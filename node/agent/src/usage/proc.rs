//! The kernel's text files about itself.
//!
//! Pure. Invariant: a line that is not as proc(5) says is left out.

/// From `/proc/stat`, in clock ticks since boot, over all cores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct CpuTime {
    busy: u64,
    total: u64,
    cores: u64,
}

impl CpuTime {
    /// Thousandths of a core in use on average since then.
    pub(super) fn used_millis_since(&self, before: &Self) -> u64 {
        let busy = self.busy.saturating_sub(before.busy);
        let total = self.total.saturating_sub(before.total);
        (busy * self.cores * 1000).checked_div(total).unwrap_or(0)
    }
}

/// Reads `cpu  user nice system idle iowait irq softirq steal …`.
pub(super) fn cpu_time(stat: &str) -> CpuTime {
    let mut time = CpuTime::default();
    for line in stat.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("cpu") => {
                let ticks: Vec<u64> = words.map_while(|word| word.parse().ok()).take(8).collect();
                let idle: u64 = ticks.iter().skip(3).take(2).sum();
                time.total = ticks.iter().sum();
                time.busy = time.total - idle;
            }
            Some(name) if name.starts_with("cpu") => time.cores += 1,
            _ => {}
        }
    }
    time
}

/// From `/proc/meminfo`: a line's kibibytes, in bytes.
pub(super) fn memory_bytes(meminfo: &str, name: &str) -> u64 {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kibibytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// Bytes moved since boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct DiskBytes {
    pub(super) read: u64,
    pub(super) written: u64,
}

/// The kernel's unit in `/proc/diskstats`, whatever the device's own.
const SECTOR_BYTES: u64 = 512;

/// Sums whole disks (a partition's bytes are its disk's as well), without loops and memory.
pub(super) fn disk_bytes(diskstats: &str, is_whole_disk: impl Fn(&str) -> bool) -> DiskBytes {
    let mut sum = DiskBytes::default();
    for line in diskstats.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, _, name, _, _, read, _, _, _, written, ..] = words.as_slice() else {
            continue;
        };
        let virtual_disk = ["loop", "ram", "zram", "dm-", "md"]
            .iter()
            .any(|v| name.starts_with(v));
        if virtual_disk || !is_whole_disk(name) {
            continue;
        }
        sum.read += read.parse().unwrap_or(0) * SECTOR_BYTES;
        sum.written += written.parse().unwrap_or(0) * SECTOR_BYTES;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_use_is_counted_in_thousandths_of_a_core() {
        let before = cpu_time("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2\ncpu1 3 4\nctxt 5\n");
        let after = cpu_time("cpu  150 0 150 750 150 0 0 0 0 0\ncpu0 1 2\ncpu1 3 4\nctxt 5\n");
        // Half of two cores.
        assert_eq!(after.used_millis_since(&before), 1000);
        assert_eq!(before.used_millis_since(&before), 0);
        assert_eq!(cpu_time("nonsense"), CpuTime::default());
    }

    #[test]
    fn memory_and_disks_are_read() {
        let meminfo = "MemTotal:       2048 kB\nMemAvailable:   1024 kB\n";
        assert_eq!(memory_bytes(meminfo, "MemAvailable"), 1 << 20);
        assert_eq!(memory_bytes(meminfo, "MemAvail"), 0);
        let stats = "   8       0 sda 1 0 10 0 1 0 20 0 0 0 0\n   8       1 sda1 1 0 10 0 1 0 20 0 0 0 0\n \
                     7 0 loop0 1 0 99 0 1 0 99 0 0 0 0\nshort\n";
        let sum = disk_bytes(stats, |name| name == "sda" || name == "loop0");
        assert_eq!(
            sum,
            DiskBytes {
                read: 5120,
                written: 10240
            }
        );
    }
}
