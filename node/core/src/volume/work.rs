//! Work on a volume, as the agent's worker gets it and ends it.
//!
//! Owner: [`super::Volumes`] makes tickets. Invariant: each ticket is ended by exactly one
//! [`crate::Input::VolumeDone`]; a stream's order is answered before that by `Input::Answered`.

use teu_protocol::{
    ids::{ContainerId, RequestId, Tag, VolumeId},
    message::{NodeReplyBody, VolumeOrder, VolumeRecord},
};

/// Names one piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Something to do with a volume.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeWork {
    /// Ends it.
    pub ticket: Ticket,
    /// Which.
    pub volume: VolumeId,
    /// What is known of it, if it is there.
    pub record: Option<VolumeRecord>,
    /// Containers that have it mounted and have not ended.
    pub mounted_by: Vec<ContainerId>,
    /// Snapshots that exports read now: they must stay.
    pub held: Vec<Tag>,
    /// What.
    pub work: Work,
}

/// What to do.
#[allow(clippy::large_enum_variant)] // Nearly all of them are orders; boxed with its work.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// The master's order.
    Order {
        /// The order's id.
        request: RequestId,
        /// The order.
        order: VolumeOrder,
    },
    /// A snapshot of the volume's schedule; then the oldest scheduled ones beyond `keep` go.
    Scheduled {
        /// The snapshot to make. If there is one of that name already, that is as well.
        name: Tag,
        /// How many remain.
        keep: u32,
    },
}

/// What became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeDone {
    /// The order's answer (for a stream's order it has been given before; `Done`).
    pub reply: NodeReplyBody,
    /// The volume's record, if there is a new one.
    pub record: Option<VolumeRecord>,
}

impl VolumeDone {
    /// Done, and no more to say.
    #[must_use]
    pub const fn done() -> Self {
        Self {
            reply: NodeReplyBody::Done,
            record: None,
        }
    }
}
