//! What nodes answer to orders about volumes.
//!
//! Invariant: what a node answers changes only the volume that the order was about, and is in the
//! store before anybody is answered.

use teu_protocol::{
    ids::VolumeId,
    message::{NodeReplyBody, Refusal, ReplyBody},
};

use crate::{
    Core,
    orders::{Order, VolumeAsk},
    refusals,
};

impl Core {
    /// `None`: this is no answer to that.
    pub(crate) fn volume_answered(
        &mut self,
        order: &Order,
        id: &VolumeId,
        ask: VolumeAsk,
        body: NodeReplyBody,
    ) -> Option<Result<ReplyBody, Refusal>> {
        match (ask, body) {
            (VolumeAsk::Make | VolumeAsk::Change, NodeReplyBody::Volume(found))
                if found.record.id == *id =>
            {
                self.volume_found(order.node, *found);
                let here = self.volumes.get(id);
                let here = here.filter(|v| v.is_made() && v.kept.node == order.node);
                Some(match here {
                    Some(volume) => Ok(ReplyBody::Volume(Box::new(self.volume_info(volume)))),
                    None => Err(refusals::no_volume()),
                })
            }
            (VolumeAsk::Destroy, NodeReplyBody::Done) => {
                let here = self.volumes.get(id);
                if here.is_some_and(|v| v.kept.node == order.node && v.kept.destroying) {
                    self.volume_gone(id);
                }
                Some(Ok(ReplyBody::Done))
            }
            (VolumeAsk::Do, NodeReplyBody::Done) => Some(Ok(ReplyBody::Done)),
            (VolumeAsk::Snapshots, NodeReplyBody::Snapshots(all)) => {
                Some(Ok(ReplyBody::Snapshots(all)))
            }
            (VolumeAsk::Usage, NodeReplyBody::VolumeUsage(usage)) => {
                Some(Ok(ReplyBody::VolumeUsage(usage)))
            }
            _ => None,
        }
    }

    /// The node will not.
    pub(crate) fn volume_refused(&mut self, order: &Order, id: &VolumeId, ask: VolumeAsk) {
        let here = self.volumes.get(id);
        if here.is_none_or(|v| v.kept.node != order.node) {
            return;
        }
        match ask {
            VolumeAsk::Make => self.drop_unmade(id),
            // It is still there, and may be used again.
            VolumeAsk::Destroy => self.mark_destroying(id, false),
            VolumeAsk::Change | VolumeAsk::Do | VolumeAsk::Snapshots | VolumeAsk::Usage => {}
        }
    }
}
