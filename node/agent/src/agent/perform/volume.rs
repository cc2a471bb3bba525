//! Work on volumes, to the worker and to the streams' tasks.
//!
//! Owner: the event loop. Invariants: each ticket is ended once; what the worker needs to know of
//! accounts and containers is looked up here, as it is now.

use teu_node_core::{
    accounts::IDS_PER_ACCOUNT,
    volume::{Ticket, VolumeDone, VolumeWork, Work},
};
use teu_protocol::{
    ids::{ContainerId, RequestId},
    message::{Refusal, VolumeOrder},
};
use tokio::sync::oneshot;

use super::open::link_lost;
use crate::{
    agent::{Agent, Event},
    containers::{Entry, Yard},
    keeper::IdRange,
    streams::Outlet,
    volumes::{
        transfer::{self, Export, Import},
        worker::{self, Job, Mounted},
    },
};

impl Agent {
    pub(super) fn volume(&mut self, mut work: VolumeWork) {
        let account = match &work.work {
            Work::Order {
                order:
                    VolumeOrder::Create(record)
                    | VolumeOrder::Clone(record)
                    | VolumeOrder::Import { record, .. },
                ..
            } => Some(record.account),
            _ => work.record.as_ref().map(|record| record.account),
        };
        let uid_base = match account.map_or(Ok(0), |account| self.uid_base(account)) {
            Ok(base) => base,
            Err(refusal) => return self.end_ticket(work.ticket, &work.work, refusal),
        };
        let is_stream = matches!(
            &work.work,
            Work::Order {
                order: VolumeOrder::Export { .. } | VolumeOrder::Import { .. },
                ..
            }
        );
        if is_stream {
            return self.transfer(work, uid_base);
        }
        let containers = std::mem::take(&mut work.mounted_by);
        let mounted = containers
            .iter()
            .filter_map(|id| self.mounted(*id, uid_base));
        self.yard.volumes.perform(Job {
            mounted: mounted.collect(),
            work,
            uid_base,
        });
    }

    /// What is there of a container that may have volumes mounted.
    fn mounted(&self, container: ContainerId, uid_base: u32) -> Option<Mounted> {
        let volumes = self.core.mounts(container)?.to_vec();
        let entry: &Entry = self.table.get(&container)?;
        let sandbox = entry.sandbox.as_ref()?;
        Some(Mounted {
            container,
            keeper: sandbox.keeper.clone(),
            slot: sandbox.net.slot.clone(),
            ids: IdRange {
                base: uid_base,
                count: IDS_PER_ACCOUNT,
            },
            volumes,
            name: self.core.name(container),
        })
    }

    /// It cannot even begin.
    fn end_ticket(&self, ticket: Ticket, work: &Work, refusal: Refusal) {
        if let Work::Order {
            request,
            order: VolumeOrder::Export { .. } | VolumeOrder::Import { .. },
        } = work
        {
            self.refuse_opening(*request, refusal.clone());
        }
        let yard = self.yard.clone();
        tokio::spawn(async move { ended(&yard, ticket, Err(refusal)).await });
    }

    fn transfer(&self, work: VolumeWork, uid_base: u32) {
        let Some(link) = self.current_link() else {
            return self.end_ticket(work.ticket, &work.work, link_lost());
        };
        let Work::Order { request, order } = work.work else {
            return;
        };
        let (ticket, yard) = (work.ticket, self.yard.clone());
        match order {
            VolumeOrder::Export {
                volume,
                snapshot,
                base,
                key,
                stream,
                window,
            } => {
                let inlet = link.accept(stream);
                let outlet = Outlet::new(link, stream);
                let order = Export {
                    volume,
                    snapshot,
                    base,
                    key,
                    window,
                    uid_base,
                };
                tokio::spawn(async move {
                    let open = async |result| opened(&yard, request, result).await;
                    let told = async |result| ended(&yard, ticket, result).await;
                    transfer::export(&yard.volumes, order, &outlet, inlet, open, told).await;
                });
            }
            VolumeOrder::Import {
                record,
                into,
                key,
                stream,
            } => {
                let inlet = link.accept(stream);
                let outlet = Outlet::new(link, stream);
                let order = Import {
                    record,
                    into,
                    key,
                    uid_base,
                };
                tokio::spawn(async move {
                    let open = async |result| opened(&yard, request, result).await;
                    let told = async |result| ended(&yard, ticket, result).await;
                    transfer::import(&yard.volumes, order, &outlet, inlet, open, told).await;
                });
            }
            _ => {}
        }
    }

    /// What an earlier agent may have left: containers that stand still, or that see the tree of
    /// before a roll-back. If the pool `is_slow`, they go on before it was looked at.
    pub(in crate::agent) async fn show_current_trees(&mut self, is_slow: bool) {
        let with_volumes: Vec<_> = self
            .core
            .containers()
            .into_iter()
            .filter(|one| !one.volumes.is_empty())
            .map(|one| (one.container, one.account))
            .collect();
        let mut mounted = Vec::new();
        for (container, account) in with_volumes {
            let ids = self.uid_base(account).ok();
            match ids.and_then(|base| self.mounted(container, base)) {
                Some(one) => mounted.push(one),
                // Without its ids it cannot be given anything, but it goes on.
                None => self.let_go_on(container).await,
            }
        }
        if is_slow {
            for one in &mounted {
                self.let_go_on(one.container).await;
            }
            let worker = self.yard.volumes.clone();
            tokio::spawn(async move { worker.show_current_trees(mounted).await });
        } else if !mounted.is_empty() {
            self.yard.volumes.show_current_trees(mounted).await;
        }
    }

    async fn let_go_on(&self, container: ContainerId) {
        let Some(slot) = self.slot_of(&container).ok().flatten() else {
            return;
        };
        let parent = self.yard.cgroup_parent.clone();
        let thaw = move || worker::thaw(&parent, container, &slot);
        let _ = tokio::task::spawn_blocking(thaw).await;
    }
}

async fn ended(yard: &Yard, ticket: Ticket, result: Result<VolumeDone, Refusal>) {
    yard.volumes.end(ticket, result, &yard.events).await;
    let (waiting, reached) = oneshot::channel();
    if yard.events.send(Event::Reached(waiting)).await.is_ok() {
        let _ = reached.await;
    }
}

async fn opened(
    yard: &Yard,
    request: RequestId,
    result: Result<(u64, oneshot::Sender<()>), Refusal>,
) {
    let result = result.map(|(window, start)| (window, None, start));
    let _ = yard.events.send(Event::Opened { request, result }).await;
}
