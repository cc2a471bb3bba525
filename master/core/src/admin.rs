//! Requests of administrators: enrol and revoke accounts, enrol nodes.
//!
//! Invariant: nothing here is done without an [`crate::accounts::Administrator`]; a key has one role.

use sha2::{Digest as _, Sha256};
use teu_protocol::{
    ids::{NodeId, PublicKey, SessionId},
    message::{EnrolledAccount, Refusal, RefusalCode, ReplyBody},
};

use crate::{
    Core,
    connections::Caller,
    limits,
    orders::Asker,
    record::{self, StoreOp},
    refusals,
    request::{Answer, Step},
};

impl Core {
    pub(crate) fn enrol_account(&mut self, caller: &Caller, account: EnrolledAccount) -> Step {
        let proof = self.accounts.administrator(&caller.account)?;
        if self.nodes.by_key(&account.key).is_some() {
            return Err(refusals::bad(
                "this key is a node's; an account needs its own",
            ));
        }
        let EnrolledAccount { key, name, admin } = account;
        let account = record::Account { key, name, admin };
        self.accounts.put(&proof, account.clone())?;
        self.persist(StoreOp::PutAccount(account));
        Ok(Answer::done())
    }

    pub(crate) fn revoke_account(&mut self, caller: &Caller, key: &PublicKey) -> Step {
        let proof = self.accounts.administrator(&caller.account)?;
        self.accounts.remove(&proof, key)?;
        self.persist(StoreOp::RemoveAccount(*key));
        if *key == caller.account {
            self.answer(&Asker::of(caller), Ok(ReplyBody::Done));
        }
        let sessions: Vec<SessionId> = self
            .sessions
            .all_of(key)
            .map(|session| session.record().id)
            .collect();
        for id in sessions {
            let why = Refusal::new(RefusalCode::Forbidden, "the account was revoked");
            self.end_session(&id, why);
        }
        self.drop_catalogue(key);
        Ok(Answer::done())
    }

    pub(crate) fn enrol_node(&mut self, caller: &Caller, key: PublicKey, name: String) -> Step {
        self.accounts.administrator(&caller.account)?;
        if self.accounts.may_connect(&key) {
            return Err(refusals::bad(
                "this key is an account's; a node needs its own",
            ));
        }
        if name.is_empty() || name.len() > limits::NAME_BYTES {
            return Err(refusals::bad("a node's name has 1 to 64 bytes"));
        }
        let known = self.nodes.by_key(&key).and_then(|id| self.nodes.get(&id));
        let (subnet, prefix) = match known {
            Some(node) => (node.record.subnet, node.record.prefix),
            None => self
                .nodes
                .free_subnet(self.config.range, self.config.node_prefix)
                .ok_or_else(|| {
                    refusals::limit(
                        "the location's range has no subnet left for a further node. Start the master with a larger \
                         --range; with --node-subnet 24, the next nodes get smaller ones",
                    )
                })?,
        };
        let node = record::Node {
            id: node_id(&key),
            key,
            name,
            subnet,
            prefix,
        };
        let id = node.id;
        self.nodes.put(node.clone(), self.config.range);
        self.persist(StoreOp::PutNode(node));
        Ok(Answer::now(ReplyBody::Enrolled(id)))
    }
}

/// A node's id follows from its key, so that enrolling it again names the same node.
fn node_id(key: &PublicKey) -> NodeId {
    let hash = Sha256::new()
        .chain_update(b"teu node")
        .chain_update(key.as_bytes())
        .finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    NodeId::from_bytes(bytes)
}
