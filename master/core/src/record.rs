//! What the store keeps: plain records, and the operations on them.
//!
//! Containers are not here: nodes know what they run and tell it when they connect.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use teu_protocol::{
    ids::{Digest, NodeId, PublicKey, SessionId, Tag, VolumeId},
    message::{ImageManifest, VolumeRecord},
};

use crate::subnet;

/// An account: a key that may connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its key, and its only identity.
    pub key: PublicKey,
    /// For people.
    pub name: String,
    /// May enrol and revoke others.
    pub admin: bool,
}

/// A node that may connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Its key.
    pub key: PublicKey,
    /// Its name.
    pub name: String,
    /// Its subnet: the number of its first /24 in the location's range, counted from 0.
    pub subnet: u16,
    /// The subnet's length in bits. Records of before 0.3 have none: a /24.
    #[serde(default = "first_prefix")]
    pub prefix: u8,
}

const fn first_prefix() -> u8 {
    subnet::SMALLEST
}

/// A session that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Whose.
    pub account: PublicKey,
    /// Its name, if persistent.
    pub name: Option<Tag>,
    /// Milliseconds since 1970.
    pub created_ms: u64,
}

/// An image in an account's catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Whose.
    pub account: PublicKey,
    /// What.
    pub manifest: ImageManifest,
    /// `name:tag`s that point at it.
    pub names: BTreeSet<String>,
    /// `os/architecture`.
    pub platform: String,
    /// Milliseconds since 1970.
    pub added_ms: u64,
}

/// A blob that an account has proved to possess, by uploading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Possession {
    /// Who.
    pub account: PublicKey,
    /// Which blob.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// A volume that was made: the copy of what lies with its data on its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Where it lies.
    pub node: NodeId,
    /// What lies with its data.
    pub record: VolumeRecord,
    /// Its owner wants it gone.
    pub destroying: bool,
}

/// A volume that its owner has destroyed: remembered so that a request which is repeated is not answered
/// with "there is none".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destroyed {
    /// Whose it was.
    pub account: PublicKey,
    /// Which.
    pub volume: VolumeId,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

/// A change to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreOp {
    /// Adds or replaces.
    PutAccount(Account),
    /// Removes.
    RemoveAccount(PublicKey),
    /// Adds or replaces.
    PutNode(Node),
    /// Adds or replaces.
    PutSession(Session),
    /// Removes.
    RemoveSession(SessionId),
    /// Adds or replaces, by account and manifest id.
    PutImage(Image),
    /// Removes.
    RemoveImage {
        /// Whose.
        account: PublicKey,
        /// Its id.
        id: Digest,
    },
    /// Adds or replaces.
    PutPossession(Possession),
    /// Removes.
    RemovePossession {
        /// Who.
        account: PublicKey,
        /// Which blob.
        digest: Digest,
    },
    /// Adds or replaces.
    PutVolume(Volume),
    /// Removes.
    RemoveVolume(VolumeId),
    /// Adds or replaces.
    PutDestroyed(Destroyed),
    /// Removes.
    RemoveDestroyed(VolumeId),
}

/// All that the store holds, read when the master starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// Keys that may connect.
    pub accounts: Vec<Account>,
    /// Nodes that may connect.
    pub nodes: Vec<Node>,
    /// Sessions that have not ended.
    pub sessions: Vec<Session>,
    /// Catalogue entries.
    pub images: Vec<Image>,
    /// Who may use which blob.
    pub possessions: Vec<Possession>,
    /// Volumes.
    pub volumes: Vec<Volume>,
    /// Volumes that were destroyed lately.
    pub destroyed: Vec<Destroyed>,
}
