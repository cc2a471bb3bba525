//! The broker's decisions: who may do what, where it runs, who hears of it.
//!
//! Pure: `Core::handle(input, now) -> effects`. No sockets, files, clock or randomness; the daemon
//! (`teu-master`) owns a [`Core`], feeds it [`Input`]s and performs the [`Effect`]s in their order
//! (persisting before sending). Bulk data never comes here: the core keeps the table of streams,
//! the daemon's connections follow it.
//!
//! The tables (`accounts`, `sessions`, `containers`, `nodes`, `orders`, `streams`, `images`,
//! `volumes`) keep
//! their own invariants and know nothing of each other; the files named after what happens
//! (`connect`, `depart`, `request`, `spawn`, `outcome`, `reconcile`, ...) are `impl Core` and decide.
//! Start at [`Core::handle`].

pub mod effect;
pub mod input;
pub mod record;

mod accounts;
mod admin;
mod bounds;
mod catalogue;
mod clock;
mod config;
mod connect;
mod connections;
mod container;
mod containers;
mod core;
mod depart;
mod destroy;
mod doctor;
mod exec;
mod find;
mod image_name;
mod images;
mod issue;
mod layers;
mod limits;
mod node_link;
mod nodes;
mod offers;
mod open;
mod orders;
mod outcome;
mod placement;
mod readers;
mod ready;
mod reconcile;
mod refusals;
mod replies;
mod request;
mod session;
mod sessions;
mod spawn;
mod streams;
pub mod subnet;
mod transfer;
mod volumes;
mod wiring;

pub use crate::core::Core;
pub use config::Config;
pub use effect::{Effect, Outbound};
pub use input::{ConnectionId, Input, Now};
pub use transfer::TransferSecret;
