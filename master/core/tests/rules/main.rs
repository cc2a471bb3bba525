//! The core's rules, one scripted conversation each: what goes in, what must come out.
//!
//! [`house`] is a location whose clients and nodes are played by the test. The simulation in
//! `integration/` plays them at random instead.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A panic is a failed test.

mod connecting;
mod destroying;
mod house;
mod images;
mod limits;
mod nodes;
mod ownership;
mod retrying;
mod spawning;
mod streams;
mod volumes;
mod volumes_kept;
mod volumes_shared;
