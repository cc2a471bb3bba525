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
        mounts,
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
    /// before a roll-back.
    pub(in crate::agent) async fn show_current_trees(&mut self) {
        let with_volumes: Vec<_> = self
            .core
            .containers()
            .into_iter()
            .filter(|one| !one.volumes.is_empty())
            .map(|one| (one.container, one.account))
            .collect();
        for (container, account) in with_volumes {
            let Ok(base) = self.uid_base(account) else {
                continue;
            };
            let Some(mounted) = self.mounted(container, base) else {
                continue;
            };
            let parent = self.yard.cgroup_parent.clone();
            let looked = self.yard.volumes.run(move |pool| {
                let mounts = worker::container_mounts(pool.as_ref(), &parent, mounted)?;
                let done = mounts.as_ref().map(mounts::reconcile).transpose();
                done.map_err(|error| {
                    crate::containers::refuse_internal("its volumes cannot be looked at", &error)
                })
            });
            match looked.await {
                Ok(Some(true)) => tracing::info!(%container, "sees its volumes as they are now"),
                Ok(_) => {}
                Err(refusal) => tracing::error!(%container, "{refusal}"),
            }
        }
    }
}

/// Returns when the master was told what came of it: a stream is closed after that, or its client
/// could ask for the volume before the master knows that it is there.
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
    let _ = yard.events.send(Event::Opened { request, result }).await;
}
