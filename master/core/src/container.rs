//! One container as the master knows it.
//!
//! ```text
//! Requested ─▶ Preparing ─▶ Asleep ─▶ Running ─▶ Exited      doomed: a destroy is ordered, and
//!      └───────────┴─────────────────────▲                   repeated until the node confirms it
//! ```

use std::collections::{BTreeMap, BTreeSet};

use teu_protocol::{
    ids::{AttachmentId, Digest, ProcessId, PublicKey, SessionId},
    message::{ContainerInfo, ContainerState, Lifetime, NodeContainer},
};

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    /// What its session sees.
    pub(crate) info: ContainerInfo,
    pub(crate) session: SessionId,
    /// Who spawned it.
    pub(crate) attachment: AttachmentId,
    pub(crate) account: PublicKey,
    pub(crate) lifetime: Lifetime,
    /// The image's layers: what its node may fetch.
    pub(crate) layers: Vec<Digest>,
    /// Further processes that run.
    pub(crate) processes: BTreeMap<ProcessId, Bound>,
    /// Attachments that may have places at its processes, which wait for them.
    pub(crate) readers: BTreeSet<AttachmentId>,
    /// It is being destroyed.
    pub(crate) doom: Option<Doom>,
    /// The node has not said that it has it.
    pub(crate) unconfirmed: bool,
    /// A `FirstProcess` container that exited is destroyed then, or once nobody reads its output.
    pub(crate) linger_until_ms: Option<u64>,
}

/// Until when a further process may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bound {
    /// Ends with this attachment.
    pub(crate) to: Option<AttachmentId>,
    /// The node has said that it runs.
    pub(crate) confirmed: bool,
    /// The attachment ended: it is killed again at this time, until it is gone.
    pub(crate) kill_at_ms: Option<u64>,
}

/// The state of a destruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doom {
    /// Ordered, not yet answered.
    Ordered,
    /// To be ordered (again) at this time, if the node is there.
    Due { at_ms: u64 },
}

impl Container {
    /// A container that a node told of.
    pub(crate) fn adopted(found: &NodeContainer, node: teu_protocol::ids::NodeId) -> Self {
        let NodeContainer {
            container,
            session,
            attachment,
            account,
            lifetime,
            ..
        } = found;
        Self {
            info: ContainerInfo {
                id: *container,
                tag: found.tag.clone(),
                node,
                ip: found.ip,
                image: found.image,
                image_name: found.image_name.clone(),
                command: found.command.clone(),
                labels: found.labels.clone(),
                created_ms: found.created_ms,
                state: found.state,
                tty: found.tty,
                limits: found.limits,
                allowed_from: found.allowed_from.iter().map(|(id, _)| *id).collect(),
                volumes: found.volumes.clone(),
            },
            session: *session,
            attachment: *attachment,
            account: *account,
            lifetime: *lifetime,
            layers: Vec::new(),
            processes: BTreeMap::new(),
            readers: BTreeSet::new(),
            doom: None,
            unconfirmed: false,
            linger_until_ms: None,
        }
    }

    pub(crate) fn is_doomed(&self) -> bool {
        self.doom.is_some()
    }

    /// It ends with this attachment.
    pub(crate) fn ends_with(&self, attachment: &AttachmentId) -> bool {
        self.lifetime == Lifetime::Attachment && self.attachment == *attachment
    }

    pub(crate) fn has_exited(&self) -> bool {
        matches!(self.info.state, ContainerState::Exited { .. })
    }

    /// Its node still has to make it: its image's layers must stay.
    pub(crate) fn is_being_made(&self) -> bool {
        matches!(
            self.info.state,
            ContainerState::Requested | ContainerState::Preparing
        )
    }

    /// It lingers, or has processes to kill.
    pub(crate) fn needs_attention(&self) -> bool {
        self.linger_until_ms.is_some() || self.processes.values().any(|b| b.kill_at_ms.is_some())
    }

    pub(crate) fn takes_resources(&self) -> bool {
        !self.has_exited()
    }
}
