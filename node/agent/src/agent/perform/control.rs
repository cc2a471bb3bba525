//! Tasks that change something: containers, processes, rules.
//!
//! Owner: the event loop starts them.

use std::{net::Ipv4Addr, path::Path, sync::Arc};

use teu_node_core::{
    Input,
    plan::{ExecPlan, SpawnPlan},
};
use teu_protocol::{
    ids::{AttachmentId, ContainerId, ProcessId, PublicKey, RequestId},
    image_config::signal::Signal,
    message::{NodeReplyBody, Refusal, TermSize},
};

use super::prepare;
use crate::{
    agent::{Agent, Event},
    containers::{Entry, exec_plan, refuse_internal, refuse_running},
    keeper::{KeeperLink, LOG_DIR, LinkError, SignalScope, StartError},
    link::chain,
    state::StateError,
    sys::{names::SlotName, subid},
};

fn no_sandbox() -> Refusal {
    refuse_running(&StartError::Link(LinkError::Gone))
}

impl Agent {
    pub(super) fn prepare(&mut self, plan: SpawnPlan) {
        let container = plan.record.container;
        let entry = Entry::default();
        let unwanted = entry.unwanted.clone();
        self.table.insert(container, entry);
        // Followers may come before the keeper's first word.
        if let Some(entry) = self.table.get_mut(&container) {
            entry.process(container.main_process());
        }
        match self.uid_base(plan.record.account) {
            Ok(base) => drop(tokio::spawn(prepare(
                self.yard.clone(),
                plan,
                base,
                unwanted,
            ))),
            Err(refusal) => {
                let events = self.yard.events.clone();
                let event = Event::Prepared {
                    container,
                    result: Err(refusal),
                };
                tokio::spawn(async move { events.send(event).await });
            }
        }
    }

    /// The account's range; kept before it is used.
    pub(super) fn uid_base(&mut self, account: PublicKey) -> Result<u32, Refusal> {
        let what = "the account gets no range of user ids on this node";
        let range = self
            .accounts
            .range_of(account, |base| {
                is_somebody_elses(base, self.yard.data.path())
            })
            .map_err(|error| refuse_internal(what, &error))?;
        if range.is_new {
            let kept = self.yard.data.keep_accounts(&self.accounts);
            kept.map_err(|error| refuse_internal(what, &error))?;
        }
        Ok(range.base)
    }

    pub(super) fn slot_of(&self, container: &ContainerId) -> Result<Option<SlotName>, StateError> {
        let Some(entry) = self.table.get(container) else {
            return Ok(None);
        };
        if let Some(sandbox) = &entry.sandbox {
            return Ok(Some(sandbox.net.slot.clone()));
        }
        // Released: the record still names the slot that it had, which is gone.
        let stored = self.yard.data.container(*container).load()?;
        Ok(stored.map(|stored| stored.slot))
    }

    fn keeper(&self, container: &ContainerId) -> Option<KeeperLink> {
        Some(self.table.get(container)?.sandbox.as_ref()?.keeper.clone())
    }

    pub(super) fn keeper_of(&self, container: &ContainerId) -> Option<KeeperLink> {
        self.keeper(container)
    }

    /// Cuts what the address's owner was allowed, then goes on.
    pub(super) fn after_revoking(
        &self,
        revoke: Vec<ContainerId>,
        from: Option<Ipv4Addr>,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let to: Vec<Ipv4Addr> = revoke
            .iter()
            .filter_map(|id| Some(self.table.get(id)?.sandbox.as_ref()?.net.ip))
            .collect();
        let network = self.yard.network.clone();
        tokio::spawn(async move {
            if let Some(from) = from {
                for to in to {
                    if let Err(error) = network.disallow(from, to).await {
                        tracing::error!("a rule is not removed: {}", chain(&error));
                    }
                }
            }
            work.await;
        });
    }

    /// Runs a keeper's request and answers the order with its outcome.
    fn ask_keeper<F>(
        &self,
        request: Option<RequestId>,
        container: ContainerId,
        ask: impl FnOnce(KeeperLink) -> F,
    ) where
        F: Future<Output = Result<(), StartError>> + Send + 'static,
    {
        let events = self.yard.events.clone();
        let asked = self.keeper(&container).map(ask);
        tokio::spawn(async move {
            let result = match asked {
                Some(asked) => asked.await.map_err(|error| refuse_running(&error)),
                None => Err(no_sandbox()),
            };
            if let Some(request) = request {
                let result = result.map(|()| NodeReplyBody::Done);
                let _ = events
                    .send(Event::Core(Input::Answered { request, result }))
                    .await;
            }
        });
    }

    pub(super) fn signal(
        &self,
        request: Option<RequestId>,
        container: ContainerId,
        process: ProcessId,
        signal: Signal,
    ) {
        // A killed process takes along what it forked; other signals are its own business.
        let scope = if signal == Signal::KILL {
            SignalScope::Group
        } else {
            SignalScope::Leader
        };
        self.ask_keeper(request, container, |keeper| async move {
            keeper.signal(process, signal, scope).await
        });
    }

    pub(super) fn resize(
        &self,
        request: RequestId,
        container: ContainerId,
        process: ProcessId,
        size: TermSize,
    ) {
        self.ask_keeper(Some(request), container, move |keeper| async move {
            keeper.resize(process, size.rows, size.cols).await
        });
    }

    pub(super) fn release_readers(&self, container: ContainerId, attachment: AttachmentId) {
        // Behind the streams that were ordered before: their places are to be there by then.
        let opening = self
            .table
            .get(&container)
            .map(|entry| Arc::clone(&entry.opening));
        self.ask_keeper(None, container, move |keeper| async move {
            let _turn = match opening {
                Some(opening) => Some(opening.write_owned().await),
                None => None,
            };
            keeper.release_owned(attachment).await
        });
    }

    pub(super) fn exec(&mut self, plan: ExecPlan) {
        let (container, process) = (plan.container, plan.id);
        if let Some(entry) = self.table.get_mut(&container) {
            entry.process(process);
        }
        let keeper = self.keeper(&container);
        let events = self.yard.events.clone();
        tokio::spawn(async move {
            let result = match keeper {
                Some(keeper) => match keeper.exec(exec_plan(&plan)).await {
                    Ok(_) => Ok(()),
                    Err(error) => Err(refuse_running(&error)),
                },
                None => Err(no_sandbox()),
            };
            let input = Input::ExecStarted {
                container,
                process,
                result,
            };
            let _ = events.send(Event::Core(input)).await;
        });
    }

    pub(super) fn forget(&mut self, container: ContainerId, process: ProcessId) {
        if let Some(entry) = self.table.get_mut(&container) {
            entry.processes.remove(&process);
        }
        let logs = self.yard.data.container(container).path().join(LOG_DIR);
        tokio::task::spawn_blocking(move || remove_logs(&logs, process));
        self.ask_keeper(None, container, |keeper| async move {
            keeper.forget(process).await
        });
    }

    pub(super) fn allowance(
        &self,
        request: RequestId,
        to: ContainerId,
        from: ContainerId,
        from_ip: Ipv4Addr,
        allowed: bool,
    ) {
        let to_ip = self
            .table
            .get(&to)
            .and_then(|entry| Some(entry.sandbox.as_ref()?.net.ip));
        let (network, events) = (self.yard.network.clone(), self.yard.events.clone());
        tokio::spawn(async move {
            let result = match to_ip {
                None => Err(no_sandbox()),
                Some(to_ip) => {
                    let done = if allowed {
                        network.allow(from_ip, to_ip).await
                    } else {
                        network.disallow(from_ip, to_ip).await
                    };
                    done.map_err(|error| refuse_internal("the firewall was not changed", &error))
                }
            };
            let input = Input::Allowance {
                request,
                to,
                from,
                from_ip,
                allowed,
                result,
            };
            let _ = events.send(Event::Core(input)).await;
        });
    }

    pub(super) fn examine(&self, request: RequestId) {
        let yard = self.yard.clone();
        let stuck: Vec<ContainerId> = self.core.stuck().collect();
        let unwell: Vec<_> = self.core.unwell().collect();
        tokio::spawn(async move {
            let findings = crate::doctor::examine(&yard, &stuck, &unwell).await;
            let result = Ok(NodeReplyBody::Findings(findings));
            let _ = yard
                .events
                .send(Event::Core(Input::Answered { request, result }))
                .await;
        });
    }
}

/// A log's segments are `<process>.<cursor>.out`.
fn remove_logs(logs: &Path, process: ProcessId) {
    let prefix = format!("{process}.");
    let Ok(entries) = std::fs::read_dir(logs) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            // It goes with its container at the latest.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Whether ids from `base` on are a user's of the machine, or another location's; else they are claimed.
fn is_somebody_elses(base: u32, data: &Path) -> bool {
    if let Some(user) = subid::user_of(base) {
        tracing::info!(
            base,
            user,
            "these ids are a user's of this machine; the next are taken"
        );
        return true;
    }
    subid::claim(base, data).map(|ours| !ours).unwrap_or_else(|error| {
        tracing::warn!(base, %error, "it cannot be told whether another location has these ids");
        false
    })
}
