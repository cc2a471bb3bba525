//! Who may connect: accounts by key, and the proof that somebody is an administrator.
//!
//! Owner: [`crate::Core`]. Invariant: an [`Administrator`] is made only here, after the look-up.

use std::collections::BTreeMap;

use teu_protocol::{
    ids::PublicKey,
    message::{Refusal, RefusalCode},
};

use crate::{limits, record::Account, refusals};

/// All accounts.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    by_key: BTreeMap<PublicKey, Account>,
}

/// Proof that the asker's account may enrol and revoke.
#[derive(Debug)]
pub(crate) struct Administrator(());

impl Accounts {
    pub(crate) fn new(accounts: Vec<Account>) -> Self {
        Self {
            by_key: accounts.into_iter().map(|a| (a.key, a)).collect(),
        }
    }

    pub(crate) fn may_connect(&self, key: &PublicKey) -> bool {
        self.by_key.contains_key(key)
    }

    /// Whether there is anybody to share a node with.
    pub(crate) fn are_several(&self) -> bool {
        self.by_key.len() > 1
    }

    pub(crate) fn administrator(&self, key: &PublicKey) -> Result<Administrator, Refusal> {
        match self.by_key.get(key) {
            Some(account) if account.admin => Ok(Administrator(())),
            _ => Err(Refusal::new(
                RefusalCode::Forbidden,
                "only an administrator of this location may do this. Ask one of them",
            )),
        }
    }

    pub(crate) fn put(&mut self, _: &Administrator, account: Account) -> Result<(), Refusal> {
        if account.name.len() > limits::NAME_BYTES {
            return Err(refusals::bad("an account's name has at most 64 bytes"));
        }
        let known = self.by_key.get(&account.key);
        if known.is_none() && self.by_key.len() >= limits::ACCOUNTS {
            return Err(refusals::limit(
                "the location has no room for further accounts",
            ));
        }
        if known.is_some_and(|a| a.admin) && !account.admin {
            self.keeps_an_administrator_without(&account.key)?;
        }
        self.by_key.insert(account.key, account);
        Ok(())
    }

    pub(crate) fn remove(&mut self, _: &Administrator, key: &PublicKey) -> Result<(), Refusal> {
        if !self.by_key.contains_key(key) {
            return Err(Refusal::new(
                RefusalCode::NotFound,
                "no account has this key",
            ));
        }
        self.keeps_an_administrator_without(key)?;
        self.by_key.remove(key);
        Ok(())
    }

    fn keeps_an_administrator_without(&self, key: &PublicKey) -> Result<(), Refusal> {
        if self.by_key.values().any(|a| a.admin && a.key != *key) {
            Ok(())
        } else {
            Err(refusals::wrong_state(
                "this is the location's last administrator. Enrol another one first",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(byte: u8, admin: bool) -> Account {
        Account {
            key: PublicKey::from_bytes([byte; 32]),
            name: "x".into(),
            admin,
        }
    }

    #[test]
    fn only_administrators_are_proven_and_the_last_one_stays() {
        let mut accounts = Accounts::new(vec![account(1, true), account(2, false)]);
        let key = |byte| PublicKey::from_bytes([byte; 32]);
        assert_eq!(
            accounts.administrator(&key(2)).unwrap_err().code,
            RefusalCode::Forbidden
        );
        assert_eq!(
            accounts.administrator(&key(9)).unwrap_err().code,
            RefusalCode::Forbidden
        );
        let proof = accounts.administrator(&key(1)).unwrap();
        assert!(accounts.remove(&proof, &key(1)).is_err());
        assert!(accounts.put(&proof, account(1, false)).is_err());
        accounts.put(&proof, account(3, true)).unwrap();
        accounts.remove(&proof, &key(1)).unwrap();
        assert!(!accounts.may_connect(&key(1)));
    }
}
