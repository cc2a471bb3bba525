//! What both models are made of: an image, a container to spawn, numbered orders.

use teu_protocol::{
    ids::{AttachmentId, ContainerId, Digest, PublicKey, RequestId, SessionId},
    message::{
        Compression, ImageManifest, LayerRef, NodeRequestBody, NodeSpawn, Refusal, RefusalCode,
        SpawnSpec,
    },
};

pub(crate) const ACCOUNT: PublicKey = PublicKey::from_bytes([3; 32]);

/// The n-th order.
pub(crate) fn number(n: u64) -> RequestId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    RequestId::from_bytes(bytes)
}

/// An order to spawn the container, as `how` wants it.
pub(crate) fn spawn(container: ContainerId, how: impl FnOnce(&mut SpawnSpec)) -> NodeRequestBody {
    let config = br#"{"os":"linux","architecture":"amd64","config":{"Cmd":["sh"]}}"#.to_vec();
    let digest = Digest::of(b"layer");
    let mut spec = SpawnSpec::of(Digest::of(&config), "busybox");
    how(&mut spec);
    NodeRequestBody::Spawn(Box::new(NodeSpawn {
        container,
        session: SessionId::from_bytes([1; 16]),
        attachment: AttachmentId::from_bytes([2; 16]),
        account: ACCOUNT,
        created_ms: 5,
        image: ImageManifest {
            id: spec.image,
            config,
            layers: vec![LayerRef {
                digest,
                diff_id: digest,
                size: 1,
                compression: Compression::None,
            }],
        },
        spec,
    }))
}

/// How an effect fails.
pub(crate) fn failed() -> Refusal {
    Refusal::new(RefusalCode::Internal, "the test says no")
}
