//! Places where a test may end the process: around what a volume's making and end write down.
//!
//! Owner: the broker. Invariant: without the feature `failpoints` nothing here does anything. They
//! are set by the environment variable FAILPOINTS, such as `volume-persist=panic`.

use teu_master_core::record::StoreOp;

/// All names.
pub const ALL: [&str; 6] = [
    // The node has made or changed it; the store does not know.
    "volume-persist",
    // The store knows; nobody was answered.
    "volume-persisted",
    // It is to be destroyed; neither the store nor the node knows.
    "volume-destroy-mark",
    // The store knows that it is to be destroyed; the node does not.
    "volume-destroy-marked",
    // The node has destroyed it; the store does not know.
    "volume-forget",
    // The store knows that it is gone; nobody was answered.
    "volume-forgotten",
];

/// A step whose writing down has a name before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Persist,
    Mark,
    Forget,
}

/// The steps that these records are about.
pub(crate) fn of(records: &[StoreOp]) -> Vec<Step> {
    let step = |record: &StoreOp| match record {
        StoreOp::PutVolume(volume) if volume.destroying => Some(Step::Mark),
        StoreOp::PutVolume(_) => Some(Step::Persist),
        StoreOp::RemoveVolume(_) => Some(Step::Forget),
        _ => None,
    };
    records.iter().filter_map(step).collect()
}

/// They are about to be written down.
pub(crate) fn before_commit(steps: &[Step]) {
    for step in steps {
        match step {
            Step::Persist => fail::fail_point!("volume-persist"),
            Step::Mark => fail::fail_point!("volume-destroy-mark"),
            Step::Forget => fail::fail_point!("volume-forget"),
        }
    }
}

/// They are durable; nothing that follows was done.
pub(crate) fn after_commit(steps: &[Step]) {
    for step in steps {
        match step {
            Step::Persist => fail::fail_point!("volume-persisted"),
            Step::Mark => fail::fail_point!("volume-destroy-marked"),
            Step::Forget => fail::fail_point!("volume-forgotten"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_point_is_there_and_no_other() {
        let source = include_str!("failpoints.rs");
        let mut there: Vec<_> = source
            .split("fail_point!(\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .filter(|name| name.starts_with("volume-"))
            .collect();
        let mut listed = ALL.to_vec();
        there.sort_unstable();
        listed.sort_unstable();
        assert_eq!(there, listed);
    }

    #[test]
    fn other_records_have_no_steps() {
        let id = teu_protocol::ids::VolumeId::from_bytes([1; 16]);
        let session = teu_protocol::ids::SessionId::from_bytes([1; 16]);
        let records = [StoreOp::RemoveSession(session), StoreOp::RemoveVolume(id)];
        assert_eq!(of(&records), [Step::Forget]);
    }
}
