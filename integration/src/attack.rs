//! Hostile peers: a master in a process of its own, raw peers that break every rule, and an honest
//! client that must not notice.
//!
//! Owner: `tests/attack`. Invariant: nothing here uses the listener's code: what a raw peer sends is
//! written out byte by byte or made by the dialling side of `teu_protocol`.
//! Start at [`Target`], [`RawPeer`], [`Honest`].

mod honest;
mod linked;
mod raw;
mod target;

pub use honest::{Honest, Served};
pub use linked::{LinkedClient, LinkedNode, initiate};
pub use raw::{RawPeer, Sealed};
pub use target::{ANN, BOB, NODE_1, NODE_2, STRANGER, Target, key, serve_if_asked};
