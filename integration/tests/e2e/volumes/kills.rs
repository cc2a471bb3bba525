//! `kill -9` of the agent or the master at each failpoint of what is done to volumes.
//!
//! Each case is played twice. First the client is killed as well: what it asked for is done or not
//! begun (which of the two, the failpoint says), nothing is half done, nothing is left over, and asking
//! again comes to the same as if nothing had happened. Then with a client that waits: its one call ends
//! well across the death, and its effect happened once.
//!
//! Invariant: every name that the daemons list was died at. Next: `picture` for what is compared.

use std::{
    io::Cursor,
    time::{Duration, Instant},
};

use teu::{Error, Location, RefusalCode, Volume};
use teu_integration::world::{PATIENCE, World, cannot_build_failpoints, patience};
use teu_master::failpoints::ALL as OF_MASTER;

use super::picture::{self, Picture, Seen};
use crate::{Own, wait};

pub(crate) const TRIALS: &[Own] = &[
    ("volumes::kills::the_agent_at_each_failpoint", agent),
    (
        "volumes::kills::the_agent_at_a_scheduled_snapshot",
        schedule,
    ),
    ("volumes::kills::the_master_at_each_failpoint", master),
    ("volumes::kills::the_master_while_the_agent_works", between),
];

/// Why none of these can run here, if so.
pub(crate) fn cannot_run() -> Option<String> {
    cannot_build_failpoints()
}

pub(super) const MIB: u64 = 1 << 20;

/// What is done to the volume `base`, or what it makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Create,
    Clone,
    Destroy,
    Snapshot,
    DestroySnapshot,
    RollBack,
    Quota,
    Import,
}

/// A death.
#[derive(Debug, Clone, Copy)]
struct Case {
    failpoint: &'static str,
    op: Op,
    /// What was asked for is there afterwards although nobody asks again.
    done: bool,
}

const fn case(failpoint: &'static str, op: Op, done: bool) -> Case {
    Case {
        failpoint,
        op,
        done,
    }
}

const IN_AGENT: &[Case] = &[
    case("volume-create-made", Op::Create, true),
    case("volume-create-answer", Op::Create, true),
    case("volume-clone-answer", Op::Clone, true),
    case("volume-snapshot-begun", Op::Snapshot, false),
    case("volume-snapshot-answer", Op::Snapshot, true),
    case("volume-destroy-snapshot-begun", Op::DestroySnapshot, false),
    case("volume-destroy-snapshot-answer", Op::DestroySnapshot, true),
    case("volume-rollback-made", Op::RollBack, true),
    case("volume-rollback-answer", Op::RollBack, true),
    case("volume-quota-made", Op::Quota, false),
    case("volume-import-answer", Op::Import, true),
    case("volume-destroy-answer", Op::Destroy, true),
];

/// Died at in a test of its own, for nobody asks for it.
const SCHEDULED: &str = "volume-schedule-made";

const IN_MASTER: &[Case] = &[
    case("volume-persist", Op::Create, true),
    case("volume-persist", Op::Clone, true),
    case("volume-persist", Op::Import, true),
    case("volume-persisted", Op::Create, true),
    case("volume-persisted", Op::Quota, true),
    case("volume-destroy-mark", Op::Destroy, false),
    case("volume-destroy-marked", Op::Destroy, true),
    case("volume-forget", Op::Destroy, true),
    case("volume-forgotten", Op::Destroy, true),
];

/// What the agent lists.
fn of_agent() -> Vec<&'static str> {
    let source = include_str!("../../../../node/agent/src/volumes/worker/failpoints.rs");
    let names: Vec<_> = source
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|name| name.starts_with("volume-"))
        .collect();
    assert!(names.len() > 10, "the agent's list is read: {names:?}");
    names
}

fn agent() {
    let played = IN_AGENT.iter().map(|case| case.failpoint);
    every_one(played.chain([SCHEDULED]), &of_agent());
    play("teu-node", IN_AGENT);
}

fn master() {
    every_one(IN_MASTER.iter().map(|case| case.failpoint), &OF_MASTER);
    play("teu-master", IN_MASTER);
}

fn every_one<'a>(played: impl Iterator<Item = &'a str>, listed: &[&'a str]) {
    let mut played: Vec<_> = played.collect();
    let mut listed = listed.to_vec();
    for names in [&mut played, &mut listed] {
        names.sort_unstable();
        names.dedup();
    }
    assert_eq!(played, listed, "(left: died at here, right: listed)");
}

fn play(daemon: &'static str, cases: &[Case]) {
    let world = World::start_with_failpoints();
    world.import_busybox();
    wait(async {
        let watcher = world.connect().await.expect("connected");
        let mut stage = Stage::set(&world, watcher).await;
        for case in cases {
            let began = Instant::now();
            stage.with_a_client_that_dies(daemon, *case).await;
            stage.with_a_client_that_waits(daemon, *case).await;
            let name = case.failpoint;
            eprintln!("{name} {:?}: {:.1?}", case.op, began.elapsed());
        }
        stage.watcher.close().await;
    });
    picture::nothing_gone(&world);
}

/// A location with one volume in a running container, and others as the cases need them.
struct Stage<'a> {
    world: &'a World,
    /// A session that is there all the time.
    watcher: Location,
    container: teu::Container,
    /// An exported snapshot.
    export: Vec<u8>,
    count: u32,
}

impl<'a> Stage<'a> {
    async fn set(world: &'a World, watcher: Location) -> Self {
        let mounted = ready(watcher.create_volume().tag("mounted")).await;
        let container = watcher
            .spawn("busybox")
            .command(["sleep", "100000"])
            .volume(&mounted, "/mounted")
            .start()
            .await
            .expect("spawned");
        picture::write_mark(world, &mounted.info(), "exported");
        mounted.snapshot("exported").await.expect("a snapshot");
        let mut export = Vec::new();
        let exported = mounted.export_to("exported", None, &mut export).await;
        exported.expect("exported");
        mounted.destroy_snapshot("exported").await.expect("gone");
        Self {
            world,
            watcher,
            container,
            export,
            count: 0,
        }
    }

    /// What the operation is done to.
    async fn prepare(&mut self, op: Op) -> (Volume, String) {
        self.count += 1;
        let base = match op {
            Op::RollBack => self.watcher.volume("mounted").await.expect("there"),
            _ => {
                let name = format!("base{}", self.count);
                ready(self.watcher.create_volume().tag(&name)).await
            }
        };
        picture::write_mark(self.world, &base.info(), "first");
        base.snapshot("one").await.expect("a snapshot");
        picture::write_mark(self.world, &base.info(), "second");
        (base, format!("made{}", self.count))
    }

    async fn with_a_client_that_dies(&mut self, daemon: &str, case: Case) {
        let (base, name) = self.prepare(case.op).await;
        let before = self.settled().await;
        let mut after = before.clone();
        change(&mut after, case.op, &base, &name);
        self.world.arm(daemon, &format!("{}=panic", case.failpoint));
        let deaths = self.world.deaths_at(case.failpoint);
        let client = self.world.connect().await.expect("connected");
        let volume = client.volume(&base.id().to_string()).await.expect("there");
        let asked = perform(client, volume, case.op, name.clone(), self.export.clone());
        let asked = tokio::spawn(asked);
        self.until(case, || self.world.deaths_at(case.failpoint) > deaths)
            .await;
        asked.abort();
        self.world.wait_up();
        let expected = if case.done { &after } else { &before };
        self.comes_to(expected, case).await;
        // Somebody else asks for the same.
        let client = self.world.connect().await.expect("connected");
        let again = match client.volume(&base.id().to_string()).await {
            Ok(volume) => perform(client, volume, case.op, name, self.export.clone()).await,
            Err(error) => Err(error),
        };
        let code = again.as_ref().err().map(|error| error.code());
        let expected = match (case.done, case.op) {
            (true, Op::Create | Op::Clone | Op::Import | Op::Snapshot) => {
                Some(Some(RefusalCode::TagTaken))
            }
            (true, Op::Destroy | Op::DestroySnapshot) => Some(Some(RefusalCode::NotFound)),
            _ => None,
        };
        assert_eq!(code, expected, "{case:?}: {again:?}");
        self.comes_to(&after, case).await;
        self.clear(&base, case.op).await;
    }

    async fn with_a_client_that_waits(&mut self, daemon: &str, case: Case) {
        let (base, name) = self.prepare(case.op).await;
        let mut after = self.settled().await;
        change(&mut after, case.op, &base, &name);
        self.world.arm(daemon, &format!("{}=panic", case.failpoint));
        let deaths = self.world.deaths_at(case.failpoint);
        let client = self.watcher.clone();
        let volume = client.volume(&base.id().to_string()).await.expect("there");
        let asked = perform(client, volume, case.op, name, self.export.clone()).await;
        assert_eq!(self.world.deaths_at(case.failpoint), deaths + 1, "{case:?}");
        match case.op {
            // A stream is not asked for again by itself: its bytes are the caller's. The master may
            // have passed on its end before it died.
            Op::Import => {
                if let Err(error) = asked {
                    assert!(error.is_retryable(), "{case:?}: {error:?}");
                }
            }
            _ => asked.unwrap_or_else(|error| panic!("{case:?}: {error:?}")),
        }
        self.world.wait_up();
        self.comes_to(&after, case).await;
        self.clear(&base, case.op).await;
    }

    /// Nothing of a case is in the way of the next.
    async fn clear(&self, base: &Volume, op: Op) {
        for info in self.watcher.volumes() {
            if info
                .spec
                .tag
                .as_ref()
                .is_some_and(|tag| tag.as_str() != "mounted")
            {
                let volume = self
                    .watcher
                    .volume(&info.id.to_string())
                    .await
                    .expect("there");
                volume.destroy().await.expect("destroyed");
            }
        }
        if op == Op::RollBack {
            base.destroy_snapshot("one").await.expect("gone");
        }
    }

    async fn until(&self, case: Case, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + patience(PATIENCE);
        while !holds() {
            assert!(Instant::now() < deadline, "{case:?} is not reached");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What there is when nothing moves any more.
    async fn settled(&self) -> Picture {
        self.looked(|_| true, "settled").await
    }

    async fn comes_to(&self, expected: &Picture, case: Case) {
        let what = format!("{case:?} comes to {expected:?}");
        self.looked(|found| found == expected, &what).await;
        self.container_sees(expected).await;
    }

    async fn looked(&self, fits: impl Fn(&Picture) -> bool, what: &str) -> Picture {
        let deadline = Instant::now() + patience(PATIENCE);
        loop {
            let found = picture::look(self.world, &self.watcher).await;
            match found {
                Ok(found) if fits(&found) => return found,
                found if Instant::now() > deadline => panic!("{what}: {found:?}"),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// The container runs, and has one mount, of the tree that counts.
    async fn container_sees(&self, expected: &Picture) {
        let script = "cat /mounted/mark; grep -c ' /mounted ' /proc/self/mountinfo";
        let seen = self.container.run(["sh", "-c", script]).output().await;
        let seen = seen.expect("it runs, and is not frozen").stdout;
        let seen = String::from_utf8_lossy(&seen).into_owned();
        let mark = expected["mounted"].mark.clone().unwrap_or_default();
        assert_eq!(seen, format!("{mark}1\n"));
    }
}

/// Makes the volume, and asks until the location does it.
async fn ready(builder: teu::VolumeBuilder) -> Volume {
    builder.await.expect("a volume")
}

/// Asks, once.
async fn perform(
    client: Location,
    volume: Volume,
    op: Op,
    name: String,
    export: Vec<u8>,
) -> Result<(), Error> {
    match op {
        Op::Create => {
            let builder = client.create_volume().tag(name).quota(64 * MIB);
            builder.await.map(drop)
        }
        Op::Clone => volume.clone_from("one").tag(name).await.map(drop),
        Op::Destroy => volume.destroy().await,
        Op::Snapshot => volume.snapshot("two").await,
        Op::DestroySnapshot => volume.destroy_snapshot("one").await,
        Op::RollBack => volume.rollback("one").await,
        Op::Quota => volume.set_quota(32 * MIB).await,
        Op::Import => {
            let builder = client.create_volume().tag(name);
            builder.import_from(Cursor::new(export)).await.map(drop)
        }
    }
}

/// What it comes to.
fn change(picture: &mut Picture, op: Op, base: &Volume, name: &str) {
    let tag = base.tag().expect("a name").to_string();
    let new = match op {
        Op::Create => Seen {
            quota: Some(64 * MIB),
            ..Seen::default()
        },
        Op::Clone => Seen {
            mark: Some("first".to_owned()),
            ..Seen::default()
        },
        Op::Import => Seen {
            snapshots: vec!["exported".to_owned()],
            mark: Some("exported".to_owned()),
            quota: None,
        },
        Op::Destroy => {
            picture.remove(&tag);
            return;
        }
        _ => {
            let seen = picture.get_mut(&tag).expect("there");
            match op {
                Op::Snapshot => seen.snapshots.push("two".to_owned()),
                Op::DestroySnapshot => seen.snapshots.clear(),
                Op::RollBack => seen.mark = Some("first".to_owned()),
                _ => seen.quota = Some(32 * MIB),
            }
            return;
        }
    };
    picture.insert(name.to_owned(), new);
}

/// What nobody asked for is finished by the next turn.
fn schedule() {
    let world = World::start_with_failpoints();
    wait(async {
        let watcher = world.connect().await.expect("connected");
        let builder = watcher.create_volume().tag("timed");
        let timed = builder.schedule(Duration::from_secs(10), 1).await;
        let timed = timed.expect("a volume");
        let one_is_there = async |after: &str| {
            let deadline = Instant::now() + patience(PATIENCE);
            loop {
                let found = picture::look(&world, &watcher).await;
                if let Ok(found) = &found
                    && let [one] = found["timed"].snapshots.as_slice()
                    && one.as_str() > after
                {
                    return one.clone();
                }
                assert!(Instant::now() < deadline, "one after `{after}`: {found:?}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let first = one_is_there("").await;
        world.arm("teu-node", &format!("{SCHEDULED}=panic"));
        let deadline = Instant::now() + patience(PATIENCE);
        while world.deaths_at(SCHEDULED) == 0 {
            assert!(Instant::now() < deadline, "{SCHEDULED} is not reached");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        world.wait_up();
        // It is durable, the older one is still there, and both are listed until the next turn.
        let both = timed.snapshots().await.expect("asked");
        assert!(
            both.len() == 2 || both[0].name.as_str() > first.as_str(),
            "{both:?}"
        );
        let second = both[both.len() - 1].name.to_string();
        one_is_there(&second).await;
        watcher.close().await;
    });
}

/// The master dies while the agent is between having done it and saying so, or is doing it.
fn between() {
    const CASES: &[Case] = &[
        case("volume-create-answer", Op::Create, true),
        case("volume-clone-answer", Op::Clone, true),
        case("volume-snapshot-answer", Op::Snapshot, true),
        case("volume-destroy-snapshot-answer", Op::DestroySnapshot, true),
        case("volume-rollback-made", Op::RollBack, true),
        case("volume-destroy-answer", Op::Destroy, true),
    ];
    let world = World::start_with_failpoints();
    world.import_busybox();
    wait(async {
        let watcher = world.connect().await.expect("connected");
        let mut stage = Stage::set(&world, watcher).await;
        for case in CASES {
            stage.while_the_agent_works(*case).await;
        }
        stage.watcher.close().await;
    });
    picture::nothing_gone(&world);
}

impl Stage<'_> {
    async fn while_the_agent_works(&mut self, case: Case) {
        let (base, name) = self.prepare(case.op).await;
        let mut after = self.settled().await;
        change(&mut after, case.op, &base, &name);
        self.world
            .arm("teu-node", &format!("{}=1*sleep(1500)", case.failpoint));
        let before = picture::on_disk(self.world);
        let client = self.watcher.clone();
        let volume = client.volume(&base.id().to_string()).await.expect("there");
        let asked = perform(client, volume, case.op, name, self.export.clone());
        let asked = tokio::spawn(asked);
        // What is asked for can be seen in the pool, and its answer waits.
        self.until(case, || picture::on_disk(self.world) != before)
            .await;
        self.world.kill_daemon("teu-master");
        let asked = asked.await.expect("no panic");
        asked.unwrap_or_else(|error| panic!("{case:?}: {error:?}"));
        self.comes_to(&after, case).await;
        self.clear(&base, case.op).await;
    }
}
