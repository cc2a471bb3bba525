//! The volume worker: one thread that does what is asked of the pool, one thing after the other.
//!
//! ```text
//! Effect::Volume ─▶ WorkerHandle ─▶ thread: Pool, mounts ─▶ Event (VolumeDone, Volumes)
//!                   view ◀── room and what is wrong, for the offer and for `doctor`
//! ```
//! Owner: [`WorkerHandle::start`]. Invariants: the pool's changing methods are called on this thread
//! only (streams' long ones have threads of their own, and begin and end here); a pool that cannot
//! be opened is tried again; every job is answered once; while it is not clear what a cut-off change has
//! come to, nothing else is done to the pool.
//! Next: `perform` for the orders, `look` for what is there, `journal` for orders that are repeated,
//! `owed` for containers that do not see their volumes as they are.

mod failpoints;
mod journal;
mod look;
mod owed;
mod perform;
mod recovery;
mod refuse;
mod roll_back;

#[cfg(test)]
mod tests;

pub use failpoints::FAILPOINTS;
pub use owed::thaw;
pub(in crate::volumes) use perform::encoded;
pub use refuse::refuse_pool;

use std::{
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};

use teu_node_core::{
    Input,
    volume::{ListedVolume, Ticket, VolumeDone, VolumeWork},
};
use teu_protocol::{
    ids::{ContainerId, VolumeId},
    message::{Refusal, RefusalCode, VolumeMount},
};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    mounts::ContainerMounts,
    pool::{Opened, Pool, PoolError, PoolSpace},
};
use crate::{
    agent::Event,
    keeper::{IdRange, KeeperLink, VolumeMountPlan},
    link::chain,
    sys::names::SlotName,
};
use journal::Journal;
use owed::Owed;
use recovery::Recovery;

/// The pool is maintained, and its room measured, this often.
const MAINTAIN_EVERY: Duration = Duration::from_secs(2);

/// What is there is compared with what is known this often.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A container that may have volumes mounted, as the event loop knows it.
#[derive(Debug, Clone)]
pub struct Mounted {
    /// Which.
    pub container: ContainerId,
    /// For people: its tag, or the beginning of its id.
    pub name: String,
    /// Its supervisor.
    pub keeper: KeeperLink,
    /// Its slot.
    pub slot: SlotName,
    /// Its account's range.
    pub ids: IdRange,
    /// All of its volumes.
    pub volumes: Vec<VolumeMount>,
}

/// Work with what it needs of the event loop's knowledge.
#[derive(Debug)]
pub struct Job {
    /// What to do.
    pub work: VolumeWork,
    /// The account's first user id.
    pub uid_base: u32,
    /// The containers that have it.
    pub mounted: Vec<Mounted>,
}

/// What is known of the pool, for `doctor` and for the offer.
#[derive(Debug, Clone, Default)]
pub struct PoolView {
    /// The pool, if there is one.
    pub pool: Option<Arc<dyn Pool>>,
    /// Why there is none, or why it cannot be used now.
    pub why: Option<String>,
    /// The node is meant to have none.
    pub is_off: bool,
    /// Its room when last measured.
    pub space: Option<PoolSpace>,
    /// Volumes that are there and whose record cannot be read.
    pub unreadable: Vec<VolumeId>,
}

type Task = Box<dyn FnOnce(Result<&Arc<dyn Pool>, Refusal>) + Send>;

enum Message {
    Job(Box<Job>),
    Run(Task),
    End(Box<dyn FnOnce() + Send>),
    Show(Vec<Mounted>, oneshot::Sender<()>),
    Recover(oneshot::Sender<()>),
    Look,
}

/// To the worker. It ends when the last of these is dropped.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    messages: Sender<Message>,
    view: watch::Receiver<PoolView>,
}

/// Opens the pool; tried again while it fails.
pub type OpenPool = Box<dyn Fn() -> Result<Opened, PoolError> + Send>;

/// What there was at the start. `None`: the pool cannot be read.
pub type FirstLook = oneshot::Receiver<Option<Vec<ListedVolume>>>;

impl WorkerHandle {
    /// Starts the thread: it opens the pool, finishes what an earlier agent left half done, and tells
    /// what is there.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        open: OpenPool,
        data_dir: &Path,
        cgroup_parent: String,
        events: mpsc::Sender<Event>,
    ) -> std::io::Result<(Self, FirstLook)> {
        let (messages, inbox) = channel();
        let (view, seen) = watch::channel(PoolView::default());
        let (first, first_look) = oneshot::channel();
        let journal = Journal::at(data_dir.join("volumes.journal"));
        let thread = std::thread::Builder::new().name("volumes".to_owned());
        thread.spawn(move || {
            let mut worker = Worker {
                open,
                cgroup_parent,
                events,
                view,
                journal,
                recovery: Recovery::First,
                owed: Owed::default(),
                worked: Instant::now(),
                looked: Instant::now(),
                told: None,
            };
            worker.maintain();
            let _ = first.send(worker.list());
            worker.run(&inbox);
        })?;
        let view = seen;
        Ok((Self { messages, view }, first_look))
    }

    /// Does it, and tells `Input::VolumeDone`.
    pub fn perform(&self, job: Job) {
        // The thread ends only after the last handle.
        let _ = self.messages.send(Message::Job(Box::new(job)));
    }

    /// Calls `task` on the worker's thread, between two jobs.
    ///
    /// # Errors
    /// What it says; `Faulted` if there is no pool.
    pub async fn run<T: Send + 'static>(
        &self,
        task: impl FnOnce(&Arc<dyn Pool>) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let task: Task = Box::new(move |pool| {
            let _ = answer.send(pool.and_then(task));
        });
        let gone = || Refusal::new(RefusalCode::Unavailable, "the node is stopping; try again");
        self.messages.send(Message::Run(task)).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Lets these go on, whether or not the pool can be read, and shows them the trees that are current:
    /// when this returns, or as soon as that can be done.
    pub async fn show_current_trees(&self, containers: Vec<Mounted>) {
        let (done, is_done) = oneshot::channel();
        let _ = self.messages.send(Message::Show(containers, done));
        let _ = is_done.await;
    }

    /// Finishes what a change that was made beside this thread left, and removes what it replaced.
    pub(in crate::volumes) async fn recover(&self) {
        let (done, is_done) = oneshot::channel();
        let _ = self.messages.send(Message::Recover(done));
        let _ = is_done.await;
    }

    /// Ends a ticket, after all that the worker was told before. When this returns, the event loop
    /// hears of the end before anything that comes later.
    pub async fn end(
        &self,
        ticket: Ticket,
        result: Result<VolumeDone, Refusal>,
        events: &mpsc::Sender<Event>,
    ) {
        let events = events.clone();
        let (ended, has_ended) = oneshot::channel();
        // Not a task: those wait for the pool.
        let end = Box::new(move || {
            let _ = events.blocking_send(Event::Core(Input::VolumeDone { ticket, result }));
            let _ = ended.send(());
        });
        let _ = self.messages.send(Message::End(end));
        let _ = has_ended.await;
        let _ = self.messages.send(Message::Look);
    }

    /// What is known of the pool.
    #[must_use]
    pub fn view(&self) -> PoolView {
        self.view.borrow().clone()
    }

    /// Its room.
    #[must_use]
    pub fn space(&self) -> PoolSpace {
        self.view
            .borrow()
            .space
            .unwrap_or(PoolSpace { total: 0, free: 0 })
    }
}

/// What the keeper has to mount.
///
/// # Errors
/// A volume that the pool does not have, or cannot show.
pub fn mount_plans(
    pool: &dyn Pool,
    volumes: &[VolumeMount],
) -> Result<Vec<VolumeMountPlan>, Refusal> {
    let plan = |mount: &VolumeMount| {
        let source = pool
            .tree(mount.volume)
            .map_err(|error| refuse_pool(&error))?;
        Ok(VolumeMountPlan {
            source,
            target: mount.path.clone().into(),
            read_only: mount.read_only,
            idmapped: pool.maps_owners(),
        })
    };
    let mut plans = volumes
        .iter()
        .map(plan)
        .collect::<Result<Vec<_>, Refusal>>()?;
    // What lies in another one's tree comes after it.
    plans.sort_by_key(|plan| plan.target.components().count());
    Ok(plans)
}

struct Worker {
    open: OpenPool,
    cgroup_parent: String,
    events: mpsc::Sender<Event>,
    view: watch::Sender<PoolView>,
    journal: Journal,
    recovery: Recovery,
    owed: Owed,
    /// When the last job was done.
    worked: Instant,
    looked: Instant,
    /// The last list that was told.
    told: Option<Option<Vec<ListedVolume>>>,
}

impl Worker {
    fn run(&mut self, inbox: &Receiver<Message>) {
        let mut maintained = Instant::now();
        loop {
            let wait = MAINTAIN_EVERY.saturating_sub(maintained.elapsed());
            match inbox.recv_timeout(wait) {
                Ok(Message::Job(job)) => self.job(*job),
                Ok(Message::Run(task)) => match self.pool() {
                    Ok(pool) => task(Ok(&pool)),
                    Err(refusal) => task(Err(refusal)),
                },
                Ok(Message::End(end)) => end(),
                Ok(Message::Show(containers, done)) => {
                    for one in containers {
                        self.owed.add(one);
                    }
                    self.settle();
                    let _ = done.send(());
                }
                Ok(Message::Recover(done)) => {
                    self.recovery = Recovery::First;
                    if let Err(refusal) = self.pool() {
                        tracing::warn!("what an import left goes later: {refusal}");
                    }
                    let _ = done.send(());
                }
                Ok(Message::Look) => self.look(),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if maintained.elapsed() >= MAINTAIN_EVERY {
                self.maintain();
                if self.looked.elapsed() >= LOOK_EVERY {
                    self.look();
                }
                maintained = Instant::now();
            }
        }
    }

    /// The pool, with nothing half done in it.
    fn pool(&mut self) -> Result<Arc<dyn Pool>, Refusal> {
        let open = self.view.borrow().pool.clone();
        let Some(pool) = open else {
            let view = self.view.borrow();
            let why = view.why.as_deref().unwrap_or("it is not open yet");
            let message = format!("the node has no pool of volumes: {why}");
            return Err(Refusal::new(RefusalCode::Faulted, message));
        };
        let room = self.view.borrow().space;
        if self.recovery.comes_first(room) {
            self.recover(pool.as_ref())
                .map_err(|error| refuse_pool(&error))?;
        }
        Ok(pool)
    }

    fn recover(&mut self, pool: &dyn Pool) -> Result<(), PoolError> {
        pool.recover()?;
        self.settle_quotas(pool)?;
        self.recovery = Recovery::NotDue;
        Ok(())
    }

    fn job(&mut self, job: Job) {
        let ticket = job.work.ticket;
        let pool = self.pool();
        let result = pool.and_then(|pool| self.perform(pool.as_ref(), job));
        // A pool that fails may have lost more than this volume.
        let look = matches!(&result, Err(refusal) if matches!(
            refusal.code,
            RefusalCode::Faulted | RefusalCode::Internal | RefusalCode::NotFound
        ));
        let done = Input::VolumeDone { ticket, result };
        let _ = self.events.blocking_send(Event::Core(done));
        self.worked = Instant::now();
        if look {
            self.look();
        }
        self.measure();
    }

    /// Opens the pool if it is not open, makes it fit for use, and measures it.
    fn maintain(&mut self) {
        let open = self.view.borrow().pool.clone();
        let pool = match open {
            Some(pool) => pool,
            None if self.view.borrow().is_off => return,
            None => match (self.open)() {
                Ok(Opened::Pool(pool)) => {
                    tracing::info!("volumes: {}", pool.describe());
                    self.view
                        .send_modify(|view| view.pool = Some(Arc::clone(&pool)));
                    // What is in it is told at once.
                    self.looked = Instant::now()
                        .checked_sub(LOOK_EVERY)
                        .unwrap_or(self.looked);
                    pool
                }
                Ok(Opened::Nothing(why)) => {
                    tracing::info!("this node has no volumes: {why}");
                    self.view.send_modify(|view| {
                        view.why = Some(why);
                        view.is_off = true;
                    });
                    return;
                }
                Err(error) => return self.ails(Some(chain(&error))),
            },
        };
        if let Err(error) = pool.maintain() {
            self.ails(Some(chain(&error)));
            self.recovery = Recovery::First;
            return;
        }
        self.settle();
        let room = self.view.borrow().space;
        if self.recovery.is_due(Instant::now(), self.worked, room)
            && let Err(error) = self.recover(pool.as_ref())
        {
            return self.ails(Some(chain(&error)));
        }
        self.measure();
    }

    fn measure(&self) {
        let Some(pool) = self.view.borrow().pool.clone() else {
            return;
        };
        match pool.space() {
            Ok(space) => {
                self.ails(None);
                self.view.send_modify(|view| view.space = Some(space));
            }
            Err(error) => self.ails(Some(chain(&error))),
        }
    }

    /// What is wrong with the pool, if anything.
    fn ails(&self, why: Option<String>) {
        if self.view.borrow().why == why {
            return;
        }
        match &why {
            Some(why) => tracing::warn!("the pool of volumes cannot be used: {why}"),
            None => tracing::info!("the pool of volumes can be used"),
        }
        self.view.send_modify(|view| {
            if why.is_some() {
                view.space = None;
            }
            view.why = why;
        });
    }

    fn containers(
        &self,
        pool: &dyn Pool,
        mounted: &[Mounted],
    ) -> Result<Vec<ContainerMounts>, Refusal> {
        let mut all = Vec::new();
        for one in mounted {
            all.extend(container_mounts(pool, &self.cgroup_parent, one)?);
        }
        Ok(all)
    }
}

/// `None`: it has not started yet.
fn container_mounts(
    pool: &dyn Pool,
    cgroup_parent: &str,
    one: &Mounted,
) -> Result<Option<ContainerMounts>, Refusal> {
    let mounts = mount_plans(pool, &one.volumes)?;
    ContainerMounts::new(
        one.container,
        &one.keeper,
        (cgroup_parent, &one.slot),
        one.ids,
        mounts,
    )
    .map_err(|error| {
        crate::containers::refuse_internal("a container's mounts cannot be looked at", &error)
    })
}
