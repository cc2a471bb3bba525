//! Simulation: random lists of happenings on a simulated location; a failing list is shrunk and its
//! seed kept beside this file.

use proptest::{collection::vec, prelude::*, test_runner::FileFailurePersistence};
use teu_integration::sim::{Action, World, action::any_action};

/// Longer than a restarted master waits for clients, and than requests are retried.
const SETTLE_MS: u64 = 45_000;

/// Seeds that have failed once, tried first.
const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sim.seeds");

fn run(actions: &[Action]) -> Result<(), String> {
    let mut world = World::new();
    world.settle(1_000)?;
    for action in actions {
        world.act(*action)?;
    }
    world.settle(SETTLE_MS)?;
    world.check_settled()?;
    world.close()?;
    world.check_empty()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 4_000, failure_persistence: Some(Box::new(FileFailurePersistence::Direct(SEEDS))), ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_rules_hold(actions in vec(any_action(), 1..250)) {
        run(&actions).map_err(TestCaseError::fail)?;
    }
}
