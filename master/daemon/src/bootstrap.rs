//! Accounts and nodes that are enrolled at the start, from a file.
//!
//! ```json
//! {"accounts": [{"key": "<base64>", "name": "ann", "admin": true}],
//!  "nodes": [{"key": "<base64>", "name": "node-1"}]}
//! ```
//! Owner: the server, before there is a core. Invariant: whoever is known stays as it is but for name
//! and role: a node keeps its id and its subnet.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use teu_master_core::{
    record::{Account, Node, Restored, StoreOp},
    subnet,
};
use teu_protocol::ids::{NodeId, PublicKey};

/// Who is enrolled at the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bootstrap {
    /// Accounts that may connect.
    pub accounts: Vec<BootstrapAccount>,
    /// Nodes that may connect.
    pub nodes: Vec<BootstrapNode>,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootstrapAccount {
    /// Its key.
    pub key: PublicKey,
    /// For people.
    pub name: String,
    /// May enrol and revoke others.
    #[serde(default)]
    pub admin: bool,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootstrapNode {
    /// Its key.
    pub key: PublicKey,
    /// Its name.
    pub name: String,
}

/// Why a bootstrap file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// It cannot be read.
    #[error("cannot read the bootstrap file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It does not parse.
    #[error("the bootstrap file {} does not parse", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
}

impl Bootstrap {
    /// Reads a file.
    ///
    /// # Errors
    /// [`BootstrapError`].
    pub fn read(path: &Path) -> Result<Self, BootstrapError> {
        let text = std::fs::read(path).map_err(|source| BootstrapError::Read {
            path: path.to_owned(),
            source,
        })?;
        serde_json::from_slice(&text).map_err(|source| BootstrapError::Parse {
            path: path.to_owned(),
            source,
        })
    }

    /// The records to write so that all of these are enrolled.
    pub(crate) fn operations(
        &self,
        known: &Restored,
        range: (Ipv4Addr, u8),
        wanted: u8,
    ) -> Vec<StoreOp> {
        let accounts = self.accounts.iter().map(|account| {
            let BootstrapAccount { key, name, admin } = account.clone();
            StoreOp::PutAccount(Account { key, name, admin })
        });
        let mut nodes = known.nodes.clone();
        let mut operations: Vec<StoreOp> = accounts.collect();
        for BootstrapNode { key, name } in &self.nodes {
            let name = name.clone();
            let node = match nodes.iter().find(|node| node.key == *key) {
                Some(node) => Node {
                    name,
                    ..node.clone()
                },
                None => {
                    let Some((subnet, prefix)) = subnet::free(nodes.iter(), range, wanted) else {
                        tracing::error!(
                            name,
                            "the range has no subnet left for this node; it is not enrolled"
                        );
                        continue;
                    };
                    Node {
                        id: node_id(key),
                        key: *key,
                        name,
                        subnet,
                        prefix,
                    }
                }
            };
            nodes.retain(|other| other.id != node.id);
            nodes.push(node.clone());
            operations.push(StoreOp::PutNode(node));
        }
        operations
    }
}

/// The id of a node that is enrolled here: the first 16 bytes of SHA-256("teu node" · key), so that
/// a lost store gives it the same id again.
fn node_id(key: &PublicKey) -> NodeId {
    let hash = Sha256::new()
        .chain_update(b"teu node")
        .chain_update(key.as_bytes())
        .finalize();
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().zip(hash) {
        *to = from;
    }
    NodeId::from_bytes(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> PublicKey {
        PublicKey::from_bytes([byte; 32])
    }

    #[test]
    fn a_file_reads_as_documented() {
        let text = format!(
            r#"{{"accounts": [{{"key": "{}", "name": "ann", "admin": true}}],
                "nodes": [{{"key": "{}", "name": "n1"}}]}}"#,
            key(1),
            key(2)
        );
        let bootstrap: Bootstrap = serde_json::from_str(&text).unwrap();
        assert!(bootstrap.accounts[0].admin);
        assert_eq!(bootstrap.nodes[0].key, key(2));
        assert!(serde_json::from_str::<Bootstrap>(r#"{"acounts": []}"#).is_err());
    }

    #[test]
    fn a_known_node_keeps_its_id_and_subnet_and_a_new_one_gets_the_next() {
        let known = Node {
            id: NodeId::from_bytes([7; 16]),
            key: key(1),
            name: "old".into(),
            subnet: 0,
            prefix: 24,
        };
        let restored = Restored {
            nodes: vec![known.clone()],
            ..Restored::default()
        };
        let node = |byte, name: &str| BootstrapNode {
            key: key(byte),
            name: name.into(),
        };
        let bootstrap = Bootstrap {
            accounts: Vec::new(),
            nodes: vec![node(1, "new"), node(2, "b"), node(3, "c")],
        };
        let operations = bootstrap.operations(&restored, (Ipv4Addr::new(10, 77, 0, 0), 16), 20);
        let StoreOp::PutNode(first) = &operations[0] else {
            panic!("not a node")
        };
        assert_eq!(
            *first,
            Node {
                name: "new".into(),
                ..known
            }
        );
        let subnets: Vec<u16> = operations
            .iter()
            .filter_map(|operation| match operation {
                StoreOp::PutNode(node) => Some(node.subnet),
                _ => None,
            })
            .collect();
        assert_eq!(subnets, [0, 16, 32]);
    }
}
