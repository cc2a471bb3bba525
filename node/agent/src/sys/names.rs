//! The two names that everything on a node's Linux side is derived from: which instance of TEU
//! this is (bridge, table, cgroup, run directory), and which sandbox slot is meant.
//!
//! Owned by `sys`; made once, at the edge, by parsing. Invariant: a value of these types can stand
//! in an interface name, a cgroup directory, a file name or an nft script without any quoting.
//! Next: `net/` for the interface names, the runtime for slots.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Interface names are at most 15 bytes; `<instance>v<number>` must fit with a five-digit number.
pub const MAX_INSTANCE_NAME_LEN: usize = 8;

/// A slot's name is part of file and cgroup names; 12 bytes hold a prefix and 48 bits in hex.
pub const MAX_SLOT_NAME_LEN: usize = 12;

/// Names one installation of the node agent on a machine, so that several may share it.
///
/// `[a-z][a-z0-9]*`, at most 8 bytes, and not ending in a `v` followed only by digits: the bridge
/// of an instance `teuv1` would otherwise be called `teuv10`, which is a veth of instance `teu`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceName(String);

/// Names one sandbox slot (a keeper with its network namespace) of an instance.
///
/// `[a-z0-9-]`, 1 to 12 bytes, neither starting nor ending with a dash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SlotName(String);

/// Why a text is not an instance's or a slot's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The instance name breaks its rule.
    #[error(
        "{0:?} cannot name an instance: use a letter, then letters and digits (a-z, 0-9), at most 8, \
         not ending in \"v\" and digits"
    )]
    Instance(String),
    /// The slot name breaks its rule.
    #[error("{0:?} cannot name a slot: use 1 to 12 of a-z, 0-9 and inner dashes")]
    Slot(String),
}

impl InstanceName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SlotName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for InstanceName {
    fn default() -> Self {
        Self("teu".to_owned())
    }
}

impl TryFrom<String> for InstanceName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        let plain = text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        let like_a_veth = text
            .trim_end_matches(|c: char| c.is_ascii_digit())
            .ends_with('v');
        if plain && starts_well && !like_a_veth && text.len() <= MAX_INSTANCE_NAME_LEN {
            Ok(Self(text))
        } else {
            Err(NameError::Instance(text))
        }
    }
}

impl TryFrom<String> for SlotName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        let plain = text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let dashed_edge = text.starts_with('-') || text.ends_with('-');
        if plain && !dashed_edge && (1..=MAX_SLOT_NAME_LEN).contains(&text.len()) {
            Ok(Self(text))
        } else {
            Err(NameError::Slot(text))
        }
    }
}

impl FromStr for InstanceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::try_from(text.to_owned())
    }
}

impl FromStr for SlotName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::try_from(text.to_owned())
    }
}

impl From<InstanceName> for String {
    fn from(name: InstanceName) -> Self {
        name.0
    }
}

impl From<SlotName> for String {
    fn from(name: SlotName) -> Self {
        name.0
    }
}

impl AsRef<str> for InstanceName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for SlotName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_names() {
        for good in ["teu", "t", "teu2", "a1b2c3d4", "vx", "v1x"] {
            assert!(good.parse::<InstanceName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "2teu",
            "Teu",
            "te-u",
            "te u",
            "abcdefghi",
            "v",
            "teuv",
            "teuv10",
            "té",
        ] {
            assert!(bad.parse::<InstanceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn slot_names() {
        for good in ["s", "0", "s-1", "abcdefghijkl"] {
            assert!(good.parse::<SlotName>().is_ok(), "{good}");
        }
        for bad in ["", "-s", "s-", "S", "a/b", "..", "abcdefghijklm"] {
            assert!(bad.parse::<SlotName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_checked_when_read_back() {
        assert!(serde_json::from_str::<SlotName>("\"../etc\"").is_err());
        let name: SlotName = serde_json::from_str("\"s-7\"").unwrap();
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"s-7\"");
    }
}
