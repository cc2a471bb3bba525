//! The location's master as a library: sockets, store, layer cache and event loop around the pure core.
//!
//! [`Server::start`] runs one in this process (tests do); the binary `teu-master` adds flags and
//! signals. What is decided is decided in `teu_master_core`; what is here is how it reaches the world.
//! Start at [`Server`].

mod admission;
mod bootstrap;
mod bounds;
mod broker;
mod clock;
mod config;
mod connection;
pub mod failpoints;
mod gate;
mod handshake;
mod house;
mod identity;
mod inflow;
mod layers;
mod listener;
mod memory;
mod outbox;
mod peer;
mod random;
mod server;
mod store;
mod stream;
mod wire;

pub use admission::AdmissionLimits;
pub use bootstrap::{Bootstrap, BootstrapAccount, BootstrapError, BootstrapNode};
pub use config::Config;
pub use identity::{IdentityError, load_or_create as load_or_create_key};
pub use layers::LayerCacheError;
pub use random::RandomError;
pub use server::{Failed, Server, StartError};
pub use store::{MemoryStore, RedbStore, Store, StoreError};
