//! What a node decides, without doing it: containers, processes, volumes and the firewall.
//!
//! Owned by the node agent, which performs the effects. Invariant: no sockets, files, clock,
//! randomness or locks in this crate; time and ids come in as inputs. Next: [`node`], the machine
//! that takes the master's orders; `firewall`, `slots` and `stream` beside it.

mod container;
mod orders;
mod process;

pub mod accounts;
pub mod effect;
pub mod firewall;
pub mod input;
pub mod node;
pub mod plan;
pub mod record;
pub mod slots;
pub mod stream;
pub mod usage;
pub mod volume;

pub use effect::Effect;
pub use input::{Input, Now};
pub use node::NodeCore;
pub use orders::MAX_PENDING_ORDERS;
