//! What bad input gets: hostile peers against a real master over real TCP, an honest client beside.
//!
//! `cargo test -p teu-integration --test attack [FILTER]`. Each trial has a master of its own, in a
//! process of its own (this program again), so that its memory can be looked at.
// A panic in a trial or its helpers is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod authority;
mod framing;
mod handshakes;
mod pressure;
mod sealed;

use std::{future::Future, pin::Pin};

use libtest_mimic::{Arguments, Trial};
use teu_integration::attack::{Target, serve_if_asked};

/// An attack on a master that was just started.
type Attack = fn(&Target) -> Pin<Box<dyn Future<Output = ()> + '_>>;

fn main() {
    serve_if_asked();
    let mut arguments = Arguments::from_args();
    // Each has two processes of its own.
    arguments.test_threads.get_or_insert(2);
    let trials = [
        authority::TRIALS,
        framing::TRIALS,
        handshakes::TRIALS,
        pressure::TRIALS,
        sealed::TRIALS,
    ];
    let trials = trials
        .into_iter()
        .flatten()
        .map(|(name, attack): &(&str, Attack)| {
            let attack = *attack;
            Trial::test(*name, move || {
                let target = Target::start();
                let runtime = tokio::runtime::Runtime::new()?;
                runtime.block_on(attack(&target));
                Ok(())
            })
        });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}
