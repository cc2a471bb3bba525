//! Any sequence of orders and outcomes ends clean: a model of each, and single stories.
//!
//! `lives` is of containers, `volumes` of volumes. Each model world performs the effects in any order
//! and with any outcome.

#![allow(clippy::panic, clippy::unwrap_used)] // A test that meets the impossible has failed.

mod lives;
mod rig;
mod volumes;
