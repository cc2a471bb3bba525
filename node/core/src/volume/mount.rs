//! Volumes in a container that is to be spawned.
//!
//! Pure. Invariant: a container that is prepared names only volumes that are there, that are its
//! account's, and that nobody destroys or fills meanwhile.

use std::collections::BTreeSet;

use teu_protocol::{
    ids::{PublicKey, VolumeId},
    message::{Refusal, RefusalCode, VolumeMount, VolumeOrder, VolumeState},
};

use super::{Queued, UnderWay, Volumes};

/// Each costs a mount.
const MAX_MOUNTS: usize = 32;

/// Linux's bound of a path.
const MAX_PATH_BYTES: usize = 4_095;

/// Checks the paths, and makes them plain: no `//`, no `.`, no `/` at the end.
pub(crate) fn check_mounts(mounts: &mut [VolumeMount]) -> Result<(), Refusal> {
    if mounts.len() > MAX_MOUNTS {
        let message = format!(
            "a container can have {MAX_MOUNTS} volumes, not {}",
            mounts.len()
        );
        return Err(Refusal::new(RefusalCode::LimitReached, message));
    }
    let mut seen = BTreeSet::new();
    for mount in mounts {
        mount.path = plain(&mount.path)?;
        if !seen.insert(mount.path.clone()) {
            let message = format!(
                "two volumes at {}; give each a place of its own",
                mount.path
            );
            return Err(Refusal::new(RefusalCode::BadRequest, message));
        }
    }
    Ok(())
}

fn plain(path: &str) -> Result<String, Refusal> {
    let shown: String = path.chars().take(200).collect();
    let bad = |why: &str| {
        let message = format!("a volume cannot be at `{shown}`: {why}");
        Err(Refusal::new(RefusalCode::BadRequest, message))
    };
    if !path.starts_with('/') {
        return bad("the path must be absolute");
    }
    if path.contains('\0') || path.len() > MAX_PATH_BYTES {
        return bad("that is no path of Linux");
    }
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if parts.contains(&"..") {
        return bad("the path must not contain `..`");
    }
    match parts.first() {
        None => bad("it would hide the image; choose a directory"),
        Some(&("proc" | "sys" | "dev")) => bad("that belongs to the kernel; choose another"),
        Some(_) => Ok(format!("/{}", parts.join("/"))),
    }
}

impl Volumes {
    /// Whether a container of the account can have these now.
    pub(crate) fn may_mount(
        &self,
        account: PublicKey,
        mounts: &[VolumeMount],
    ) -> Result<(), Refusal> {
        let refuse = |code, message: String| Err(Refusal::new(code, message));
        for mount in mounts {
            let short = mount.volume.short();
            let volume = match self.table.get(&mount.volume) {
                Some(volume) if volume.record.account == account => volume,
                _ => {
                    let message = format!("the node has no volume {short}");
                    return refuse(RefusalCode::NotFound, message);
                }
            };
            if let Some(what) = self.bars(mount.volume) {
                return refuse(RefusalCode::Busy, format!("volume {short} {what}"));
            }
            match volume.state {
                VolumeState::Ready => {}
                VolumeState::Missing => {
                    let message = format!("volume {short} is missing from the node's pool");
                    return refuse(RefusalCode::NotFound, message);
                }
                VolumeState::Faulted | VolumeState::NodeLost => {
                    let message =
                        format!("volume {short} cannot be used now; `teu doctor` says why");
                    return refuse(RefusalCode::Faulted, message);
                }
            }
            if self.is_rolling_back(mount.volume) {
                let message = format!("volume {short} is being rolled back; try again in a moment");
                return refuse(RefusalCode::Unavailable, message);
            }
        }
        Ok(())
    }

    pub(crate) fn is_rolling_back(&self, id: VolumeId) -> bool {
        self.has_ahead(id, |order| matches!(order, VolumeOrder::RollBack(_)))
    }

    /// What keeps new users away from a volume.
    pub(super) fn bars(&self, id: VolumeId) -> Option<&'static str> {
        if self.has_ahead(id, |order| matches!(order, VolumeOrder::Destroy(_))) {
            Some("is being destroyed")
        } else if self.has_ahead(id, |order| matches!(order, VolumeOrder::Import { .. })) {
            Some("is being imported")
        } else if self.table.get(&id).is_some_and(|one| one.making) {
            Some("is still being made")
        } else {
            None
        }
    }

    /// Whether such an order is under way or waits.
    pub(super) fn has_ahead(&self, id: VolumeId, is: impl Fn(&VolumeOrder) -> bool) -> bool {
        let Some(volume) = self.table.get(&id) else {
            return false;
        };
        let waits = volume.queue.iter().any(|queued| match queued {
            Queued::Order(_, order) => is(order),
            Queued::Scheduled => false,
        });
        let changes = volume
            .changing
            .and_then(|ticket| self.tickets.get(&ticket))
            .is_some_and(|(_, way)| match way {
                UnderWay::Order { order, .. } => is(order),
                UnderWay::Scheduled(_) => false,
            });
        waits || changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(paths: &[&str]) -> Result<Vec<String>, RefusalCode> {
        let mount = |path: &&str| VolumeMount {
            volume: VolumeId::from_bytes([1; 16]),
            path: (*path).to_owned(),
            read_only: false,
        };
        let mut mounts: Vec<VolumeMount> = paths.iter().map(mount).collect();
        check_mounts(&mut mounts).map_err(|refusal| refusal.code)?;
        Ok(mounts.into_iter().map(|mount| mount.path).collect())
    }

    #[test]
    fn paths_are_made_plain_and_bad_ones_are_refused() {
        assert_eq!(checked(&["//a/./b/"]), Ok(vec!["/a/b".to_owned()]));
        assert_eq!(checked(&["/devices", "/a...b"]).map(|all| all.len()), Ok(2));
        for bad in [
            "", "a", "/", "/.", "//", "/a/../b", "/proc", "/sys/x", "/dev/shm", "/./dev", "/a\0b",
        ] {
            assert_eq!(checked(&[bad]), Err(RefusalCode::BadRequest), "{bad:?}");
        }
        assert_eq!(checked(&["/a", "/a/"]), Err(RefusalCode::BadRequest));
        let many: Vec<String> = (0..33).map(|n| format!("/v{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(checked(&many), Err(RefusalCode::LimitReached));
        assert_eq!(checked(&many[..32]).map(|all| all.len()), Ok(32));
    }
}
