//! End-to-end tests: real daemons, real containers, the real `teu` command and SDK. As root.
//!
//! `cargo test -p teu-integration --test e2e [FILTER]`, after `cargo build --workspace` and (for
//! `volumes::kills`) `deploy/lib/build-failpoints`.
//! Most trials share one location; those that kill daemons have one of their own.

mod cleanup;
mod cli;
mod dev;
mod images;
mod isolation;
mod persistence;
mod processes;
mod sdk;
mod terminal;
mod tunnels;
mod volumes;

use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use teu_integration::world::World;

/// A test on the shared location.
type Shared = (&'static str, fn(&World));

/// A test that starts its own location.
type Own = (&'static str, fn());

fn main() {
    let mut arguments = Arguments::from_args();
    // Two cores: more at once only makes each wait.
    arguments.test_threads.get_or_insert(2);
    if arguments.list {
        libtest_mimic::run(&arguments, trials(None)).exit();
    }
    let world = Arc::new(World::start());
    world.import_busybox();
    let conclusion = libtest_mimic::run(&arguments, trials(Some(&world)));
    drop(world);
    conclusion.exit();
}

fn trials(world: Option<&Arc<World>>) -> Vec<Trial> {
    let shared = [
        cli::TRIALS,
        images::TRIALS,
        isolation::TRIALS,
        processes::TRIALS,
        sdk::TRIALS,
        terminal::TRIALS,
        tunnels::TRIALS,
    ];
    let own = [
        cleanup::TRIALS,
        dev::TRIALS,
        persistence::TRIALS,
        sdk::ALONE,
    ];
    let own = own.iter().chain(volumes::TRIALS).copied();
    let shared = shared.into_iter().flatten().map(|(name, test): &Shared| {
        let (world, test) = (world.cloned(), *test);
        Trial::test(*name, move || {
            if let Some(world) = world {
                test(&world);
            }
            Ok(())
        })
    });
    let own = own.flatten().map(|(name, test): &Own| {
        let test = *test;
        let cannot = volumes::cannot_run(name);
        if let Some(why) = &cannot {
            eprintln!("skipped: {name}: {why}");
        }
        let trial = Trial::test(*name, move || {
            test();
            Ok(())
        });
        trial.with_ignored_flag(cannot.is_some())
    });
    shared.chain(own).collect()
}

/// Runs a future of a test to its end.
fn wait<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(future)
}
