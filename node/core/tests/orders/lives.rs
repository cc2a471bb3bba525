//! Containers: any sequence ends clean, and stories of single ones.

mod model;

use std::time::Duration;

use proptest::prelude::*;
use teu_node_core::{Effect, Input, Now, input::ProcessEnd};
use teu_protocol::message::{Cause, ContainerState, ExitStatus, NodeRequestBody};

use model::{Order, World, body, container, ip, spawn, step};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn any_sequence_ends_clean(steps in proptest::collection::vec(step(), 0..60)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.finish();
        prop_assert!(world.core.containers().is_empty());
        prop_assert_eq!(world.core.next_deadline(), None);
        for (id, sent) in &world.sent {
            let answers = world.answers.get(id).copied().unwrap_or(0);
            prop_assert!(answers >= 1 && answers <= *sent, "order {id}: {answers} of {sent}");
        }
    }
}

fn state(world: &World, n: u8) -> Option<ContainerState> {
    world
        .core
        .containers()
        .into_iter()
        .find(|one| one.container == container(n))
        .map(|c| c.state)
}

#[test]
fn a_container_that_ignores_the_stop_signal_is_killed_after_the_grace() {
    let mut world = World::new();
    world.order(spawn(0, false));
    world.outcome(0, true);
    world.order(body(0, Order::Stop));
    assert_eq!(world.core.next_deadline(), Some(Duration::from_secs(5)));
    world.now = Duration::from_secs(5);
    let now = Now {
        steady: world.now,
        unix_ms: 7,
    };
    let effects = world.core.handle(Input::Tick, now);
    assert!(matches!(
        effects.as_slice(),
        [Effect::Signal {
            signal: teu_protocol::image_config::signal::Signal::KILL,
            request: None,
            ..
        }]
    ));
    let end = ProcessEnd {
        status: ExitStatus::Signal(9),
        out_of_memory: false,
        timed_out: false,
    };
    world.input(Input::Exited {
        container: container(0),
        end,
    });
    let Some(ContainerState::Exited { termination, .. }) = state(&world, 0) else {
        panic!()
    };
    assert_eq!(termination.cause, Cause::Stopped);
    assert_eq!(world.answers.values().copied().collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn an_address_that_is_given_back_opens_no_door() {
    let mut world = World::new();
    for n in 0..2 {
        world.order(spawn(n, false));
        world.outcome(0, true);
    }
    world.order(body(0, Order::AllowFrom(1)));
    world.outcome(0, true);
    assert_eq!(
        world.core.containers()[0].allowed_from,
        [(container(1), ip(1))]
    );
    world.order(NodeRequestBody::Destroy(container(1)));
    let [
        Effect::Remove {
            revoke, ip: gone, ..
        },
    ] = world.under_way.as_slice()
    else {
        panic!()
    };
    assert_eq!(
        (revoke.as_slice(), *gone),
        (&[container(0)][..], Some(ip(1)))
    );
    assert_eq!(world.core.containers()[0].allowed_from, []);
}

#[test]
fn an_end_that_comes_before_the_word_of_the_start_is_told_after_it() {
    let mut world = World::new();
    world.order(spawn(0, false));
    let end = ProcessEnd {
        status: ExitStatus::Code(3),
        out_of_memory: false,
        timed_out: false,
    };
    world.input(Input::Exited {
        container: container(0),
        end,
    });
    assert_eq!(state(&world, 0), Some(ContainerState::Preparing));
    world.outcome(0, true);
    let Some(ContainerState::Exited { termination, .. }) = state(&world, 0) else {
        panic!()
    };
    assert_eq!(termination.status, ExitStatus::Code(3));
    assert!(matches!(
        world.under_way.as_slice(),
        [Effect::Release { .. }]
    ));
}
