//! The conformance suite of pools: every case with every kind of pool that this machine can have.
//!
//! `cargo test -p teu-node --test pools [FILTER]`, as root. A kind that cannot be had is one ignored
//! trial, with its reason printed. The binary is also the child that is killed (see `pools/kill.rs`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub
)]

#[path = "pools/broken.rs"]
mod broken;
#[path = "pools/cases.rs"]
mod cases;
#[path = "pools/kill.rs"]
mod kill;
#[path = "pools/lab.rs"]
mod lab;
#[path = "pools/streams.rs"]
mod streams;
#[path = "pools/suspended.rs"]
mod suspended;
#[path = "pools/timings.rs"]
mod timings;

use libtest_mimic::{Arguments, Trial};

use self::lab::{FuseDaemon, Kind, Lab};

fn main() {
    kill::run_if_child();
    let mut arguments = Arguments::from_args();
    // For two cores.
    arguments.test_threads.get_or_insert(2);
    let mut trials = Vec::new();
    for kind in Kind::ALL {
        match kind.missing() {
            None => trials.extend(trials_of(kind)),
            Some(reason) => {
                let name = format!("{}::everything", kind.name());
                eprintln!("skipped: {name}: {reason}");
                trials.push(Trial::test(name, || Ok(())).with_ignored_flag(true));
            }
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    FuseDaemon::stop();
    conclusion.exit();
}

fn trials_of(kind: Kind) -> Vec<Trial> {
    let own = match kind {
        Kind::Loop => broken::LOOP,
        Kind::Dir => &[],
        Kind::Fuse | Kind::OpenZfs => broken::ZFS,
    };
    let (own_alone, suspended) = match kind {
        Kind::OpenZfs => (broken::OPENZFS, suspended::ALL),
        _ => (&[][..], &[][..]),
    };
    let all = [
        cases::CASES,
        streams::ALL,
        broken::ALL,
        own,
        own_alone,
        suspended,
        timings::ALL,
    ]
    .concat();
    let mut trials: Vec<Trial> = all
        .into_iter()
        .map(|(name, case)| {
            Trial::test(format!("{}::{name}", kind.name()), move || {
                let _turn = lab::turn(kind);
                case(&Lab::new(kind));
                Ok(())
            })
        })
        .collect();
    trials.extend(match kind {
        Kind::Fuse if std::env::var_os("TEU_TEST_ZFS_FUSE_KILLS").is_none() => vec![fuse_kills()],
        _ => kill::trials(kind),
    });
    trials
}

/// zfs-fuse now and then (once in about a hundred kills and what follows) keeps an unmounted dataset busy. The kills of
/// the same code on OpenZFS, in the guest of deploy/vm, are what counts.
fn fuse_kills() -> Trial {
    let name = "zfs-fuse::killed_at";
    eprintln!(
        "skipped: {name}: at times zfs-fuse itself keeps an unmounted dataset busy; they run on OpenZFS, and here with TEU_TEST_ZFS_FUSE_KILLS=1"
    );
    Trial::test(name, || Ok(())).with_ignored_flag(true)
}
