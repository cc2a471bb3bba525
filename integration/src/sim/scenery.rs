//! What the simulated location is made of before anything happens: accounts, nodes, an image.

use teu_master_core::record::{Account, Image, Node, Possession, Restored};
use teu_protocol::{
    ids::{Digest, NodeId, PublicKey},
    message::{Compression, ImageManifest, LayerRef},
};

pub(super) const ACCOUNTS: [PublicKey; 2] = [
    PublicKey::from_bytes([1; 32]),
    PublicKey::from_bytes([2; 32]),
];
pub(super) const NODES: usize = 2;

pub(super) fn node_key(n: usize) -> PublicKey {
    PublicKey::from_bytes([0xa0 + n as u8; 32])
}

pub(super) fn node_id(n: usize) -> NodeId {
    NodeId::from_bytes([0xa0 + n as u8; 16])
}

pub(super) fn image() -> ImageManifest {
    let diff_id = Digest::of(b"tar");
    let config =
        format!(r#"{{"os":"linux","architecture":"amd64","rootfs":{{"diff_ids":["{diff_id}"]}}}}"#);
    let digest = Digest::of(b"blob");
    let layers = vec![LayerRef {
        digest,
        diff_id,
        size: 4,
        compression: Compression::None,
    }];
    ImageManifest {
        id: Digest::of(config.as_bytes()),
        config: config.into_bytes(),
        layers,
    }
}

pub(super) fn stored() -> Restored {
    let account = |key| Account {
        key,
        name: "account".into(),
        admin: key == ACCOUNTS[0],
    };
    let node = |n| Node {
        id: node_id(n),
        key: node_key(n),
        name: format!("node{n}"),
        subnet: n as u16,
        prefix: 24,
    };
    let image = |account| Image {
        account,
        manifest: image(),
        names: ["app:latest".to_owned()].into(),
        platform: "linux/amd64".into(),
        added_ms: 0,
    };
    let possession = |account| Possession {
        account,
        digest: Digest::of(b"blob"),
        size: 4,
    };
    Restored {
        accounts: ACCOUNTS.map(account).into(),
        nodes: (0..NODES).map(node).collect(),
        sessions: Vec::new(),
        images: ACCOUNTS.map(image).into(),
        possessions: ACCOUNTS.map(possession).into(),
        volumes: Vec::new(),
        destroyed: Vec::new(),
    }
}
