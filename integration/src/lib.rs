//! Whole-system tests: the only crate that knows all the others.
//!
//! [`world`] runs a real location for tests/e2e and the benchmark. The test programs themselves are
//! under `tests/` (e2e as root, attack, simulation, tidiness) and `src/bin/bench`.

pub mod attack;
pub mod pool;
pub mod sim;
pub mod world;
