//! The secret from which the keys of volume streams are made.
//!
//! Owner: the daemon, which derives it from the location's own key. Invariant: never shown.

use std::fmt;

use sha2::{Digest as _, Sha256};
use teu_protocol::{ids::PublicKey, message::TransferKey};

/// A location's secret for volume streams; the one of the default settings protects nothing.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TransferSecret([u8; 32]);

impl TransferSecret {
    /// The secret of the location that has this key.
    #[must_use]
    pub fn of_location(secret_key: &[u8; 32]) -> Self {
        let hash = Sha256::new()
            .chain_update(b"teu volume transfer")
            .chain_update(secret_key)
            .finalize();
        Self(hash.into())
    }

    /// The key of an account's streams. All that is hashed has a fixed length, and no hash is shown.
    pub(crate) fn key_of(&self, account: &PublicKey) -> TransferKey {
        let hash = Sha256::new()
            .chain_update(b"teu volume transfer of an account")
            .chain_update(self.0)
            .chain_update(account.as_bytes())
            .finalize();
        TransferKey(hash.into())
    }
}

impl fmt::Debug for TransferSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransferSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_account_and_each_location_has_its_own_and_none_is_shown() {
        let account = |byte| PublicKey::from_bytes([byte; 32]);
        let (one, two) = (
            TransferSecret::of_location(&[7; 32]),
            TransferSecret::of_location(&[8; 32]),
        );
        assert!(one.key_of(&account(1)) == one.key_of(&account(1)));
        assert!(one.key_of(&account(1)) != one.key_of(&account(2)));
        assert!(one.key_of(&account(1)) != two.key_of(&account(1)));
        assert_eq!(format!("{one:?}"), "TransferSecret(..)");
    }
}
