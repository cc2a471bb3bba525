//! Volumes: persistent copy-on-write trees on one node, their snapshots, and streams of them.
//!
//! Owner: the account. A volume's record lies with its data on the node; the master keeps a copy, so
//! that volumes of a node that is away are still known. Next: [`super::node::VolumeOrder`].

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::ids::{ContainerId, NodeId, PublicKey, Tag, VolumeId};

/// Snapshots that a schedule makes begin with this; nobody else may make such.
pub const SCHEDULED_PREFIX: &str = "auto-";

/// A volume to make. Labels: at most 64 of at most 256 bytes, as a container's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// A name, unique among the account's volumes.
    pub tag: Option<Tag>,
    /// The most bytes that its tree may refer to (snapshots not counted); beyond, writers get
    /// EDQUOT. At least 1 MiB.
    pub quota_bytes: Option<u64>,
    /// Snapshots made by the node itself.
    pub schedule: Option<SnapshotSchedule>,
    /// Free for the program.
    pub labels: BTreeMap<String, String>,
}

/// Snapshots made by the node itself, named `auto-20261121T143000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotSchedule {
    /// Seconds between them, at least 10; counted from 1970, so an hour's are on the hour.
    pub every_s: u64,
    /// How many of them are kept, 1 to 1000; the oldest scheduled ones go. Others are never touched.
    pub keep: u32,
}

/// What is kept with a volume's data: all that a machine with nothing but the pool needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// The volume.
    pub id: VolumeId,
    /// Whose.
    pub account: PublicKey,
    /// When it was asked for: milliseconds since 1970.
    pub created_ms: u64,
    /// What was asked for.
    pub spec: VolumeSpec,
    /// What it was cloned from, if it was.
    pub origin: Option<VolumeOrigin>,
}

/// What a clone began as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeOrigin {
    /// The volume; it may be gone since.
    pub volume: VolumeId,
    /// Its snapshot.
    pub snapshot: Tag,
}

/// A volume as its account sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeInfo {
    /// The volume.
    pub id: VolumeId,
    /// Where it lies.
    pub node: NodeId,
    /// When it was asked for: milliseconds since 1970.
    pub created_ms: u64,
    /// What was asked for.
    pub spec: VolumeSpec,
    /// What it was cloned from, if it was.
    pub origin: Option<VolumeOrigin>,
    /// How it fares.
    pub state: VolumeState,
    /// The account's containers (of all sessions) that have it mounted and have not ended.
    pub used_by: Vec<ContainerId>,
}

/// How a volume fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum VolumeState {
    /// It can be used.
    Ready,
    /// Its node's link is down; it comes back with the node.
    NodeLost,
    /// Its pool cannot serve it now (exported, full of errors); `doctor` says why.
    Faulted,
    /// The node's pool is there and the volume is not: somebody removed it by hand. Destroying it
    /// forgets it.
    Missing,
}

/// A snapshot: a volume's tree as it was, never to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// Its name, unique in its volume.
    pub name: Tag,
    /// When it was made: milliseconds since 1970.
    pub created_ms: u64,
    /// Bytes that its tree refers to.
    pub referenced_bytes: u64,
    /// Bytes that would become free if it alone were destroyed.
    pub exclusive_bytes: u64,
}

/// What a volume takes, as its pool reports it after all is written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeUsage {
    /// Bytes that its tree refers to now: what the quota bounds.
    pub referenced_bytes: u64,
    /// Bytes that exist for this volume's tree alone.
    pub exclusive_bytes: u64,
    /// Bytes that exist only for its snapshots.
    pub snapshots_bytes: u64,
    /// The quota.
    pub quota_bytes: Option<u64>,
    /// Bytes that can still be written: of the quota or of the pool, whichever is less.
    pub available_bytes: u64,
    /// How many snapshots it has.
    pub snapshots: u32,
}

/// How to roll back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollBack {
    /// The volume.
    pub volume: VolumeId,
    /// The snapshot whose tree it gets back.
    pub snapshot: Tag,
    /// Destroy the snapshots that were made after it. Without this, and if there are such, refused as
    /// `WrongState`, and the message names them.
    pub discard_later: bool,
    /// Go on although processes have files of it open (they keep what they have open: stale or
    /// failing). Without this refused as `Busy`, and the message names them.
    pub force: bool,
}

/// A volume in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// The volume.
    pub volume: VolumeId,
    /// Where: an absolute path without `..`, not `/` and not below `/proc`, `/sys` or `/dev`.
    /// Directories are made as needed.
    pub path: String,
    /// The container may not change it.
    pub read_only: bool,
}

/// Authenticates an account's volume streams within a location: derived by the master from the
/// location's key and the account's, so a node takes only streams that a node of this location
/// made for the same account. Never logged, never told to clients.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferKey(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl fmt::Debug for TransferKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransferKey(..)")
    }
}
