//! Names of a ZFS pool's datasets and snapshots.
//!
//! Owner: the ZFS pool. Invariant: what begins with `making:` or `gone:` is hidden; no id and no tag
//! has a colon, so nobody's name is one of these.

use teu_protocol::ids::{Tag, VolumeId};

const MAKING: &str = "making:";
const GONE: &str = "gone:";

/// What a dataset below the parent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Volume(VolumeId),
    /// Being received.
    Making(VolumeId),
    /// Destroyed; clones need its snapshots.
    Gone,
    /// Not ours.
    Foreign,
}

/// The dataset below which all lies.
#[derive(Debug, Clone)]
pub(super) struct Parent(pub(super) String);

impl Parent {
    pub(super) fn volume(&self, id: VolumeId) -> String {
        format!("{}/{id}", self.0)
    }

    pub(super) fn making(&self, id: VolumeId) -> String {
        format!("{}/{MAKING}{id}", self.0)
    }

    /// `mark` makes it the only one of its name.
    pub(super) fn gone(&self, id: VolumeId, mark: u128) -> String {
        format!("{}/{GONE}{id}.{mark}", self.0)
    }

    /// The pool it lies in.
    pub(super) fn pool(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    pub(super) fn kind(&self, dataset: &str) -> Kind {
        let below = dataset
            .strip_prefix(&self.0)
            .and_then(|rest| rest.strip_prefix('/'));
        let Some(name) = below else {
            return Kind::Foreign;
        };
        let making = name.strip_prefix(MAKING).and_then(|id| id.parse().ok());
        match (making, name.parse()) {
            (Some(id), _) => Kind::Making(id),
            (None, Ok(id)) => Kind::Volume(id),
            _ if name.starts_with(GONE) => Kind::Gone,
            _ => Kind::Foreign,
        }
    }
}

/// `dataset@name`.
pub(super) fn at(dataset: &str, name: &Tag) -> String {
    format!("{dataset}@{name}")
}

/// What a snapshot is called that was destroyed while clones need it.
pub(super) fn gone_snapshot(dataset: &str, name: &Tag, mark: u128) -> String {
    format!("{dataset}@{GONE}{mark}:{name}")
}

/// A snapshot's name, and whether it is gone.
pub(super) fn snapshot_name(name: &str) -> Option<(Tag, bool)> {
    let name = name.split_once('@')?.1;
    match name.strip_prefix(GONE) {
        None => Some((name.parse().ok()?, false)),
        Some(rest) => Some((rest.split_once(':')?.1.parse().ok()?, true)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let (parent, id) = (Parent("tank/teu".to_owned()), VolumeId::from_bytes([7; 16]));
        assert_eq!(parent.kind(&parent.volume(id)), Kind::Volume(id));
        assert_eq!(parent.kind(&parent.making(id)), Kind::Making(id));
        assert_eq!(parent.kind(&parent.gone(id, 1)), Kind::Gone);
        assert_eq!(parent.kind("tank/teu/mine"), Kind::Foreign);
        assert_eq!(parent.kind("tank/teu2/x"), Kind::Foreign);
        let tag: Tag = "gone-A_b.1".parse().unwrap();
        assert_eq!(snapshot_name(&at("a/b", &tag)), Some((tag.clone(), false)));
        assert_eq!(
            snapshot_name(&gone_snapshot("a/b", &tag, 5)),
            Some((tag, true))
        );
        assert_eq!(snapshot_name("a/b@zfs-auto snap"), None);
    }
}
