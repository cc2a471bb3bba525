//! The volume worker, a real pool and a real container: whatever happens to the pool half-way, the
//! container goes on, is not silently left with an old tree, and its owner is told.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use teu_node::{
    agent::Event,
    keeper::{IdRange, StartPlan},
    sys::cgroup::{Cgroup, Hierarchies},
    volumes::{
        pool::{Opened, Pool, PoolError},
        worker::{Job, Mounted, WorkerHandle, mount_plans},
    },
};
use teu_node_core::{
    Input,
    volume::{Ticket, VolumeDone, VolumeWork, Work},
};
use teu_protocol::{
    ids::RequestId,
    message::{Refusal, RefusalCode, RollBack, VolumeMount, VolumeOrder},
};
use tokio::sync::mpsc;

use crate::{
    rig::{BASE, Rig, Running, eventually, sh},
    volume_pool::{At, FAILPOINTS, Lab, id, tag, write},
};

const SCRIPT: &str = "while :; do cat /data/version 2>/dev/null; usleep 5000; done";

struct Stage {
    // First: it finds its loop device by the file, which goes with the rig.
    lab: Arc<Lab>,
    rig: Rig,
    pool: Arc<dyn Pool>,
}

impl Stage {
    /// A volume with a snapshot `s` of version "one", now at "two".
    async fn new() -> Self {
        let rig = Rig::new().await;
        let lab = Arc::new(Lab::new(rig.dir.path()));
        let pool: Arc<dyn Pool> = Arc::new(lab.open().unwrap());
        pool.create(id(1), b"record", None).unwrap();
        write(&*pool, 1, "one");
        pool.snapshot(id(1), &tag("s")).unwrap();
        write(&*pool, 1, "two");
        Self { rig, lab, pool }
    }

    fn volumes() -> Vec<VolumeMount> {
        vec![VolumeMount {
            volume: id(1),
            path: "/data".to_owned(),
            read_only: false,
        }]
    }

    async fn run(&self, script: &str) -> Running {
        let plan = StartPlan {
            mounts: mount_plans(&*self.pool, &Self::volumes()).unwrap(),
            ..self.rig.plan("user", sh(script))
        };
        let mut boxed = self.rig.start("user", plan).await;
        let main = boxed.main();
        boxed.wait_output(main, "two\n").await;
        boxed
    }

    fn mounted(&self, boxed: &Running) -> Mounted {
        Mounted {
            container: boxed.container,
            name: "my-database".to_owned(),
            keeper: boxed.link.clone(),
            slot: boxed.slot.clone(),
            ids: IdRange {
                base: BASE,
                count: 65536,
            },
            volumes: Self::volumes(),
        }
    }

    fn group(&self, boxed: &Running) -> Cgroup {
        let hierarchies = Hierarchies::detect().unwrap();
        Cgroup::named(&hierarchies, &self.rig.parent, boxed.slot.as_str())
    }

    fn worker(
        &self,
        open: impl Fn() -> Result<Arc<dyn Pool>, PoolError> + Send + 'static,
    ) -> (WorkerHandle, mpsc::Receiver<Event>) {
        let (events, received) = mpsc::channel(64);
        let open = Box::new(move || open().map(Opened::Pool));
        let parent = self.rig.parent.clone();
        let (worker, _) = WorkerHandle::start(open, self.rig.dir.path(), parent, events).unwrap();
        (worker, received)
    }

    /// A worker on this pool.
    fn employ(&self) -> (WorkerHandle, mpsc::Receiver<Event>) {
        let pool = Arc::clone(&self.pool);
        self.worker(move || Ok(Arc::clone(&pool)))
    }

    fn roll_back(&self, boxed: &Running, force: bool) -> Job {
        let order = VolumeOrder::RollBack(RollBack {
            volume: id(1),
            snapshot: tag("s"),
            discard_later: false,
            force,
        });
        Job {
            work: VolumeWork {
                ticket: Ticket(1),
                volume: id(1),
                record: None,
                mounted_by: vec![boxed.container],
                held: Vec::new(),
                work: Work::Order {
                    request: RequestId::from_bytes([1; 16]),
                    order,
                },
            },
            uid_base: BASE,
            mounted: vec![self.mounted(boxed)],
        }
    }
}

async fn done(events: &mut mpsc::Receiver<Event>) -> Result<VolumeDone, Refusal> {
    loop {
        if let Event::Core(Input::VolumeDone { result, .. }) = events.recv().await.unwrap() {
            return result;
        }
    }
}

/// From some moment on it reads the snapshot's version, and nothing else.
async fn comes_to_see_the_snapshot(boxed: &mut Running) {
    let main = boxed.main();
    boxed.wait_output(main, "one\n").await;
    let text = boxed.output(main);
    let (_, after) = text.split_once("one\n").unwrap();
    assert!(!after.contains("two"), "{after}");
    let id = boxed
        .exec(77, sh("cat /data/version; echo new > /data/new"))
        .await;
    boxed.events.exit_of(id).await;
    assert_eq!(boxed.output(id), "one\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_left_frozen_goes_on_without_a_pool_and_sees_the_new_tree_with_it() {
    let stage = Stage::new().await;
    let (lab, pool) = (&stage.lab, &stage.pool);
    let mut boxed = stage.run(SCRIPT).await;
    let group = stage.group(&boxed);
    // An agent that was killed between rolling back and showing it.
    group.freeze().unwrap();
    pool.roll_back(id(1), &tag("s")).unwrap();
    let mounted = stage.mounted(&boxed);
    let there = Arc::new(AtomicBool::new(false));
    let opened = {
        let (there, pool) = (Arc::clone(&there), Arc::clone(&stage.pool));
        move || match there.load(Ordering::SeqCst) {
            true => Ok(Arc::clone(&pool)),
            false => Err(PoolError::Faulted("not today".to_owned())),
        }
    };
    let (worker, _events) = stage.worker(opened);
    worker.show_current_trees(vec![mounted]).await;
    assert!(!group.is_frozen().unwrap(), "it goes on");
    assert_eq!(lab.entries("gone").len(), 1, "the tree that it sees");
    there.store(true, Ordering::SeqCst);
    // Recovery has removed the old tree before.
    comes_to_see_the_snapshot(&mut boxed).await;
    assert_eq!(lab.entries("gone").len(), 0);
    assert!(!group.is_frozen().unwrap());
    assert!(lab.entries(&format!("volumes/{}/tree", id(1))).len() == 2);
}

/// The pool is unmounted at that point of a roll-back.
async fn unmounted_at(point: &'static str) {
    let _alone = FAILPOINTS.lock().await;
    let stage = Stage::new().await;
    let mut boxed = stage.run(SCRIPT).await;
    let (worker, mut events) = stage.employ();
    let lab = Arc::clone(&stage.lab);
    let at = At::new(point, "volumes", move || lab.unmount());
    worker.perform(stage.roll_back(&boxed, true));
    let refusal = done(&mut events).await.unwrap_err();
    drop(at);
    assert_eq!(refusal.code, RefusalCode::Faulted);
    assert!(refusal.message.contains("my-database"), "{refusal}");
    assert!(!stage.group(&boxed).is_frozen().unwrap(), "it goes on");
    // The pool is mounted again by itself.
    comes_to_see_the_snapshot(&mut boxed).await;
    eventually("the old tree goes", || stage.lab.entries("gone").is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_goes_away_after_a_roll_back_leaves_nobody_with_the_old_tree() {
    unmounted_at("volume-rollback-made").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_back_that_is_cut_off_by_the_pool_is_finished_when_it_is_back() {
    unmounted_at("volume-btrfs-rollback-exchanged").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_back_that_fails_behind_its_middle_is_finished_at_once() {
    let _alone = FAILPOINTS.lock().await;
    let stage = Stage::new().await;
    let mut boxed = stage.run(SCRIPT).await;
    let (worker, mut events) = stage.employ();
    // Something is where the old tree is to go.
    let (lab, tree) = (Arc::clone(&stage.lab), stage.pool.tree(id(1)).unwrap());
    let number = teu_node::sys::btrfs::subvolume(&tree).unwrap().id;
    let _at = At::new("volume-btrfs-rollback-exchanged", "volumes", move || {
        let place = format!("gone/{}.{number}", id(1));
        std::fs::write(lab.mount_dir.join(place), "").unwrap();
    });
    worker.perform(stage.roll_back(&boxed, true));
    done(&mut events).await.unwrap();
    comes_to_see_the_snapshot(&mut boxed).await;
    // The snapshot's number came after the tree's; then the first attempt's; then this.
    let tree = stage.pool.tree(id(1)).unwrap();
    let now = teu_node::sys::btrfs::subvolume(&tree).unwrap().id;
    assert_eq!(
        now,
        number + 3,
        "the first attempt was in the way of nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_holds_the_volume_is_named_with_its_containers_tag() {
    let _alone = FAILPOINTS.lock().await;
    let stage = Stage::new().await;
    let script = "exec 3</data/version; cat /data/version; sleep 100; :";
    let boxed = stage.run(script).await;
    let (worker, mut events) = stage.employ();
    worker.perform(stage.roll_back(&boxed, false));
    let refusal = done(&mut events).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Busy);
    let named = "sh (pid 1) has /data/version open in container my-database";
    assert!(refusal.message.contains(named), "{refusal}");
    let id = boxed.exec(1, sh("true")).await;
    drop((worker, id));
    eventually("it goes on", || !stage.group(&boxed).is_frozen().unwrap()).await;
}
