//! Volumes: any sequence ends clean, and stories of single ones.

mod model;

use std::time::Duration;

use proptest::prelude::*;
use teu_node_core::{
    Effect, Input,
    volume::{MAX_TRANSFERS_OF_ACCOUNT, MAX_VOLUMES, Work},
};
use teu_protocol::{
    ids::{PublicKey, RequestId, VolumeId},
    message::{
        NodeReplyBody, NodeRequestBody, RefusalCode, SnapshotSchedule, VolumeOrder, VolumeRecord,
        VolumeState,
    },
};

use model::{Order, Step, VOLUMES, World, at, body, container, record, spawn, step, volume};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn any_sequence_ends_clean(steps in proptest::collection::vec(step(), 0..80)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            prop_assert!(world.transfers() <= MAX_TRANSFERS_OF_ACCOUNT);
        }
        world.settle();
        for n in 0..3 {
            world.send(NodeRequestBody::Destroy(container(n)));
        }
        world.settle();
        world.list();
        let told: Vec<VolumeId> = world.core.volumes().unwrap().iter()
            .map(|one| one.record.id).collect();
        let there: Vec<VolumeId> = world.pool.keys().copied().collect();
        prop_assert_eq!(told, there, "the core and the pool agree");
        for n in 0..VOLUMES {
            let id = world.order(VolumeOrder::Destroy(volume(n)));
            world.settle();
            prop_assert_eq!(&world.answers[&id], &Ok(NodeReplyBody::Done));
        }
        prop_assert_eq!(world.core.volumes(), Some(Vec::new()));
        prop_assert_eq!(world.core.next_deadline(), None);
        for id in &world.sent {
            prop_assert!(world.answers.contains_key(id), "order {} was not answered", id);
        }
    }
}

fn code(world: &World, id: RequestId) -> Option<RefusalCode> {
    world.answers[&id].as_ref().err().copied()
}

#[test]
fn what_waits_for_a_volume_that_is_not_made_is_refused() {
    let mut world = World::new();
    world.order(body(0, Order::Create));
    let scheduled = world.order(body(0, Order::Schedule(false)));
    let again = world.order(body(0, Order::Create));
    world.outcome(0, false);
    assert_eq!(code(&world, scheduled), Some(RefusalCode::NotFound));
    world.settle();
    assert_eq!(code(&world, again), None, "it tries for itself");
}

#[test]
fn a_volume_in_use_is_not_destroyed_and_one_that_is_destroyed_is_not_used() {
    let mut world = World::new();
    world.order(body(0, Order::Create));
    let early = world.send(spawn(0, vec![at(0)]));
    assert_eq!(code(&world, early), Some(RefusalCode::Busy));
    world.settle();
    world.send(spawn(1, vec![at(0)]));
    let destroy = world.order(body(0, Order::Destroy));
    assert_eq!(code(&world, destroy), Some(RefusalCode::Busy));
    world.settle();
    world.step(Step::Exit(1));
    // Its mounts are not gone yet: the order waits, and bars new users.
    let destroy = world.order(body(0, Order::Destroy));
    assert!(!world.answers.contains_key(&destroy));
    let late = world.send(spawn(2, vec![at(0)]));
    assert_eq!(code(&world, late), Some(RefusalCode::Busy));
    world.settle();
    assert_eq!(world.answers[&destroy], Ok(NodeReplyBody::Done));
    let late = world.send(spawn(2, vec![at(0)]));
    assert_eq!(code(&world, late), Some(RefusalCode::NotFound));
}

#[test]
fn anothers_volume_does_not_exist() {
    let mut world = World::new();
    let theirs = VolumeRecord {
        account: PublicKey::from_bytes([4; 32]),
        ..record(0, None)
    };
    world.order(VolumeOrder::Create(theirs));
    world.settle();
    let spawned = world.send(spawn(0, vec![at(0)]));
    assert_eq!(code(&world, spawned), Some(RefusalCode::NotFound));
    let cloned = world.order(body(1, Order::Clone(0)));
    assert_eq!(code(&world, cloned), Some(RefusalCode::NotFound));
    let imported = world.order(body(0, Order::Import(true)));
    assert_eq!(code(&world, imported), Some(RefusalCode::NotFound));
}

#[test]
fn a_node_full_of_volumes_makes_no_more() {
    let mut world = World::new();
    for number in 0..u32::try_from(MAX_VOLUMES).unwrap() {
        let mut id = [0xee; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let id = VolumeId::from_bytes(id);
        world.pool.insert(
            id,
            VolumeRecord {
                id,
                ..record(0, None)
            },
        );
    }
    world.list();
    let refused = world.order(body(0, Order::Create));
    assert_eq!(code(&world, refused), Some(RefusalCode::NoCapacity));
    let first = *world.pool.keys().next().unwrap();
    world.order(VolumeOrder::Destroy(first));
    world.settle();
    let made = world.order(body(0, Order::Create));
    world.settle();
    assert!(world.answers[&made].is_ok());
}

#[test]
fn an_unreadable_pool_says_nothing_and_a_lost_volume_is_missing() {
    let mut world = World::new();
    world.order(body(0, Order::Create));
    world.order(body(1, Order::Create));
    world.settle();
    world.input(Input::Volumes(None));
    assert_eq!(world.core.volumes(), None);
    let states = |world: &mut World| -> Vec<VolumeState> {
        world.told.drain(..).map(|one| one.state).collect()
    };
    assert_eq!(states(&mut world), [VolumeState::Faulted; 2]);
    let refused = world.order(body(0, Order::Destroy));
    assert_eq!(code(&world, refused), Some(RefusalCode::Faulted));
    world.pool.remove(&volume(0));
    world.list();
    assert_eq!(
        states(&mut world),
        [VolumeState::Missing, VolumeState::Ready]
    );
    assert_eq!(world.core.volumes().map(|all| all.len()), Some(1));
    let spawned = world.send(spawn(0, vec![at(0)]));
    assert_eq!(code(&world, spawned), Some(RefusalCode::NotFound));
    let forgotten = world.order(body(0, Order::Destroy));
    world.settle();
    assert_eq!(world.answers[&forgotten], Ok(NodeReplyBody::Done));
    assert_eq!(world.core.unwell().count(), 0);
}

#[test]
fn numbers_and_names_are_checked() {
    let mut world = World::new();
    world.order(body(0, Order::Create));
    world.settle();
    let id = volume(0);
    let schedule = |every_s, keep| VolumeOrder::SetSchedule {
        volume: id,
        schedule: Some(SnapshotSchedule { every_s, keep }),
    };
    let bad = [
        VolumeOrder::SetQuota {
            volume: id,
            quota_bytes: Some((1 << 20) - 1),
        },
        VolumeOrder::Snapshot {
            volume: id,
            name: "auto-mine".parse().unwrap(),
        },
        schedule(9, 1),
        schedule(10, 0),
        schedule(10, 1_001),
        schedule(u64::MAX, 1),
    ];
    for order in bad {
        let refused = world.order(order);
        assert_eq!(code(&world, refused), Some(RefusalCode::BadRequest));
    }
    for order in [schedule(10, 1), schedule(10, 1_000)] {
        let done = world.order(order);
        world.settle();
        assert_eq!(code(&world, done), None);
    }
}

#[test]
fn a_schedule_snapshots_once_a_period() {
    let mut world = World::new();
    world.order(body(0, Order::Create));
    world.order(body(0, Order::Schedule(true)));
    world.settle();
    assert_eq!(world.core.next_deadline(), Some(Duration::from_secs(10)));
    world.step(Step::Later(10_000));
    let [Effect::Volume(work)] = world.under_way.as_slice() else {
        panic!("{:?}", world.under_way)
    };
    let name = "auto-19700112T134650Z".parse().unwrap();
    assert_eq!(work.work, Work::Scheduled { name, keep: 2 });
    // A slow pool: what comes meanwhile waits, once.
    world.step(Step::Later(10_000));
    world.step(Step::Later(10_000));
    assert_eq!(world.under_way.len(), 1);
    world.outcome(0, true);
    assert_eq!(world.under_way.len(), 1);
    world.outcome(0, true);
    assert_eq!(world.under_way.len(), 0);
    world.order(body(0, Order::Schedule(false)));
    world.settle();
    assert_eq!(world.core.next_deadline(), None);
}

#[test]
fn exports_that_wait_take_places_and_an_account_never_all_of_them() {
    let mut world = World::new();
    world.order(body(0, Order::Create));
    let theirs = VolumeRecord {
        account: PublicKey::from_bytes([4; 32]),
        ..record(1, None)
    };
    world.order(VolumeOrder::Create(theirs));
    world.settle();
    // Behind a snapshot that is being taken.
    world.order(body(0, Order::Snapshot(0)));
    let waiting: Vec<RequestId> = (0..5)
        .map(|_| world.order(body(0, Order::Export(0))))
        .collect();
    let refused = code(&world, waiting[4]);
    assert_eq!(refused, Some(RefusalCode::Unavailable));
    assert!(!world.answers.contains_key(&waiting[3]));
    let other = world.order(body(1, Order::Export(0)));
    world.settle();
    assert_eq!(code(&world, waiting[3]), None);
    assert_eq!(code(&world, other), None);
    let again = world.order(body(0, Order::Export(0)));
    world.settle();
    assert_eq!(code(&world, again), None);
}
