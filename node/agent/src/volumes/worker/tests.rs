//! The worker against a pool that is only a model.

use std::{path::Path, sync::Arc, time::Duration};

use teu_node_core::{
    Input,
    volume::{Ticket, VolumeDone, VolumeWork, Work},
};
use teu_protocol::{
    ids::{PublicKey, RequestId, Tag, VolumeId},
    message::{
        NodeReplyBody, Refusal, RefusalCode, RollBack, VolumeOrder, VolumeOrigin, VolumeRecord,
        VolumeSpec, decode,
    },
};
use tokio::sync::mpsc;

use super::{Job, WorkerHandle};
use crate::{
    agent::Event,
    volumes::{
        model::ModelPool,
        pool::{Opened, Pool},
    },
};

struct Rig {
    worker: WorkerHandle,
    events: mpsc::Receiver<Event>,
    pool: Arc<ModelPool>,
    dir: tempfile::TempDir,
    next: u8,
}

fn start(pool: &Arc<ModelPool>, dir: &Path) -> (WorkerHandle, mpsc::Receiver<Event>) {
    let (events, received) = mpsc::channel(64);
    let opened = Arc::clone(pool);
    let open = Box::new(move || Ok(Opened::Pool(Arc::clone(&opened) as _)));
    let (worker, _) = WorkerHandle::start(open, dir, "test".into(), events).unwrap();
    (worker, received)
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pool = Arc::new(ModelPool::new(dir.path()));
        let (worker, events) = start(&pool, dir.path());
        Self {
            worker,
            events,
            pool,
            dir,
            next: 0,
        }
    }

    /// Another agent on the same data.
    fn restart(&mut self) {
        (self.worker, self.events) = start(&self.pool, self.dir.path());
    }

    async fn done(&mut self) -> Result<VolumeDone, Refusal> {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(20), self.events.recv());
            if let Event::Core(Input::VolumeDone { result, .. }) = next.await.unwrap().unwrap() {
                return result;
            }
        }
    }

    async fn perform(&mut self, request: u8, order: VolumeOrder) -> Result<VolumeDone, Refusal> {
        self.work(Work::Order {
            request: RequestId::from_bytes([request; 16]),
            order,
        })
        .await
    }

    async fn order(&mut self, order: VolumeOrder) -> Result<VolumeDone, Refusal> {
        self.next += 1;
        self.perform(self.next, order).await
    }

    async fn work(&mut self, work: Work) -> Result<VolumeDone, Refusal> {
        self.work_on(None, work).await
    }

    async fn work_on(
        &mut self,
        record: Option<VolumeRecord>,
        work: Work,
    ) -> Result<VolumeDone, Refusal> {
        let volume = match &work {
            Work::Order { order, .. } => order.volume(),
            Work::Scheduled { .. } => id(),
        };
        self.worker.perform(Job {
            work: VolumeWork {
                ticket: Ticket(1),
                volume,
                record,
                mounted_by: Vec::new(),
                held: Vec::new(),
                work,
            },
            uid_base: 1_000_000,
            mounted: Vec::new(),
        });
        self.done().await
    }

    fn names(&self) -> Vec<String> {
        self.pool.names(id())
    }
}

fn id() -> VolumeId {
    VolumeId::from_bytes([1; 16])
}

fn tag(name: &str) -> Tag {
    name.parse().unwrap()
}

fn record(id: VolumeId, origin: Option<VolumeOrigin>) -> VolumeRecord {
    VolumeRecord {
        id,
        account: PublicKey::from_bytes([3; 32]),
        created_ms: 5,
        spec: VolumeSpec::default(),
        origin,
    }
}

fn snapshot(name: &str) -> VolumeOrder {
    VolumeOrder::Snapshot {
        volume: id(),
        name: tag(name),
    }
}

fn roll_back(name: &str) -> VolumeOrder {
    VolumeOrder::RollBack(RollBack {
        volume: id(),
        snapshot: tag(name),
        discard_later: true,
        force: false,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_lives_and_is_listed_after_a_restart() {
    let mut rig = Rig::new();
    let made = rig.order(VolumeOrder::Create(record(id(), None))).await;
    assert_eq!(made.unwrap().record, Some(record(id(), None)));
    rig.order(snapshot("a")).await.unwrap();
    let origin = VolumeOrigin {
        volume: id(),
        snapshot: tag("a"),
    };
    let clone = VolumeId::from_bytes([2; 16]);
    rig.order(VolumeOrder::Clone(record(clone, Some(origin))))
        .await
        .unwrap();
    rig.restart();
    let list = rig
        .worker
        .run(|pool| Ok(pool.volumes().map(|all| all.len())));
    let list = list.await.unwrap().unwrap();
    assert_eq!(list, 2);
    rig.order(VolumeOrder::Destroy(id())).await.unwrap();
    rig.order(VolumeOrder::Destroy(id())).await.unwrap();
    let gone = rig.order(VolumeOrder::Snapshots(id())).await.unwrap_err();
    assert_eq!(gone.code, RefusalCode::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_comes_again_after_a_restart_is_done_once() {
    let mut rig = Rig::new();
    rig.order(VolumeOrder::Create(record(id(), None)))
        .await
        .unwrap();
    rig.perform(101, snapshot("a")).await.unwrap();
    rig.restart();
    rig.perform(101, snapshot("a")).await.unwrap();
    let taken = rig.perform(102, snapshot("a")).await.unwrap_err();
    assert_eq!(taken.code, RefusalCode::TagTaken);
    rig.restart();
    let taken = rig.perform(102, snapshot("a")).await.unwrap_err();
    assert_eq!(
        taken.code,
        RefusalCode::TagTaken,
        "it was refused, not begun"
    );

    rig.perform(103, roll_back("a")).await.unwrap();
    rig.order(snapshot("later")).await.unwrap();
    rig.restart();
    rig.perform(103, roll_back("a")).await.unwrap();
    assert_eq!(rig.names(), ["a", "later"], "it was not rolled back again");

    let destroy = |name| VolumeOrder::DestroySnapshot {
        volume: id(),
        name: tag(name),
    };
    rig.perform(104, destroy("a")).await.unwrap();
    rig.restart();
    rig.perform(104, destroy("a")).await.unwrap();
    let gone = rig.perform(105, destroy("a")).await.unwrap_err();
    assert_eq!(gone.code, RefusalCode::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn scheduled_snapshots_are_pruned_and_others_are_not() {
    let mut rig = Rig::new();
    rig.order(VolumeOrder::Create(record(id(), None)))
        .await
        .unwrap();
    rig.order(snapshot("mine")).await.unwrap();
    for hour in 10..14 {
        let name = tag(&format!("auto-20261121T{hour}0000Z"));
        rig.work(Work::Scheduled { name, keep: 2 }).await.unwrap();
    }
    let kept = ["mine", "auto-20261121T120000Z", "auto-20261121T130000Z"];
    assert_eq!(rig.names(), kept);
    // The same again.
    let name = tag("auto-20261121T130000Z");
    rig.work(Work::Scheduled { name, keep: 2 }).await.unwrap();
    assert_eq!(rig.names(), kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_was_half_changed_is_what_the_volume_has_outgrown_the_other_for() {
    let mut rig = Rig::new();
    let with = |quota| {
        let mut record = record(id(), None);
        record.spec.quota_bytes = Some(quota);
        record
    };
    let kept = |rig: &Rig| {
        let bytes = rig.pool.volumes().unwrap().remove(0).record.unwrap();
        decode::<VolumeRecord>(&bytes).unwrap().spec.quota_bytes
    };
    let change = |quota, n| Work::Order {
        request: RequestId::from_bytes([n; 16]),
        order: VolumeOrder::SetQuota {
            volume: id(),
            quota_bytes: Some(quota),
        },
    };
    rig.order(VolumeOrder::Create(with(10))).await.unwrap();
    rig.pool.fill(id(), 5, true);
    let refused = rig.work_on(Some(with(10)), change(4, 201)).await;
    assert_eq!(refused.unwrap_err().code, RefusalCode::WrongState);
    rig.order(snapshot("a")).await.unwrap();
    assert_eq!(kept(&rig), Some(10));

    rig.pool.fill(id(), 5, false);
    let failed = rig.work_on(Some(with(10)), change(20, 202)).await;
    assert_eq!(failed.unwrap_err().code, RefusalCode::Faulted);
    rig.pool.fill(id(), 15, true);
    rig.order(snapshot("b")).await.unwrap();
    assert_eq!(kept(&rig), Some(20), "the pool goes on, and both agree");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_fails_is_told_and_comes_back() {
    let mut rig = Rig::new();
    rig.order(VolumeOrder::Create(record(id(), None)))
        .await
        .unwrap();
    rig.pool.fault(true);
    let refused = rig.order(snapshot("a")).await.unwrap_err();
    assert_eq!(refused.code, RefusalCode::Faulted);
    let mut told = Vec::new();
    while told.last() != Some(&false) {
        if let Event::Core(Input::Volumes(list)) = rig.events.recv().await.unwrap() {
            told.push(list.is_some());
        }
    }
    assert!(rig.worker.view().why.is_some());
    rig.pool.fault(false);
    while told.last() != Some(&true) {
        if let Event::Core(Input::Volumes(list)) = rig.events.recv().await.unwrap() {
            told.push(list.is_some());
        }
    }
    assert_eq!(rig.worker.view().why, None);
    let usage = rig.order(VolumeOrder::Snapshots(id())).await.unwrap();
    assert_eq!(usage.reply, NodeReplyBody::Snapshots(Vec::new()));
}
