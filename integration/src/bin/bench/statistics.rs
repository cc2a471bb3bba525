//! Percentiles of measured times.

use std::time::Duration;

/// Measured times, sorted.
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn new(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self(times)
    }

    /// The time that `percent` of all do not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let last = self.0.len().saturating_sub(1);
        self.0
            .get((self.0.len() * percent / 100).min(last))
            .copied()
            .unwrap_or_default()
    }

    /// Prints a row: name, p50, p99, count.
    pub(crate) fn print(&self, name: &str) {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "{name:<44} p50 {:>9.2} ms   p99 {:>9.2} ms   ({} times)",
            milliseconds(self.percentile(50)),
            milliseconds(self.percentile(99)),
            self.0.len()
        );
    }
}

/// A thing that failed in a benchmark: it ends it.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
