//! `teu doctor`: what the master sees, and what its nodes answer within [`limits::DOCTOR_MS`].
//!
//! Findings name nodes and counts, never another account's things.

use std::collections::{BTreeMap, BTreeSet};

use teu_protocol::{
    ids::{NodeId, RequestId, SessionId},
    message::{DoctorReport, Finding, NodeRequestBody, ReplyBody, Severity},
};

use crate::{
    ConnectionId, Core,
    connections::Caller,
    limits,
    nodes::Node,
    orders::{Asker, Purpose},
    request::Answer,
    subnet,
};

/// Findings that one node may contribute.
const FINDINGS_PER_NODE: usize = 64;

/// The questions that are being answered.
#[derive(Debug, Default)]
pub(crate) struct Doctors {
    open: BTreeMap<u64, Gathering>,
    last: u64,
}

#[derive(Debug)]
struct Gathering {
    asker: Asker,
    waits_for: BTreeSet<NodeId>,
    findings: Vec<Finding>,
}

impl Doctors {
    /// The same question again.
    pub(crate) fn join(
        &mut self,
        session: SessionId,
        request: RequestId,
        connection: ConnectionId,
    ) -> bool {
        let same = |gathering: &&mut Gathering| gathering.asker.waits_as(session, request);
        let Some(gathering) = self.open.values_mut().find(same) else {
            return false;
        };
        if !gathering.asker.connections.contains(&connection) {
            gathering.asker.connections.push(connection);
        }
        true
    }

    pub(crate) fn forget_askers(&mut self, session: &SessionId) {
        self.open
            .retain(|_, gathering| gathering.asker.session != *session);
    }
}

impl Core {
    pub(crate) fn doctor(&mut self, caller: &Caller) -> Answer {
        self.doctors.last += 1;
        let id = self.doctors.last;
        let mut findings = vec![self.master_finding()];
        findings.extend(self.nodes.iter().flat_map(|node| self.node_findings(node)));
        findings.extend(self.volume_findings(caller));
        if self.nodes.iter().next().is_none() {
            findings.push(Finding {
                severity: Severity::Bad,
                subject: "nodes".into(),
                message: "the location has no node".into(),
                cure: Some("enrol one with `teu node enrol` and start `teu-node` there".into()),
            });
        }
        let up: Vec<_> = self
            .nodes
            .iter()
            .filter(|node| node.is_up())
            .map(|node| node.record.id)
            .collect();
        let asker = Asker::of(caller);
        let waits_for = up.iter().copied().collect();
        self.doctors.open.insert(
            id,
            Gathering {
                asker,
                waits_for,
                findings,
            },
        );
        for node in up {
            let purpose = Purpose::Doctor(id);
            if self
                .order(node, NodeRequestBody::Doctor, purpose, limits::DOCTOR_MS)
                .is_err()
            {
                self.doctor_heard(id, node, None);
            }
        }
        self.finish_doctor(id)
    }

    /// A node's findings, or that it gave none.
    pub(crate) fn doctor_heard(&mut self, id: u64, node: NodeId, said: Option<Vec<Finding>>) {
        let name = self
            .nodes
            .get(&node)
            .map_or("?", |node| node.name())
            .to_owned();
        let Some(gathering) = self.doctors.open.get_mut(&id) else {
            return;
        };
        if !gathering.waits_for.remove(&node) {
            return;
        }
        match said {
            Some(findings) => {
                let own = findings
                    .into_iter()
                    .take(FINDINGS_PER_NODE)
                    .map(|finding| Finding {
                        subject: format!("node {name}: {}", finding.subject),
                        ..finding
                    });
                gathering.findings.extend(own);
            }
            None => gathering.findings.push(Finding {
                severity: Severity::Bad,
                subject: format!("node {name}"),
                message: "does not answer in time though its link is up".into(),
                cure: Some("look at the log of `teu-node` there".into()),
            }),
        }
        let asker = gathering.asker.clone();
        if let Answer::Now(report) = self.finish_doctor(id) {
            self.answer(&asker, Ok(*report));
        }
    }

    fn finish_doctor(&mut self, id: u64) -> Answer {
        if self
            .doctors
            .open
            .get(&id)
            .is_some_and(|open| open.waits_for.is_empty())
            && let Some(Gathering { findings, .. }) = self.doctors.open.remove(&id)
        {
            let version = self.config.version.clone();
            return Answer::now(ReplyBody::Doctor(DoctorReport { version, findings }));
        }
        Answer::Later
    }

    fn master_finding(&self) -> Finding {
        let message = format!(
            "version {}, up {} s: {} clients connected, {} sessions, {} streams, {} orders in flight{}",
            self.config.version,
            (self.clock() - self.started.monotonic_ms) / 1_000,
            self.connections.clients(),
            self.sessions.len(),
            self.streams.len(),
            self.orders.len(),
            if self.is_settled() {
                ""
            } else {
                "; still asks its nodes what they run"
            },
        );
        let subject = format!("master of {}", self.config.location);
        Finding {
            severity: Severity::Good,
            subject,
            message,
            cure: None,
        }
    }

    fn node_findings(&self, node: &Node) -> Vec<Finding> {
        let id = node.record.id;
        let subject = format!("node {}", node.name());
        let finding = |severity, message: String, cure: Option<&str>| Finding {
            severity,
            subject: subject.clone(),
            message,
            cure: cure.map(str::to_owned),
        };
        let mut findings = Vec::new();
        if node.is_up() {
            let containers = self.containers.on_node(&id).count();
            let message = format!(
                "up, version {}, {containers} containers, at most {} at once in {}/{}",
                node.version,
                subnet::containers(node.subnet),
                node.subnet.0,
                node.subnet.1
            );
            findings.push(finding(Severity::Good, message, None));
            if node.version != self.config.version {
                let message = format!(
                    "runs version {}, the master {}",
                    node.version, self.config.version
                );
                findings.push(finding(
                    Severity::Warning,
                    message,
                    Some("upgrade the older one"),
                ));
            }
        } else {
            let message = if node.seen {
                "its link is down"
            } else {
                "has not connected yet"
            };
            let cure = "start `teu-node` there, and see that it reaches this master's port";
            findings.push(finding(Severity::Bad, message.into(), Some(cure)));
        }
        let doomed = self
            .containers
            .on_node(&id)
            .filter(|c| c.is_doomed())
            .count();
        let left = doomed + node.leftovers.len();
        if left > 0 {
            let message = format!("{left} containers are ordered destroyed and not yet gone");
            let cure = "they go by themselves; if the number stays, look at the node's log";
            findings.push(finding(Severity::Warning, message, Some(cure)));
        }
        findings.extend(
            node.warnings
                .iter()
                .map(|text| finding(Severity::Warning, text.clone(), None)),
        );
        findings
    }
}
