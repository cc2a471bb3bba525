//! Who may do what with a volume, and who is told: sessions of an account, containers, strangers.

use std::time::Duration;

use teu_integration::{
    attack::{LinkedClient, key},
    world::{PATIENCE, World, patience},
};
use teu_link::Dialer;
use teu_protocol::{
    ids::{StreamId, Tag, VolumeId},
    message::{ImportTarget, RefusalCode, RequestBody, RollBack, SessionAsk, VolumeSpec},
    noise::LocationIdentity,
};

use crate::{Own, wait};

pub(crate) const TRIALS: &[Own] = &[
    (
        "volumes::sharing::ensuring_twice_gives_the_same_one",
        ensure,
    ),
    ("volumes::sharing::all_sessions_are_told_at_once", told),
    ("volumes::sharing::read_only_is_not_written", read_only),
    ("volumes::sharing::a_strangers_does_not_exist", stranger),
    (
        "volumes::sharing::scheduled_snapshots_are_kept_as_told",
        scheduled,
    ),
];

fn ensure() {
    let world = World::start();
    wait(async {
        let (a, b) = (world.connect().await, world.connect().await);
        let (a, b) = (a.expect("connected"), b.expect("connected"));
        // At the same time, from two sessions; and again.
        let (first, second) = tokio::join!(
            a.ensure_volume("data").quota(64 << 20).start(),
            b.ensure_volume("data").quota(64 << 20).start()
        );
        let first = first.expect("there").id();
        assert_eq!(second.expect("there").id(), first);
        assert_eq!(b.ensure_volume("data").await.expect("there").id(), first);
        assert_eq!(a.volumes().len(), 1);
        a.close().await;
        b.close().await;
    });
    let id = world.ok(["volume", "ls", "-q"]);
    assert_eq!(world.ok(["volume", "create", "--ensure", "data"]), "data");
    assert_eq!(world.ok(["volume", "ls", "-q"]), id);
}

/// How long an event may take: not a poll's period, but a loaded machine's hiccup.
const AT_ONCE: Duration = Duration::from_secs(2);

fn told() {
    let world = World::start();
    world.import_busybox();
    wait(async {
        let (a, b) = (world.connect().await, world.connect().await);
        let (a, b) = (a.expect("connected"), b.expect("connected"));
        let mut offer = b.offer();
        let mut sees = async |what: &str, holds: &dyn Fn(&[teu::VolumeInfo]) -> bool| {
            let seen = offer.wait_for(|offer| holds(&offer.volumes));
            let seen = tokio::time::timeout(patience(AT_ONCE), seen).await;
            assert!(
                seen.is_ok_and(|seen| seen.is_ok()),
                "{what}: {:?}",
                b.volumes()
            );
        };
        let builder = a.create_volume().tag("shared");
        let volume = builder.await.expect("a volume");
        let id = volume.id();
        sees("made", &|all| all.iter().any(|one| one.id == id)).await;
        volume.set_quota(32 << 20).await.expect("changed");
        sees("its quota", &|all| {
            all[0].spec.quota_bytes == Some(32 << 20)
        })
        .await;
        let container = a
            .spawn("busybox")
            .command(["sleep", "1000"])
            .volume(&volume, "/v")
            .start()
            .await
            .expect("spawned");
        sees("its user", &|all| all[0].used_by == [container.id()]).await;
        container.destroy().await.expect("destroyed");
        sees("no user", &|all| all[0].used_by.is_empty()).await;
        volume.destroy().await.expect("destroyed");
        sees("gone", &<[_]>::is_empty).await;
        a.close().await;
        b.close().await;
    });
}

fn read_only() {
    let world = World::start();
    world.import_busybox();
    world.ok(["volume", "create", "shared"]);
    for (name, mount) in [
        ("writer", "shared:/v"),
        ("other", "shared:/elsewhere"),
        ("reader", "shared:/v:ro"),
    ] {
        world.ok([
            "run", "-d", "--name", name, "-v", mount, "busybox", "sleep", "1000",
        ]);
    }
    let says = |name: &str, script: &str| world.ok(["exec", name, "sh", "-c", script]);
    says("writer", "echo one > /v/file");
    assert_eq!(says("reader", "cat /v/file"), "one");
    says("other", "echo two >> /elsewhere/file");
    assert_eq!(says("reader", "cat /v/file"), "one\ntwo");
    let refused = |script: &str| {
        let said = world.teu(["exec", "reader", "sh", "-c", script]);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.status.success(), "{script}");
        assert!(text.contains("Read-only file system"), "{script}: {text}");
    };
    for script in [
        "echo no > /v/file",
        "rm /v/file",
        "mkdir /v/new",
        "chmod 777 /v/file",
        "ln /v/file /v/other",
    ] {
        refused(script);
    }
    // A roll-back replaces the mounts; what was read-only is that again.
    world.ok(["volume", "snapshot", "shared", "s"]);
    says("writer", "echo three > /v/file");
    world.ok(["volume", "rollback", "--yes", "shared", "s"]);
    refused("echo no > /v/file");
    for (name, file) in [
        ("writer", "/v/file"),
        ("other", "/elsewhere/file"),
        ("reader", "/v/file"),
    ] {
        assert_eq!(says(name, &format!("cat {file}")), "one\ntwo", "{name}");
    }
    says("other", "echo four >> /elsewhere/file");
    assert_eq!(says("reader", "tail -n 1 /v/file"), "four");
}

fn stranger() {
    const STRANGER: u8 = 0x51;
    let world = World::start();
    wait(async {
        let location = world.connect().await.expect("connected");
        let builder = location.create_volume().tag("mine");
        let mine = builder.await.expect("a volume");
        mine.snapshot("s").await.expect("a snapshot");
        let public = key(STRANGER).public().to_string();
        world.ok(["account", "enrol", &public, "--name", "stranger"]);
        let config = teu::config::Config::load(&world.home()).expect("the client's files");
        let entry = config.locations["dev"].clone();
        let identity = LocationIdentity::new(&entry.fqdn, entry.key, entry.serial);
        let dialer = Dialer::new(
            &entry.endpoint,
            identity.expect("a location"),
            key(STRANGER),
        );
        let client = LinkedClient::over(dialer, SessionAsk::New).await;
        let mut client = client.expect("an account of the location");
        for (what, body) in all_about(mine.id()) {
            let refusal = client.request(body).await.expect_err(what);
            assert_eq!(refusal.code, RefusalCode::NotFound, "{what}: {refusal}");
        }
        // A name that it cannot see is free for it.
        let body = RequestBody::CreateVolume {
            node: None,
            spec: VolumeSpec {
                tag: Some(tag("mine")),
                ..VolumeSpec::default()
            },
            ensure: true,
        };
        let answer = client.request(body).await.expect("a volume of its own");
        let teu_protocol::message::ReplyBody::Volume(own) = answer else {
            panic!("not a volume: {answer:?}");
        };
        assert_ne!(own.id, mine.id());
        // And the owner sees one, which is as it was.
        let ids: Vec<_> = location.volumes().into_iter().map(|one| one.id).collect();
        assert_eq!(ids, [mine.id()]);
        assert_eq!(mine.snapshots().await.expect("asked").len(), 1);
        location.close().await;
    });
}

fn tag(name: &str) -> Tag {
    name.parse().expect("a name")
}

/// All that can be asked about a volume.
fn all_about(volume: VolumeId) -> Vec<(&'static str, RequestBody)> {
    let (name, stream) = (tag("s"), StreamId(1));
    vec![
        ("find by id", RequestBody::FindVolume(volume.to_string())),
        ("find by name", RequestBody::FindVolume("mine".to_owned())),
        ("destroy", RequestBody::DestroyVolume(volume)),
        ("list snapshots", RequestBody::Snapshots(volume)),
        (
            "snapshot",
            RequestBody::Snapshot {
                volume,
                name: tag("theirs"),
            },
        ),
        (
            "destroy a snapshot",
            RequestBody::DestroySnapshot {
                volume,
                name: name.clone(),
            },
        ),
        (
            "roll back",
            RequestBody::RollBack(RollBack {
                volume,
                snapshot: name.clone(),
                discard_later: true,
                force: true,
            }),
        ),
        (
            "clone",
            RequestBody::CloneVolume {
                volume,
                snapshot: name.clone(),
                spec: VolumeSpec::default(),
            },
        ),
        ("usage", RequestBody::VolumeUsage(volume)),
        (
            "set the quota",
            RequestBody::SetQuota {
                volume,
                quota_bytes: None,
            },
        ),
        (
            "set the schedule",
            RequestBody::SetSchedule {
                volume,
                schedule: None,
            },
        ),
        (
            "export",
            RequestBody::ExportVolume {
                volume,
                snapshot: name,
                base: None,
                stream,
                window: 65_536,
            },
        ),
        (
            "import into",
            RequestBody::ImportVolume {
                target: ImportTarget::Into(volume),
                stream,
            },
        ),
    ]
}

/// The shortest period there is, and two of them kept.
fn scheduled() {
    let world = World::start();
    wait(async {
        let location = world.connect().await.expect("connected");
        world.ok([
            "volume",
            "create",
            "--snapshot-every",
            "10s",
            "--keep",
            "2",
            "timed",
        ]);
        let volume = location.volume("timed").await.expect("there");
        volume.snapshot("by-hand").await.expect("a snapshot");
        let mut seen = std::collections::BTreeSet::new();
        let deadline = std::time::Instant::now() + patience(PATIENCE) * 2;
        // Four come; never are there more than those that stay and the one that was just made.
        while seen.len() < 4 {
            assert!(std::time::Instant::now() < deadline, "they come: {seen:?}");
            let all = volume.snapshots().await.expect("asked");
            let names = all.iter().map(|one| one.name.to_string());
            let (timed, by_hand): (Vec<_>, Vec<_>) =
                names.partition(|name| name.starts_with("auto-"));
            assert_eq!(by_hand, ["by-hand"]);
            assert!(timed.len() <= 3, "{timed:?}");
            seen.extend(timed);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        // Once the last has come, the oldest go: two are left, none older than the two newest seen.
        let oldest = seen.iter().nth_back(1).cloned().expect("four came");
        let deadline = std::time::Instant::now() + patience(PATIENCE);
        loop {
            let all = volume.snapshots().await.expect("asked");
            let names = all.iter().map(|one| one.name.to_string());
            let timed: Vec<_> = names.filter(|name| name.starts_with("auto-")).collect();
            if timed.len() == 2 && timed.iter().all(|name| *name >= oldest) {
                break;
            }
            let now = std::time::Instant::now();
            assert!(now < deadline, "two from `{oldest}` on: {timed:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Each at the beginning of a period of ten seconds since 1970.
        assert!(seen.iter().all(|name| name.ends_with("0Z")), "{seen:?}");
        world.ok(["volume", "schedule", "--off", "timed"]);
        assert_eq!(volume.info().spec.schedule, None);
        location.close().await;
    });
}
