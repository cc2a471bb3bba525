//! Looking whether the kernel still is as the worker left it, and mending it.
//!
//! Part of the network worker. Invariant: `check` changes nothing; `verify` mends everything that
//! can be mended without losing a flow. Next: `problem` for what people are told.

use std::net::Ipv4Addr;

use super::elements::SETS;
use super::error::NetError;
use super::problem::NetProblem;
use super::worker::Worker;
use super::{ruleset, sysctl};

impl Worker {
    pub(super) fn verify(&mut self) -> Result<(), NetError> {
        if !self.rules_are_right()? {
            self.times_restored += 1;
            tracing::warn!(
                tables = self.config.table(),
                "the firewall was changed by somebody else; restoring it"
            );
            self.load()?;
        }
        if self.bridge_is_wrong()? || !sysctl::forwards() {
            tracing::warn!(bridge = %self.config.bridge(), "the bridge was changed; repairing it");
            self.ensure_links()?;
        }
        Ok(())
    }

    fn rules_are_right(&mut self) -> Result<bool, NetError> {
        let fingerprint = self.elements.fingerprint().map_err(NetError::ReadRules)?;
        if fingerprint.is_none() || fingerprint != self.fingerprint {
            return Ok(false);
        }
        for set in SETS {
            let found = self.elements.read(set).map_err(NetError::ReadRules)?;
            if found != Some(ruleset::expected_keys(&self.config, &self.firewall, set)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn bridge_is_wrong(&mut self) -> Result<bool, NetError> {
        let found = self
            .links
            .find(&self.config.bridge())
            .map_err(NetError::ListLinks)?;
        Ok(!found.is_some_and(|link| link.is_bridge && link.is_up))
    }

    /// Looks at everything, changes nothing.
    pub(super) fn check(&mut self) -> Vec<NetProblem> {
        let mut problems = Vec::new();
        let bridge = self.config.bridge();
        match self.bridge_is_wrong() {
            Ok(true) => problems.push(NetProblem::Bridge(bridge.clone())),
            Ok(false) => {}
            Err(error) => problems.push(NetProblem::Unknown(error.to_string())),
        }
        match self.rules_are_right() {
            Ok(false) => problems.push(NetProblem::Rules(self.config.table().to_owned())),
            Ok(true) => {}
            Err(error) => problems.push(NetProblem::Unknown(error.to_string())),
        }
        if self.times_restored > 0 {
            problems.push(NetProblem::RulesRestored {
                times: self.times_restored,
            });
        }
        if !sysctl::forwards() {
            problems.push(NetProblem::Forwarding);
        }
        match ruleset::foreign_forward_drops(&self.config) {
            Ok(chains) => {
                problems.extend(chains.into_iter().map(|chain| NetProblem::ForeignDrop {
                    chain,
                    bridge: bridge.clone(),
                }))
            }
            Err(error) => problems.push(NetProblem::Unknown(error.to_string())),
        }
        problems.extend(self.lost_ports());
        problems
    }

    fn lost_ports(&mut self) -> Vec<NetProblem> {
        let links = match self.links.list() {
            Ok(links) => links,
            Err(error) => return vec![NetProblem::Unknown(error.to_string())],
        };
        let bridge = links
            .iter()
            .find(|link| link.name == self.config.bridge())
            .map(|l| l.index);
        let has_port = |ip: Ipv4Addr| {
            let veth = self.config.veth(ip);
            links
                .iter()
                .any(|link| link.name == veth && link.master == bridge && bridge.is_some())
        };
        let lost = self.slots.iter().filter(|(_, ip)| !has_port(**ip));
        lost.map(|(slot, _)| NetProblem::Port { slot: slot.clone() })
            .collect()
    }
}
