//! A location in a box: the real broker ([`teu_master_core::Core`]) among model nodes and clients,
//! under one simulated clock and a network that cuts connections and loses what was on the way.
//!
//! ```text
//! Action ─▶ World::act ─▶ peers speak, links deliver or break, parts crash ─▶ Core::handle
//!                                     └─────────── after every step: check ◀──────┘
//! ```
//! Owner: one test. Invariant: everything follows from the list of actions, so a failing list is
//! replayed and shrunk. A connection is TCP's: in order or broken; connections are independent of
//! each other, each side notices a break in its own time.
//! Start at [`World`]; what must always hold is in [`check`].

pub mod action;
pub mod check;
mod client;
mod daemon;
mod link;
mod master;
mod network;
mod node;
mod program;
mod scenery;
mod world;

pub use action::Action;
pub use world::World;
