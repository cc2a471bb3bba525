//! What nodes tell of their volumes: what they have is adopted, what they lack is missing.
//!
//! ```text
//! known, being made  ── not told ──▶ forgotten        told ──▶ Ready (or Faulted), durable
//! known, destroying  ── not told ──▶ gone             told ──▶ ordered destroyed again
//! known              ── not told ──▶ Missing          told ──▶ the node's record counts
//! unknown                                             told ──▶ adopted, whoever's it is
//! ```
//! Invariant: nothing that holds data is ordered destroyed unless its owner asked for that; a node
//! cannot take over a volume that another one is known to have, unless that one says that it has
//! it not.

use std::collections::BTreeSet;

use teu_protocol::{
    ids::{NodeId, VolumeId},
    message::{Finding, NodeRequestBody, NodeVolume, Severity, VolumeOrder, VolumeState},
};

use super::Volume;
use crate::{
    Core,
    connections::Caller,
    limits,
    orders::{Purpose, VolumeAsk},
    record::{self, StoreOp},
};

/// Findings about volumes in one answer.
const FINDINGS: usize = 64;

impl Core {
    /// A node's report. `None`: its pool cannot be read.
    pub(crate) fn volumes_reported(&mut self, node: NodeId, told: Option<Vec<NodeVolume>>) {
        self.volumes.touch_all_on(&node);
        let known: Vec<VolumeId> = self.volumes.on_node(&node).map(Volume::id).collect();
        let Some(told) = told else {
            for id in known {
                self.volumes.update(&id, |v| v.state = VolumeState::Faulted);
            }
            return;
        };
        let there: BTreeSet<_> = told.iter().map(|volume| volume.record.id).collect();
        for id in known.iter().filter(|id| !there.contains(id)) {
            self.volume_missed(id);
        }
        for found in told {
            let id = found.record.id;
            self.volume_found(node, found);
            let here = self.volumes.get(&id).filter(|v| v.kept.node == node);
            if here.is_some_and(|v| v.kept.destroying) {
                let body = NodeRequestBody::Volume(Box::new(VolumeOrder::Destroy(id)));
                let purpose = Purpose::Volume(id, VolumeAsk::Destroy);
                // The node is up; and if not, its next report comes here again.
                let _ = self.order(node, body, purpose, limits::VOLUME_MS);
            }
        }
    }

    fn volume_missed(&mut self, id: &VolumeId) {
        let Some(volume) = self.volumes.get(id) else {
            return;
        };
        if !volume.is_made() {
            self.drop_unmade(id);
        } else if volume.kept.destroying {
            self.volume_gone(id);
        } else {
            self.volumes.update(id, |v| v.state = VolumeState::Missing);
        }
    }

    /// A node has this volume, as this; or had it, and found that it is gone.
    pub(crate) fn volume_found(&mut self, node: NodeId, found: NodeVolume) {
        let NodeVolume { mut record, state } = found;
        let (id, account) = (record.id, record.account);
        if state == VolumeState::Missing {
            if self.volumes.on_node(&node).any(|v| v.id() == id) {
                self.volume_missed(&id);
            }
            return;
        }
        let taken = record.spec.tag.as_ref().is_some_and(|tag| {
            let holder = self.volumes.tagged(&account, tag);
            holder.is_some_and(|holder| holder.id() != id)
        });
        if taken {
            record.spec.tag = None;
        }
        let known = self.volumes.get(&id);
        if let Some(known) = known.filter(|known| known.kept.node != node)
            && known.is_made()
            && known.state != VolumeState::Missing
        {
            let text = format!(
                "volume {} is reported, which another node is known to have; this one is not used",
                id.short()
            );
            if let Some(node) = self.nodes.get_mut(&node) {
                node.warn(text);
            }
            return;
        }
        let destroying = known.is_some_and(|known| known.kept.destroying);
        let kept = record::Volume {
            node,
            record,
            destroying,
        };
        let is_new = known.is_none_or(|known| !known.is_made() || known.kept != kept);
        if known.is_none() {
            self.volumes.insert(Volume::new(kept.clone(), None));
        }
        self.volumes.update(&id, |volume| {
            volume.kept = kept.clone();
            volume.making_until_ms = None;
            volume.state = match state {
                VolumeState::Faulted => VolumeState::Faulted,
                // The others are for the master to say.
                VolumeState::Ready | VolumeState::NodeLost | VolumeState::Missing => {
                    VolumeState::Ready
                }
            };
        });
        if is_new {
            self.persist(StoreOp::PutVolume(kept));
        }
    }

    /// What is wrong with the asker's volumes; and of others', how many.
    pub(crate) fn volume_findings(&self, caller: &Caller) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut own = 0;
        for volume in self.volumes.listed(&caller.account) {
            let up = self.up(&volume.kept.node);
            let Ok(node) = up else { continue };
            let (message, cure) = match volume.state {
                VolumeState::Ready | VolumeState::NodeLost => continue,
                VolumeState::Faulted => (
                    format!("node `{node}` cannot serve it: its pool is out of order"),
                    "look at the pool there (`zpool status`, `btrfs device stats`) and at the \
                     node's own findings",
                ),
                VolumeState::Missing => (
                    format!("is not in the pool of node `{node}`: somebody removed it by hand"),
                    "bring its pool back, or forget the volume with `teu volume rm`",
                ),
            };
            own += 1;
            if findings.len() < FINDINGS {
                findings.push(Finding {
                    severity: Severity::Bad,
                    subject: format!("volume {}", volume.name()),
                    message,
                    cure: Some(cure.into()),
                });
            }
        }
        let ill = |v: &&Volume| matches!(v.state, VolumeState::Faulted | VolumeState::Missing);
        let up = self.nodes.iter().filter(|node| node.is_up());
        let all: usize = up
            .map(|node| self.volumes.on_node(&node.record.id).filter(ill).count())
            .sum();
        if all > own {
            findings.push(Finding {
                severity: Severity::Warning,
                subject: "volumes".into(),
                message: format!(
                    "{} of other accounts are missing or cannot be served",
                    all - own
                ),
                cure: None,
            });
        }
        findings
    }
}
