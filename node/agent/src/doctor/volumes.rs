//! How the pool of volumes fares.
//!
//! Invariant: as all findings, one that is not good says how to mend it.

use std::sync::Arc;

use teu_protocol::{
    ids::VolumeId,
    message::{Finding, Severity, VolumeState},
};

use super::{good, poor};
use crate::volumes::{
    pool::{Pool, PoolSpace},
    worker::PoolView,
};

/// Above this, writers meet the end soon: btrfs and zfs both slow down before it.
const FULL_PERCENT: u64 = 90;

const SUBJECT: &str = "volumes";

/// Looks at the pool, which may take a second.
pub(super) async fn findings(view: PoolView, unwell: &[(VolumeId, VolumeState)]) -> Vec<Finding> {
    let described = match view.pool.clone() {
        Some(pool) => tokio::task::spawn_blocking(move || described(&pool))
            .await
            .ok(),
        None => None,
    };
    report(&view, described, unwell)
}

fn described(pool: &Arc<dyn Pool>) -> (String, Vec<String>) {
    (pool.describe(), pool.warnings())
}

fn report(
    view: &PoolView,
    described: Option<(String, Vec<String>)>,
    unwell: &[(VolumeId, VolumeState)],
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (what, warnings) = described.unwrap_or_default();
    match (&view.why, view.space) {
        (Some(why), _) if view.is_off => {
            let message = format!("this node has none: {why}");
            let cure = "to have some, install btrfs-progs, or start the node with `--pool`";
            findings.push(poor(Severity::Warning, SUBJECT, message, cure));
        }
        (Some(why), _) => {
            let what = if what.is_empty() { "the pool" } else { &what };
            let message = format!("{what} cannot be used: {why}");
            let cure = "mend that (import the pool, mount the disk, install the program); the node \
                        tries again by itself";
            findings.push(poor(Severity::Bad, SUBJECT, message, cure));
        }
        (None, Some(space)) => findings.push(room(&what, space)),
        (None, None) => {
            let message = "the pool is being opened".to_owned();
            findings.push(poor(
                Severity::Warning,
                SUBJECT,
                message,
                "look again in a minute",
            ));
        }
    }
    for warning in warnings {
        let (message, cure) = warning
            .split_once("; ")
            .map_or((warning.as_str(), "see to it"), |(message, cure)| {
                (message, cure)
            });
        findings.push(poor(Severity::Warning, SUBJECT, message.to_owned(), cure));
    }
    for (id, state) in unwell {
        let (message, cure) = match state {
            VolumeState::Missing => (
                "is missing from the pool: somebody removed it by hand",
                "`teu volume rm` forgets it; what it held is gone",
            ),
            _ => (
                "cannot be used now",
                "see the pool's own finding; else look at it with the pool's own tools",
            ),
        };
        let message = format!("volume {} {message}", id.short());
        findings.push(poor(Severity::Bad, SUBJECT, message, cure));
    }
    for id in &view.unreadable {
        if unwell.iter().any(|(known, _)| known == id) {
            continue;
        }
        let message = format!(
            "volume {} is there, but its record cannot be read",
            id.short()
        );
        let cure = "its files are in the pool: copy them, then remove it with the pool's own tools";
        findings.push(poor(Severity::Bad, SUBJECT, message, cure));
    }
    findings
}

fn room(what: &str, PoolSpace { total, free }: PoolSpace) -> Finding {
    let message = format!("{what}: {} of {} MiB free", free >> 20, total >> 20);
    let used = total.saturating_sub(free);
    if total > 0 && used / FULL_PERCENT >= total / 100 {
        let cure = "destroy snapshots or volumes, or give the pool more room";
        return poor(Severity::Warning, SUBJECT, message, cure);
    }
    good(SUBJECT, &message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(findings: &[Finding]) -> Vec<(Severity, String)> {
        findings
            .iter()
            .map(|one| (one.severity, one.message.clone()))
            .collect()
    }

    #[test]
    fn room_is_good_until_nine_tenths_are_used() {
        let (gib, severity) = (1_u64 << 30, |free| {
            room(
                "it",
                PoolSpace {
                    total: 100 << 30,
                    free,
                },
            )
            .severity
        });
        assert_eq!(severity(11 * gib), Severity::Good);
        assert_eq!(severity(10 * gib), Severity::Warning);
        assert_eq!(severity(0), Severity::Warning);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_cure() {
        let id = |n| VolumeId::from_bytes([n; 16]);
        let view = PoolView {
            why: Some("the pool `tank` is not imported".into()),
            unreadable: vec![id(2)],
            ..PoolView::default()
        };
        let findings = report(&view, None, &[(id(1), VolumeState::Missing)]);
        assert!(findings.iter().all(|one| one.cure.is_some()));
        let texts = texts(&findings);
        assert_eq!(texts[0].0, Severity::Bad);
        assert!(texts[0].1.contains("not imported"));
        assert!(texts[1].1.contains("010101010101 is missing"));
        assert!(texts[2].1.contains("020202020202"));
        let off = PoolView {
            why: Some("turned off".into()),
            is_off: true,
            ..PoolView::default()
        };
        assert_eq!(report(&off, None, &[])[0].severity, Severity::Warning);
    }
}
