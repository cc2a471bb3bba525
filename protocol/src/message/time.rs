//! Times and spans of messages, as the standard library's types.
//!
//! Messages carry milliseconds since 1970 (UTC) and seconds, which any language reads. Invariant: a
//! conversion never panics, whatever number a peer sent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{
    ContainerInfo, ContainerState, ImageInfo, SessionInfo, SnapshotInfo, SnapshotSchedule,
    VolumeInfo,
};

/// A time that [`SystemTime`] cannot hold becomes 1970.
fn since_1970(ms: u64) -> SystemTime {
    UNIX_EPOCH
        .checked_add(Duration::from_millis(ms))
        .unwrap_or(UNIX_EPOCH)
}

impl ContainerInfo {
    /// When the location accepted it.
    #[must_use]
    pub fn created(&self) -> SystemTime {
        since_1970(self.created_ms)
    }
}

impl ContainerState {
    /// Since when it runs, or when it ended.
    #[must_use]
    pub fn since(&self) -> Option<SystemTime> {
        match self {
            Self::Running { since_ms } => Some(since_1970(*since_ms)),
            Self::Exited { at_ms, .. } => Some(since_1970(*at_ms)),
            _ => None,
        }
    }
}

impl SessionInfo {
    /// When it began.
    #[must_use]
    pub fn created(&self) -> SystemTime {
        since_1970(self.created_ms)
    }
}

impl ImageInfo {
    /// When the account added it to the catalogue.
    #[must_use]
    pub fn added(&self) -> SystemTime {
        since_1970(self.added_ms)
    }
}

impl VolumeInfo {
    /// When it was made.
    #[must_use]
    pub fn created(&self) -> SystemTime {
        since_1970(self.created_ms)
    }
}

impl SnapshotInfo {
    /// When it was made.
    #[must_use]
    pub fn created(&self) -> SystemTime {
        since_1970(self.created_ms)
    }
}

impl SnapshotSchedule {
    /// How often a snapshot is made.
    #[must_use]
    pub const fn every(&self) -> Duration {
        Duration::from_secs(self.every_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_is_a_time() {
        assert_eq!(since_1970(1_500), UNIX_EPOCH + Duration::from_millis(1_500));
        let _ = since_1970(u64::MAX);
    }
}
