//! Each account's own range of user ids, so that root in one account's container is nobody to the
//! host and nobody to another account's.
//!
//! Owner: the agent, which keeps it in its data directory before a container uses it.
//! Invariant: ranges never overlap and never change: files on disk belong to them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use teu_protocol::{ids::PublicKey, image_config::user::IdInContainer};

/// The first id of the first range: above what login tools and `subuid` files give out.
const FIRST: u32 = 1_000_000;

/// Ids in a range: all 16-bit ones, as images expect (`nobody` is 65534).
pub const IDS_PER_ACCOUNT: u32 = IdInContainer::COUNT;

/// Accounts that fit below 2^31, which some file systems and tools take as the end.
const MAX_ACCOUNTS: u32 = (i32::MAX as u32 - FIRST) / IDS_PER_ACCOUNT;

/// Which account has which range.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UidRanges {
    known: BTreeMap<PublicKey, u32>,
}

/// A range of user and group ids on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UidRange {
    /// The host's id of the container's root.
    pub base: u32,
    /// It was given just now: keep the map before it is used.
    pub is_new: bool,
}

/// All ranges are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no range of user ids is left: {MAX_ACCOUNTS} accounts have used this node")]
pub struct NoRangeLeft;

impl UidRanges {
    /// The account's range. A new one is none that `is_taken` says (asked with the range's first id) belongs to somebody
    /// else: to a user of the host (`/etc/subuid`), or to another location of the machine.
    ///
    /// # Errors
    /// If there are too many accounts.
    pub fn range_of(
        &mut self,
        account: PublicKey,
        is_taken: impl Fn(u32) -> bool,
    ) -> Result<UidRange, NoRangeLeft> {
        if let Some(number) = self.known.get(&account) {
            return Ok(UidRange {
                base: FIRST + number * IDS_PER_ACCOUNT,
                is_new: false,
            });
        }
        let first = self.known.values().max().map_or(0, |last| last + 1);
        let number = (first..MAX_ACCOUNTS)
            .find(|number| !is_taken(FIRST + number * IDS_PER_ACCOUNT))
            .ok_or(NoRangeLeft)?;
        self.known.insert(account, number);
        Ok(UidRange {
            base: FIRST + number * IDS_PER_ACCOUNT,
            is_new: true,
        })
    }
}

impl UidRanges {
    /// The first ids of all ranges that are given.
    pub fn bases(&self) -> impl Iterator<Item = u32> + '_ {
        self.known
            .values()
            .map(|number| FIRST + number * IDS_PER_ACCOUNT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_somebody_elses_is_passed_over() {
        let mut ranges = UidRanges::default();
        let key = |n| PublicKey::from_bytes([n; 32]);
        let taken = |base| base < 1_100_000;
        assert_eq!(ranges.range_of(key(1), taken).unwrap().base, 1_131_072);
        // What was given stays.
        assert_eq!(ranges.range_of(key(1), |_| true).unwrap().base, 1_131_072);
        assert_eq!(ranges.range_of(key(2), |_| true), Err(NoRangeLeft));
        assert_eq!(ranges.bases().collect::<Vec<_>>(), [1_131_072]);
    }

    #[test]
    fn ranges_are_stable_and_apart() {
        let mut ranges = UidRanges::default();
        let key = |n: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            PublicKey::from_bytes(bytes)
        };
        assert_eq!(
            ranges.range_of(key(1), |_| false),
            Ok(UidRange {
                base: 1_000_000,
                is_new: true
            })
        );
        assert_eq!(
            ranges.range_of(key(0), |_| false),
            Ok(UidRange {
                base: 1_065_536,
                is_new: true
            })
        );
        assert_eq!(
            ranges.range_of(key(1), |_| false),
            Ok(UidRange {
                base: 1_000_000,
                is_new: false
            })
        );
        for n in 2..MAX_ACCOUNTS {
            ranges.range_of(key(n), |_| false).unwrap();
        }
        assert_eq!(
            ranges.range_of(key(MAX_ACCOUNTS), |_| false),
            Err(NoRangeLeft)
        );
        assert!(ranges.range_of(key(5), |_| false).is_ok());
    }
}
