//! The daemon as its peers see it: real TCP, real handshakes, the real core.
//!
//! Clients and nodes here are the `teu-link` that real ones use; what they say is written out in the
//! tests. Hostile peers are in `integration/tests/attack`.

// A panic in a test's own helpers is a failed test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod flow;
mod full_disk;
mod layers;
mod sessions;
mod streams;
mod world;
